from __future__ import annotations

import json
import random
from typing import Any

import pytest

from comfymodal.errors import ComfymodalError, InputFileError, NotFoundError, WorkflowError
from comfymodal.workflow.check import Kind, Problem, check_graph, require_valid
from comfymodal.workflow.graph import Graph
from tests.unit.workflow.workflow_samples import image_to_image, node, object_info, text_to_image

MODELS = ["SDXL/base.safetensors", "sd15.safetensors"]


def check(graph: Graph, **more: Any) -> tuple[Problem, ...]:
    info = more.pop("object_info", None) or object_info(ckpt_name=MODELS, image=["example.png"])
    return check_graph(graph, object_info=info, **more)


def blocking(problems: tuple[Problem, ...]) -> list[tuple[Kind, str, str | None]]:
    return [(p.kind, p.node_id, p.input_name) for p in problems if not p.is_warning]


def warnings(problems: tuple[Problem, ...]) -> list[tuple[Kind, str, str | None]]:
    return [(p.kind, p.node_id, p.input_name) for p in problems if p.is_warning]


def changed(graph: Graph, node_id: str, **inputs: Any) -> Graph:
    graph[node_id]["inputs"].update(inputs)
    return graph


def test_a_good_graph_has_no_problems() -> None:
    assert check(text_to_image()) == ()
    assert check(image_to_image()) == ()


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        pytest.param("5", {"width": "128"}, id="numeric text for INT"),
        pytest.param("3", {"cfg": "7.5"}, id="numeric text for FLOAT"),
        pytest.param("3", {"cfg": 7}, id="int for FLOAT"),
        pytest.param("3", {"seed": 2**64 - 1}, id="the largest seed"),
        pytest.param("6", {"text": 123}, id="number for STRING"),
        pytest.param("9", {"filename_prefix": ["20", 0]}, id="STRING linked to STRING"),
        pytest.param("3", {"steps": ["21", 0]}, id="INT linked to INT"),
        pytest.param("3", {"sampler_name": ["20", 0]}, id="COMBO linked to STRING"),
    ],
)
def test_what_the_server_takes_is_no_problem(node_id: str, inputs: dict[str, Any]) -> None:
    graph = changed(text_to_image(), node_id, **inputs)
    graph["20"] = node("PrimitiveStringMultiline", value="x")
    graph["21"] = node("PrimitiveInt", value=3)
    assert check(graph) == ()


@pytest.mark.parametrize(
    ("node_id", "inputs", "kind", "words"),
    [
        pytest.param("5", {"width": "abc"}, "bad_type", "whole number (INT)", id="text for INT"),
        pytest.param("5", {"width": None}, "bad_type", "null", id="null for INT"),
        pytest.param("5", {"width": {"a": 1}}, "bad_type", "INT", id="object for INT"),
        pytest.param("5", {"width": "9" * 5000}, "bad_type", "INT", id="endless text for INT"),
        pytest.param("3", {"cfg": "x"}, "bad_type", "FLOAT", id="text for FLOAT"),
        pytest.param("3", {"cfg": 10**400}, "bad_type", "FLOAT", id="int beyond FLOAT"),
        pytest.param("8", {"samples": "x.latent"}, "bad_type", "needs a link (LATENT)", id="text for LATENT"),
        pytest.param("9", {"images": "photo.png"}, "bad_type", "needs a link (IMAGE)", id="text for IMAGE"),
        pytest.param("5", {"width": 99999999}, "out_of_range", "at most 16384", id="INT too large"),
        pytest.param("5", {"width": "8"}, "out_of_range", "at least 16", id="numeric text too small"),
        pytest.param("3", {"denoise": 1.5}, "out_of_range", "at least 0.0 and at most 1.0", id="FLOAT too large"),
        pytest.param("3", {"sampler_name": "eulr"}, "not_in_list", "did you mean euler", id="typo in a list"),
        pytest.param("3", {"sampler_name": 5}, "not_in_list", "choices:", id="number for a list of texts"),
        pytest.param("4", {"ckpt_name": "sd51.safetensors"}, "missing_model", "did you mean sd15", id="model"),
        pytest.param("4", {"ckpt_name": r"SDXL\base.safetensors"}, "missing_model", "SDXL/base", id="backslash"),
        pytest.param("4", {"ckpt_name": "base.safetensors"}, "missing_model", "SDXL/base", id="other folder"),
        pytest.param("4", {"ckpt_name": "flux.GGUF"}, "missing_model", "it has: SDXL/base", id="nothing near"),
        pytest.param("8", {"samples": ["99", 0]}, "bad_link", "node 99, which is not there", id="no such node"),
        pytest.param("8", {"samples": ["3", 1]}, "bad_link", "output 1 of node 3 (KSampler)", id="no such slot"),
        pytest.param("8", {"samples": ["4", 2]}, "bad_link", "needs LATENT, but output 2 of node 4", id="type"),
        pytest.param("8", {"samples": ["3"]}, "bad_link", "__value__", id="a list that is no link"),
        pytest.param("8", {"samples": [3, 0]}, "bad_link", 'a link is ["NODE", 0]', id="number as node id"),
        pytest.param("3", {"sampler_name": ["5", 0]}, "bad_link", "COMBO", id="COMBO linked to LATENT"),
    ],
)
def test_a_wrong_value_is_one_problem(node_id: str, inputs: dict[str, Any], kind: Kind, words: str) -> None:
    problems = check(changed(text_to_image(), node_id, **inputs))
    # Replacing a link can leave other nodes without a way to an output; only this input blocks.
    assert blocking(problems) == [(kind, node_id, next(iter(inputs)))]
    found = next(p for p in problems if not p.is_warning)
    assert words in f"{found.message}; {found.hint}"
    assert found.message.startswith(f"node {node_id} (")


@pytest.mark.parametrize(
    ("node_id", "inputs", "kind", "words"),
    [
        pytest.param("5", {"width": 512.5}, "bad_type", "makes 512 of 512.5", id="fraction for INT"),
        pytest.param("6", {"text": None}, "bad_type", "null", id="null for STRING"),
        pytest.param("6", {"txt": "x"}, "unknown_input", "did you mean text", id="input the server ignores"),
    ],
)
def test_what_the_server_survives_is_a_warning(node_id: str, inputs: dict[str, Any], kind: Kind, words: str) -> None:
    problems = check(changed(text_to_image(), node_id, **inputs))
    assert [(p.kind, p.is_warning) for p in problems] == [(kind, True)]
    assert words in f"{problems[0].message}; {problems[0].hint}"
    require_valid(problems)


def test_text_for_a_boolean_is_a_warning() -> None:
    graph = {"1": node("PrimitiveBoolean", value="false"), "2": node("PreviewAny", source=["1", 0])}
    assert warnings(check(graph)) == [("bad_type", "1", "value")]


def test_a_missing_input_names_the_default() -> None:
    graph = text_to_image()
    del graph["3"]["inputs"]["steps"], graph["3"]["inputs"]["model"]
    problems = check(graph)
    assert blocking(problems) == [("missing_input", "3", "model"), ("missing_input", "3", "steps")]
    assert problems[0].hint == "it takes MODEL"
    assert problems[1].hint == "set it: --set 3.steps=20"


def test_optional_and_hidden_inputs_may_be_there_or_not() -> None:
    graph = changed(text_to_image(), "9", prompt="x", extra_pnginfo={})
    assert check(graph) == ()


def test_widgets_of_the_page_are_no_unknown_inputs() -> None:
    assert check(changed(image_to_image(), "10", upload="image")) == ()


@pytest.mark.parametrize(
    ("value", "uploaded", "is_missing"),
    [
        pytest.param("example.png", (), False, id="on the server"),
        pytest.param("gone.png", (), True, id="nowhere"),
        pytest.param("gone.png", {"gone.png"}, False, id="will be uploaded"),
        pytest.param("sub/gone.png", (), False, id="a subfolder is the server's to judge"),
        pytest.param("gone.png [output]", (), False, id="an annotation is the server's to judge"),
    ],
)
def test_a_file_is_missing_when_neither_listed_nor_uploaded(value: str, uploaded: Any, is_missing: bool) -> None:
    problems = check(changed(image_to_image(), "10", image=value), uploaded=uploaded)
    assert blocking(problems) == ([("missing_file", "10", "image")] if is_missing else [])
    if is_missing:
        assert "--set 10.image=@FILE" in str(problems[0].hint)


def test_a_video_upload_is_checked_like_an_image() -> None:
    graph = {"1": node("LoadVideo", file="clip.mp4"), "2": node("PreviewAny", source=["1", 0])}
    assert blocking(check(graph)) == [("missing_file", "1", "file")]
    assert check(graph, object_info=object_info(file=["clip.mp4"])) == ()


def test_a_v3_combo_is_checked_like_a_legacy_one() -> None:
    graph = image_to_image()
    graph["2"] = node("SaveWEBM", images=["10", 0], filename_prefix="v", codec="av2", fps=24.0, crf=32.0)
    assert blocking(check(graph)) == [("not_in_list", "2", "codec")]


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        pytest.param(["COMBO", {"remote": {"route": "/x"}, "options": []}], "a.safetensors", id="remote"),
        pytest.param([[], {"remote": {"route": "/x"}}], "a.safetensors", id="legacy remote"),
        pytest.param(["COMBO", {}], "a", id="no options"),
        pytest.param([{}], "a", id="empty object"),
        pytest.param(["COMBO", {"options": [1, 2]}], 2, id="numbers"),
        pytest.param(["COMBO", {"options": ["a", "b"], "multiselect": True}], {"__value__": ["a"]}, id="multiselect"),
        pytest.param([["a"], {}], "b.latent [output]", id="annotated"),
        pytest.param(["COLOR", {}], "#ff0000", id="a type of a custom node"),
        pytest.param(["STRING", {"forceInput": True}], "a", id="forceInput"),
        pytest.param(["LIST", {}], {"__value__": [1, 2]}, id="a wrapped list"),
        pytest.param([], 5, id="a spec without a type"),
        pytest.param(None, 5, id="a spec that is null"),
    ],
)
def test_what_cannot_be_judged_is_no_problem(settings: Any, value: Any) -> None:
    info = {"Odd": {"input": {"required": {"it": settings}}, "output": [], "output_node": True}}
    assert check({"1": node("Odd", it=value)}, object_info=info) == ()


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "LATENT", False),
        ("*", "LATENT", True),
        ("IMAGE", "*", True),
        ("MASK", "IMAGE,MASK", True),
        ("IMAGE,MASK", "MASK", True),
        ("LATENT", "IMAGE, MASK", False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], "STRING", True),
        ("INT", ["a"], True),
        ("IMAGE", ["a"], False),
        ("COMFY_MATCHTYPE_V3", "IMAGE", True),
        ("IMAGE", "COMFY_MATCHTYPE_V3", True),
    ],
    ids=repr,
)
def test_types_of_a_link_must_meet(given: Any, wanted: Any, fits: bool) -> None:
    info = {
        "From": {"input": {}, "output": [given], "output_node": False},
        "To": {"input": {"required": {"it": [wanted]}}, "output": [], "output_node": True},
    }
    graph = {"1": node("From"), "2": node("To", it=["1", 0])}
    assert blocking(check(graph, object_info=info)) == ([] if fits else [("bad_link", "2", "it")])


def test_dynamic_inputs_are_left_to_the_server() -> None:
    graph = image_to_image()
    graph["11"] = node("ResizeDynamic", input=["10", 0])
    graph["11"]["inputs"] |= {"resize_type.multiplier": 2, "images.image0": ["10", 0]}
    assert check(graph) == ()


def test_an_unknown_class_is_refused_even_where_nothing_runs() -> None:
    graph = text_to_image()
    graph["20"] = node("KSamplr", seed=1)
    problems = check(graph)
    assert blocking(problems) == [("unknown_node", "20", None)]
    assert "did you mean KSampler" in str(problems[0].hint)
    assert "custom node pack" in str(problems[0].hint)


def test_near_classes_come_from_the_full_list_when_it_is_given() -> None:
    problems = check({"1": node("FaceDetailr")}, object_info={"Other": {}}, known_classes=["FaceDetailer"])
    assert [p.kind for p in problems] == ["unknown_node"]
    assert "did you mean FaceDetailer?" in str(problems[0].hint)


def test_an_empty_entry_is_an_unknown_class() -> None:
    assert blocking(check({"1": node("Gone")}, object_info={"Gone": {}})) == [("unknown_node", "1", None)]


def test_problems_of_nodes_that_feed_no_output_are_warnings() -> None:
    graph = text_to_image()
    graph["20"] = node("EmptyLatentImage", width=1, height=512, batch_size=1)
    problems = check(graph)
    assert blocking(problems) == []
    assert warnings(problems) == [("out_of_range", "20", "width")]
    assert "feeds no output" in problems[0].message


def test_a_graph_without_an_output_is_refused() -> None:
    graph = text_to_image()
    del graph["9"]
    problems = check(graph)
    assert blocking(problems) == [("no_output", "", None)]
    assert "SaveImage" in str(problems[0].hint)


def test_a_cycle_is_shown_as_a_ring() -> None:
    graph = image_to_image()
    graph["13"] = node("ImageScaleBy", image=["11", 0], upscale_method="lanczos", scale_by=0.5)
    graph["11"]["inputs"]["image"] = ["13", 0]
    problems = check(graph)
    assert [p.kind for p in problems] == ["cycle"]
    assert "11 -> 13 -> 11" in problems[0].message


def test_a_node_linked_to_itself_is_a_cycle() -> None:
    problems = check(changed(image_to_image(), "11", image=["11", 0]))
    assert blocking(problems) == [("cycle", "11", None)]


def test_a_chain_longer_than_the_stack_is_fine() -> None:
    graph = image_to_image()
    for index in range(20, 5020):
        source = str(index - 1) if index > 20 else "10"
        graph[str(index)] = node("ImageScaleBy", image=[source, 0], upscale_method="lanczos", scale_by=1.0)
    assert check(changed(graph, "12", images=["5019", 0])) == ()


def test_all_problems_are_found_at_once() -> None:
    graph = text_to_image()
    changed(graph, "3", steps=0, sampler_name="eulr")
    changed(graph, "4", ckpt_name="gone.safetensors")
    graph["20"] = node("Nope")
    assert [p.kind for p in check(graph)] == ["unknown_node", "out_of_range", "not_in_list", "missing_model"]


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        pytest.param(["unknown_node"], NotFoundError, id="class"),
        pytest.param(["missing_model", "unknown_node"], NotFoundError, id="class and model"),
        pytest.param(["missing_file", "missing_file"], InputFileError, id="files"),
        pytest.param(["missing_file", "missing_model"], WorkflowError, id="file and model"),
        pytest.param(["out_of_range"], WorkflowError, id="value"),
        pytest.param(["missing_model", "cycle"], WorkflowError, id="model and cycle"),
    ],
)
def test_the_error_says_whose_turn_it_is(kinds: list[Kind], error: type[ComfymodalError]) -> None:
    warning = Problem("unknown_input", "1", "", "A", "x", "warned", None, is_warning=True)
    problems = [warning, *(Problem(kind, "1", "", "A", None, f"first {kind}", "do this") for kind in kinds)]
    with pytest.raises(ComfymodalError) as caught:
        require_valid(problems)
    assert type(caught.value) is error
    assert caught.value.exit_code == (4 if error is NotFoundError else 3)
    more = f" (and {len(kinds) - 1} more)" if len(kinds) > 1 else ""
    assert caught.value.message == f"first {kinds[0]}{more}"
    assert caught.value.hint == "do this"
    listed = json.loads(json.dumps(caught.value.details["problems"]))
    assert [problem["is_warning"] for problem in listed] == [True] + [False] * len(kinds)


def test_warnings_alone_are_valid() -> None:
    require_valid([])
    require_valid([Problem("unknown_input", "1", "", "A", "x", "warned", None, is_warning=True)])


def test_any_graph_and_any_answer_of_a_server_can_be_checked() -> None:
    rng = random.Random(20261121)
    odd: list[Any] = [
        None,
        True,
        5,
        -1.5,
        "x",
        "",
        [],
        ["1", 0],
        ["9", 9],
        [[]],
        {},
        {"__value__": [1]},
        "a.safetensors",
        10**400,
    ]
    settings = [{}, {"min": "x", "max": None}, {"min": 0, "max": 3}, {"options": odd}, {"options": {}}, {"remote": 1}]
    types = ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "IMAGE,MASK", "*", "", "COMFY_AUTOGROW_V3", *odd]
    kinds: set[str] = set()
    for _ in range(800):
        info: dict[str, Any] = {}
        for name in "ABC":
            specs = {key: rng.choice([[rng.choice(types), rng.choice(settings)], rng.choice(odd)]) for key in "pqr"}
            entry = {"input": {"required": specs, "optional": rng.choice([None, {"s": ["INT"]}])}}
            info[name] = {**entry, "output": rng.choice([[], ["IMAGE"], [["a"], 5], None]), "output_node": name == "A"}
        info["B"] = rng.choice([info["B"], {}, {"input": rng.choice(odd)}])
        graph = {str(i): node(rng.choice("ABCD"), **{k: rng.choice(odd) for k in "pqst"}) for i in range(4)}
        problems = check_graph(graph, object_info=info)
        kinds.update(problem.kind for problem in problems)
        json.dumps([problem.to_dict() for problem in problems])
        try:
            require_valid(problems)
        except ComfymodalError as error:
            kinds.add(error.code)
    assert {"unknown_node", "missing_input", "bad_type", "out_of_range", "bad_link", "cycle", "not_found"} <= kinds
