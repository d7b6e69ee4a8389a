from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ComfymodalError, InputFileError, UsageError, WorkflowError
from comfymodal.workflow.graph import Graph
from comfymodal.workflow.override import Overridden, Override, apply_overrides, draw_seed, parse_overrides
from tests.unit.workflow.workflow_samples import image_to_image, node, object_info, text_to_image


def override(graph: Graph, *arguments: str, info: Any = None, draw: Callable[[], int] = lambda: 42) -> Overridden:
    known = object_info() if info is None else info
    return apply_overrides(graph, parse_overrides(arguments, graph), object_info=known, draw_seed=draw)


def nodes_meant(argument: str, graph: Graph) -> tuple[tuple[str, ...], str]:
    (parsed,) = parse_overrides([argument], graph)
    return parsed.node_ids, parsed.input_name


def dotted() -> Graph:
    """Ids, titles and classes that get in each other's way."""
    return {
        "57": node("A", "Outer", text="", **{"model.width": 1}),
        "57:8": node("B", "57", text=""),
        "1": node("C", "v1.5 Prompt", text=""),
        "2": node("C", "v1", text=""),
        "3": node("D", "D", text=""),
        "4": node("D", "Other", text=""),
        "5": node("Pack.Node", "1. Positive", text=""),
        "6": node("E", "Twin", text=""),
        "7": node("E", "Twin", text=""),
        "8": node("F", "a=b", text=""),
        "9": node("G", '@"odd', text=""),
    }


@pytest.mark.parametrize(
    ("argument", "node_ids", "input_name"),
    [
        ("57.text=x", ("57",), "text"),
        ("57:8.text=x", ("57:8",), "text"),
        ("57.model.width=5", ("57",), "model.width"),
        ("57.model.height:=5", ("57",), "model.height"),
        ('"57".text=x', ("57:8",), "text"),
        ("@57.text=x", ("57:8",), "text"),
        ("Outer.text=x", ("57",), "text"),
        ('"Outer".text=x', ("57",), "text"),
        ('@"Outer".text=x', ("57",), "text"),
        ("v1.5 Prompt.text=x", ("1",), "text"),
        ("v1.text=x", ("2",), "text"),
        ("@v1.5 Prompt.text=x", ("1",), "text"),
        ("1. Positive.text=x", ("5",), "text"),
        ("1.text=x", ("1",), "text"),
        ("D.text=x", ("3",), "text"),
        ("D[*].text=x", ("3", "4"), "text"),
        ("E[*].text:=1", ("6", "7"), "text"),
        ("A[*].text=x", ("57",), "text"),
        ("Pack.Node.text=x", ("5",), "text"),
        ("6.text=a.b=c", ("6",), "text"),
        ("6.text=a:=b", ("6",), "text"),
        ('"a=b".text=x', ("8",), "text"),
        ('@@"odd.text=x', ("9",), "text"),
    ],
)
def test_a_node_goes_by_id_then_title_then_class(argument: str, node_ids: tuple[str, ...], input_name: str) -> None:
    assert nodes_meant(argument, dotted()) == (node_ids, input_name)


def test_an_override_keeps_what_was_typed() -> None:
    parsed = parse_overrides(["8.samples:=[ ]", "6.text= a=b "], text_to_image())
    assert parsed == (
        Override(("8",), "samples", ":=", "[ ]", "8.samples:=[ ]"),
        Override(("6",), "text", "=", " a=b ", "6.text= a=b "),
    )


@pytest.mark.parametrize(
    ("argument", "message", "hint"),
    [
        pytest.param("Twin.text=x", 'the title "Twin" fits 2 nodes: 6, 7', "say which: 6.text, 7.text", id="title"),
        pytest.param("@Twin.text=x", "fits 2 nodes", "say which: 6.text, 7.text", id="forced title"),
        pytest.param("E.text:=1", 'the class "E" fits 2 nodes: 6, 7', "all of them: 'E[*].text'", id="class"),
        pytest.param("@A.text=x", 'no node "A"', "nodes:", id="a class is no title"),
        pytest.param('"57:8".text=x', 'no node "57:8"', "57:8", id="a quoted id is no title"),
        pytest.param("Outr.text=x", 'no node "Outr"', "did you mean Outer or Other?", id="typo in a title"),
        pytest.param('"Outr.x".text=x', 'no node "Outr.x"', "did you mean Outer?", id="typo in quotes"),
        pytest.param("58.text=x", 'no node "58"', '57 "Outer" (A)', id="unknown id"),
        pytest.param("Pack.Nod[*].text=x", 'no node "Pack.Nod"', "did you mean Pack.Node?", id="typo in a class"),
    ],
)
def test_a_node_that_is_not_clear_is_refused(argument: str, message: str, hint: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse_overrides([argument], dotted())
    assert caught.value.exit_code == 3
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "argument",
    [
        *("", "=", "6", "6.text", "6.text:", "text=x", ".text=x", " .text=x", "6.=x", "6.:=1", "6=x", "6.text=@"),
        *('"Negative".text', "@Negative.text", '"Negative".=x', "6.\udcff=x", "6.text=\udcff", "\udcff"),
    ],
    ids=ascii,
)
def test_a_malformed_argument_is_a_usage_error(argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_overrides([argument], text_to_image())
    assert caught.value.exit_code == 2
    assert any(words in str(caught.value.hint) for words in ("NODE.INPUT=", "6.text=@FILE"))
    caught.value.message.encode()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["6.text=a", "6.text=b"], id="by id"),
        pytest.param(["6.text=a", "6.text=a"], id="the same text"),
        pytest.param(["6.text=a", '"Positive Prompt".text:="b"'], id="by id and title"),
        pytest.param(["CLIPTextEncode[*].text=a", "7.text=b"], id="by class and id"),
    ],
)
def test_an_input_set_twice_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"sets (6|7)\.text twice"):
        parse_overrides(arguments, text_to_image())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ":1:1"),
        ("[1,", ":1:4"),
        ("cat", ":1:1"),
        ("NaN", "NaN"),
        ('{"a":1,"a":2}', "twice"),
        ("[" * 5000 + "]" * 5000, "deep"),
    ],
    ids=lambda text: text[:12],
)
def test_broken_json_after_colon_equals_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse_overrides([f"6.text:={text}"], text_to_image())
    assert caught.value.message.startswith("--set 6.text:=")
    assert where in caught.value.message


def test_replacing_a_link_needs_colon_equals() -> None:
    with pytest.raises(WorkflowError) as caught:
        parse_overrides(["8.samples=x"], text_to_image())
    assert caught.value.message == 'node 8 (VAEDecode) input "samples" is a link to 3 (KSampler); use := to replace it'
    done = override(text_to_image(), '8.samples:=["5", 0]')
    assert done.graph["8"]["inputs"]["samples"] == ["5", 0]


def test_a_link_to_a_node_that_is_gone_is_still_a_link() -> None:
    with pytest.raises(WorkflowError, match="a node that is not there"):
        parse_overrides(["1.it=x"], {"1": node("A", it=["9", 0])})


BIG = {"class_type": "Typed", "inputs": {}}
TYPED = {
    "Typed": {
        "input": {
            "required": {
                "int": ["INT", {}],
                "float": ["FLOAT", {}],
                "flag": ["BOOLEAN", {}],
                "text": ["STRING", {}],
                "legacy": [["a", "b"], {}],
                "combo": ["COMBO", {"options": [1, 2.5, True, "x"]}],
                "number": ["INT,FLOAT", {}],
                "image": ["IMAGE", {}],
                "color": ["COLOR", {}],
                "model": ["COMFY_DYNAMICCOMBO_V3", {"options": []}],
            }
        }
    }
}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("1.int=20", 20),
        ("1.int=-3", -3),
        ("1.int=+3", 3),
        ("1.float=7", 7.0),
        ("1.float=7.5", 7.5),
        ("1.float=-1e-4", -1e-4),
        ("1.float=.5", 0.5),
        ("1.number=7.5", 7.5),
        ("1.flag=true", True),
        ("1.flag=YES", True),
        ("1.flag=on", True),
        ("1.flag=1", True),
        ("1.flag=False", False),
        ("1.flag=no", False),
        ("1.flag=Off", False),
        ("1.flag=0", False),
        ("1.text=123", "123"),
        ("1.text=[x]", "[x]"),
        ('1.text=["3",0]', '["3",0]'),
        ("1.text=true", "true"),
        ("1.text=", ""),
        ("1.text= a ", " a "),
        ("1.text=random", "random"),
        ("1.text=@@x", "@x"),
        ("1.text=@@@x", "@@x"),
        ("1.text=a@b", "a@b"),
        ("1.legacy=b", "b"),
        ("1.legacy=zzz", "zzz"),
        ("1.combo=1", 1),
        ("1.combo=2.5", 2.5),
        ("1.combo=True", True),
        ("1.combo=x", "x"),
        ("1.int:=7", 7),
        ("1.int:=null", None),
        ('1.text:="a"', "a"),
        ('1.image:=["9",0]', ["9", 0]),
        ("1.text:=[1, 2]", {"__value__": [1, 2]}),
        ('1.text:=["9","0"]', {"__value__": ["9", "0"]}),
        ("1.text:=[]", {"__value__": []}),
        ('1.text:={"__value__": [1]}', {"__value__": [1]}),
        ("1.model.width:=5", 5),
    ],
)
def test_the_server_decides_the_type(argument: str, value: object) -> None:
    done = override({"1": copy.deepcopy(BIG)}, argument, info=TYPED)
    new = done.graph["1"]["inputs"][argument[2:].partition("=")[0].removesuffix(":")]
    assert (new, type(new)) == (value, type(value))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("1.int=1e3", "whole number"),
        ("1.int=7.5", "whole number"),
        ("1.int=1_000", "whole number"),
        ("1.int=\N{ARABIC-INDIC DIGIT THREE}", "whole number"),
        ("1.int=", "whole number"),
        ("1.int=true", "whole number"),
        ("1.int=random", "whole number"),
        pytest.param("1.int=" + "9" * 5000, "whole number", id="5000 digits"),
        ("1.float=nan", "a number"),
        ("1.float=-inf", "a number"),
        ("1.float=1e999", "a number"),
        ("1.float=1_0.5", "a number"),
        ("1.float=7,5", "a number"),
        ("1.flag=2", "true or false"),
        ("1.flag=", "true or false"),
        ("1.image=x", "(IMAGE) is not one"),
        ("1.color=red", "(COLOR) is not one"),
        ("1.model.width=5", "is not one"),
        ("1.txt=x", 'has no input "txt"'),
        ("1.txt:=1", 'has no input "txt"'),
        ("1.text.x=1", 'has no input "text.x"'),
    ],
)
def test_a_value_of_another_type_is_refused(argument: str, words: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        override({"1": copy.deepcopy(BIG)}, argument, info=TYPED)
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("current", "text", "value"),
    [(20, "30", 30), (7.0, "8", 8.0), (True, "off", False), ("a", "1", "1")],
    ids=["int", "float", "bool", "text"],
)
def test_the_graph_decides_the_type_where_the_server_does_not(current: Any, text: str, value: object) -> None:
    done = override({"1": node("Custom", it=current)}, f"1.it={text}", info={})
    new = done.graph["1"]["inputs"]["it"]
    assert (new, type(new)) == (value, type(value))


@pytest.mark.parametrize("current", [None, {"a": 1}], ids=["null", "object"])
def test_a_value_without_a_type_needs_json(current: Any) -> None:
    graph = {"1": node("Custom", it=current)}
    with pytest.raises(WorkflowError) as caught:
        override(graph, "1.it=5", info={})
    assert "use :=" in str(caught.value.hint)
    assert override(graph, "1.it:=5", info={}).graph["1"]["inputs"]["it"] == 5


def test_a_whole_number_in_the_graph_may_be_a_float_for_the_server() -> None:
    assert override(text_to_image(), "3.cfg=7.5").graph["3"]["inputs"]["cfg"] == 7.5


def test_a_literal_of_a_custom_type_stays_of_its_kind() -> None:
    graph = {"1": node("Typed", color="#000000")}
    assert override(graph, "1.color=#ffffff", info=TYPED).graph["1"]["inputs"]["color"] == "#ffffff"


def test_an_unknown_input_lists_near_and_known_ones() -> None:
    with pytest.raises(WorkflowError) as caught:
        override(text_to_image(), "6.txt=x")
    assert caught.value.message == 'node 6 (CLIPTextEncode) has no input "txt"'
    assert caught.value.hint == "did you mean text? inputs of CLIPTextEncode: text, clip"
    assert caught.value.details["near"] == ["text"]


def test_an_input_the_graph_leaves_out_can_be_set() -> None:
    graph = text_to_image()
    del graph["6"]["inputs"]["text"]
    done = override(graph, "6.text=5")
    assert done.graph["6"]["inputs"]["text"] == "5"
    assert done.changes[0].old is None


def test_the_given_graph_stays_as_it_is() -> None:
    graph = text_to_image()
    done = override(graph, "CLIPTextEncode[*].text=x", "3.steps=4", '9.images:=["9", 0]', "5.width:=[1]")
    assert graph == text_to_image()
    assert {node_id for node_id in graph if graph[node_id] != done.graph[node_id]} == {"3", "5", "6", "7", "9"}


def test_changes_say_what_was_and_what_is() -> None:
    done = override(text_to_image(), "6.text=a dog", "EmptyLatentImage.width=64")
    assert [(c.node_id, c.title, c.input_name, c.old, c.new) for c in done.changes] == [
        ("6", "Positive Prompt", "text", "a cat", "a dog"),
        ("5", "EmptyLatentImage", "width", 512, 64),
    ]


def test_a_random_seed_is_drawn_and_recorded() -> None:
    draws = iter([7, 8])
    graph = {**text_to_image(), "20": node("KSampler", seed=1), "21": node("PrimitiveInt", value=1)}
    done = override(graph, "KSampler[*].seed=random", draw=lambda: next(draws))
    assert [(c.node_id, c.new) for c in done.changes] == [("3", 7), ("20", 8)]
    assert override(graph, "21.value=random").graph["21"]["inputs"]["value"] == 42
    assert override({"1": node("Custom", noise_seed=1)}, "1.noise_seed=random", info={}).changes[0].new == 42


def test_random_is_no_number_for_other_inputs() -> None:
    with pytest.raises(WorkflowError, match="whole number"):
        override(text_to_image(), "3.steps=random")


@pytest.mark.parametrize(("low", "high"), [(0, 2**32 - 1), (-1, 9), (5, 5)], ids=str)
def test_a_drawn_seed_fits_the_range_of_the_input(low: int, high: int) -> None:
    info = {"N": {"input": {"required": {"seed": ["INT", {"min": low, "max": high}]}}}}
    for drawn in (0, 10, 2**53 - 1):
        done = override({"1": node("N", seed=0)}, "1.seed=random", info=info, draw=iter([drawn]).__next__)
        assert low <= done.changes[0].new <= high
        assert done.changes[0].new == drawn or not low <= drawn <= high


def test_the_default_draw_is_exact_in_javascript() -> None:
    assert all(0 <= draw_seed() < 2**53 for _ in range(100))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a dog", "a dog"),
        (b"a dog\n", "a dog"),
        (b"a dog\r\n", "a dog"),
        (b"a dog\n\n", "a dog\n"),
        (b"\xef\xbb\xbfa dog", "a dog"),
        (b"a\r\nb", "a\r\nb"),
        (b"@x", "@x"),
        (b"", ""),
    ],
    ids=repr,
)
def test_text_comes_from_a_file(data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(data)
    done = override(text_to_image(), f"6.text=@{tmp_path / 'p.txt'}")
    assert done.graph["6"]["inputs"]["text"] == text
    assert done.uploads == ()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs pipes with a path")
def test_a_pipe_is_read_once_for_several_nodes() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a dog\n")
    os.close(writer)
    try:
        done = override(text_to_image(), f"CLIPTextEncode[*].text=@/dev/fd/{reader}")
    finally:
        os.close(reader)
    assert [change.new for change in done.changes] == ["a dog", "a dog"]


def test_a_missing_text_file_is_refused_before_an_engine_is_needed(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("x")
    with pytest.raises(InputFileError) as caught:
        parse_overrides([f"6.text=@{tmp_path / 'promt.txt'}"], text_to_image())
    assert caught.value.exit_code == 3
    assert f"did you mean {tmp_path / 'prompt.txt'}?" in str(caught.value.hint)
    assert "@@" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["@a\0b", "@" + "x" * 5000], ids=["NUL", "too long"])
def test_a_file_name_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputFileError):
        parse_overrides([f"6.text={text}"], text_to_image())


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputFileError, match="is not UTF-8 text"):
        override(text_to_image(), f"6.text=@{tmp_path / 'p.png'}")


def test_a_number_takes_no_file(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("5")
    with pytest.raises(WorkflowError, match="takes no file: it is INT"):
        override(text_to_image(), f"3.steps=@{tmp_path / 'n.txt'}")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in the current folder, which is also home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "Photo.PNG").write_bytes(b"pixels")
    return tmp_path / "Photo.PNG"


@pytest.mark.parametrize("text", ["Photo.PNG", "./Photo.PNG", "@Photo.PNG", "~/Photo.PNG", "@~/Photo.PNG"])
def test_a_local_file_is_uploaded_under_the_name_of_its_content(text: str, photo: Path) -> None:
    done = override(image_to_image(), f"10.image={text}")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    (upload,) = done.uploads
    assert upload.name == f"comfymodal/{sha256[:32]}.png"
    assert (upload.node_id, upload.input_name, upload.sha256, upload.size_bytes) == ("10", "image", sha256, 6)
    assert upload.path.resolve() == photo.resolve()
    assert done.graph["10"]["inputs"]["image"] == upload.name
    assert done.changes[0].new == upload.name


@pytest.mark.parametrize(
    ("class_type", "input_name"),
    [("LoadImageMask", "image"), ("LoadAudio", "audio"), ("LoadVideo", "file")],
)
def test_every_input_with_an_upload_option_uploads(class_type: str, input_name: str, photo: Path) -> None:
    done = override({"1": node(class_type, **{input_name: "x"})}, f"1.{input_name}=@{photo}")
    assert [upload.path for upload in done.uploads] == [photo]


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize("text", ["example.png", "sub/known.png", "sub/new.png [output]", "", "a b.png"])
def test_other_names_are_the_servers(text: str) -> None:
    done = override(image_to_image(), f"10.image={text}", info=object_info(image=["sub/known.png"]))
    assert done.graph["10"]["inputs"]["image"] == text
    assert done.uploads == ()


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./Phot.png", "no file"),
        ("gone/photo.png", "no file"),
        ("~/gone.png", "no file"),
        (r"C:\gone.png", "no file"),
        ("@gone.png", "no file"),
        (".", "is a directory"),
        ("@.", "is a directory"),
    ],
)
def test_a_local_path_that_is_no_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputFileError, match=words) as caught:
        override(image_to_image(), f"10.image={text}")
    assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_upload_needs_a_regular_file(photo: Path) -> None:
    os.mkfifo(photo.with_name("pipe.png"))
    with pytest.raises(InputFileError, match="not a regular file"):
        override(image_to_image(), "10.image=@pipe.png")


def test_a_suffix_that_comfyui_would_misread_is_dropped(photo: Path) -> None:
    photo.rename(photo.with_name("x.png [output]"))
    (upload,) = override(image_to_image(), "10.image=@x.png [output]").uploads
    assert "[" not in upload.name
    assert "." not in upload.name


def test_json_names_a_file_on_the_server(photo: Path) -> None:
    done = override(image_to_image(), f'10.image:="{photo.name}"')
    assert (done.graph["10"]["inputs"]["image"], done.uploads) == (photo.name, ())


def test_any_argument_is_taken_or_refused_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.txt").write_text("x")
    rng = random.Random(20261121)
    graph = {**text_to_image(), **image_to_image(), **{f"d{key}": value for key, value in dotted().items()}}
    pieces = ["6", "3", "10", "57:8", "KSampler", "CLIPTextEncode", "[*]", ".", ".", "=", "=", ":=", '"', "@", "@@"]
    pieces += ["text", "steps", "cfg", "image", "seed", "random", "f.txt", "~", "/", "\\", "C:", "\0", "\n", "é", " "]
    pieces += ["[", "]", "{", "}", "1", "1e9", "NaN", "null", '["3",0]', "\udcff", "\U0001f600", "Positive Prompt", ""]
    starts = ["6.text", "3.steps", "3.cfg", "3.sampler_name", "10.image", "5.width", "KSampler.seed", '"Negative".text']
    info = object_info()
    taken = 0
    errors: list[ComfymodalError] = []
    for _ in range(1500):
        start = rng.choice(starts) + rng.choice(["=", ":="]) if rng.random() < 0.6 else ""
        arguments = [start + "".join(rng.choices(pieces, k=rng.randrange(7))) for _ in range(rng.randrange(1, 3))]
        try:
            override(graph, *arguments, info=rng.choice([info, {}]))
            taken += 1
        except ComfymodalError as error:
            errors.append(error)
    assert taken > 100
    assert len(errors) > 1000
    assert all(error.message.encode() and error.hint and error.hint.encode() for error in errors)
