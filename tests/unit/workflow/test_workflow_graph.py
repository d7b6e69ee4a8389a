from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ComfymodalError, WorkflowError
from comfymodal.workflow.graph import is_link, read_workflow, title_of
from tests.unit.workflow.workflow_samples import text_to_image

GRAPH = text_to_image()


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(GRAPH, id="bare"),
        pytest.param({"prompt": GRAPH}, id="wrapped"),
        pytest.param({"prompt": GRAPH, "client_id": "x", "extra_data": {}}, id="body of POST /prompt"),
        pytest.param({"prompt": [1, "id", GRAPH, {}, ["9"]], "outputs": {}}, id="history entry"),
    ],
)
def test_a_graph_is_read_bare_or_wrapped(document: object, tmp_path: Path) -> None:
    path = write(tmp_path / "w.json", json.dumps(document))
    assert read_workflow(path).graph == GRAPH


def test_a_node_with_the_id_prompt_is_no_wrapper(tmp_path: Path) -> None:
    graph = {"prompt": {"class_type": "SaveImage", "inputs": {}}}
    assert read_workflow(write(tmp_path / "w.json", json.dumps(graph))).graph == graph


def test_the_workflow_is_identified_by_the_bytes_of_its_file(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(GRAPH).encode()
    workflow = read_workflow(write(tmp_path / "w.json", data))
    assert workflow.graph == GRAPH
    assert workflow.sha256 == hashlib.sha256(data).hexdigest()
    assert workflow.size_bytes == len(data)
    assert workflow.path == tmp_path / "w.json"


NODE = '{"class_type": "A", "inputs": {}}'


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        pytest.param("", "is empty", "Export (API)", id="empty"),
        pytest.param(b"\xef\xbb\xbf \n", "is empty", "Export (API)", id="only a BOM"),
        pytest.param('{"6": "\xff"}'.encode("latin-1"), "not UTF-8 text (byte 7)", "UTF-8", id="latin-1"),
        pytest.param("{}".encode("utf-16"), "not UTF-8", "UTF-8", id="utf-16"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0", "image", "not read yet", id="PNG"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8 ", "image", "not read yet", id="WebP"),
        pytest.param('{\n  "6": {,}\n}', ":2:9: broken JSON", "missing comma", id="broken JSON"),
        pytest.param("[1, 2]", "holds a list", "class_type", id="a list"),
        pytest.param('"x"', "holds a text", "class_type", id="a text"),
        pytest.param("null", "holds null", "class_type", id="null"),
        pytest.param("{}", "has no nodes", "Export (API)", id="no nodes"),
        pytest.param('{"prompt": {}}', "has no nodes", "Export (API)", id="no nodes in the wrapper"),
        pytest.param('{"nodes": [], "links": []}', "UI format", "Save (API format)", id="UI format"),
        pytest.param('{"prompt": {"nodes": [], "links": []}}', "UI format", "dev mode", id="UI format, wrapped"),
        pytest.param('{"6": 1}', 'node "6" is a number', "class_type", id="a node that is a number"),
        pytest.param('{"6": true}', 'node "6" is true', "class_type", id="a node that is true"),
        pytest.param('{"6": {"inputs": {}}}', 'node "6" has no class_type', "Export (API)", id="no class_type"),
        pytest.param('{"6": {"class_type": 1, "inputs": {}}}', 'node "6" has no class', "class", id="class is 1"),
        pytest.param('{"6": {"class_type": "A"}}', 'node "6" (A) has no inputs', "inputs", id="no inputs"),
        pytest.param('{"6": {"class_type": "A", "inputs": []}}', 'node "6" (A) has no inputs', "inputs", id="list"),
        pytest.param(f'{{"6": {NODE}, "6": {NODE}}}', 'key "6" appears twice', "export", id="a node id twice"),
        pytest.param('{"6": {"a": NaN}}', "NaN", "export", id="NaN"),
        pytest.param('{"6": {"a": -Infinity}}', "Infinity", "export", id="Infinity"),
        pytest.param('{"6": {"a": 1e999}}', "1e999", "export", id="a float too large"),
        pytest.param('{"6": {"a": ' + "9" * 5000 + "}}", "5000 digits", "export", id="an integer too large"),
        pytest.param('{"a":' * 200 + "1" + "}" * 200, "nested deeper", "export", id="200 levels"),
        pytest.param("[" * 200_000, "nested deeper", "export", id="200000 levels"),
        pytest.param(r'{"\ud800": 1}', "surrogate", "export", id="half a surrogate pair"),
    ],
)
def test_what_is_no_api_workflow_is_refused(content: bytes | str, message: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "w.json", content)
    with pytest.raises(WorkflowError) as caught:
        read_workflow(path)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert hint in f"{caught.value.message} {caught.value.hint}"


def test_a_whole_surrogate_pair_is_an_emoji(tmp_path: Path) -> None:
    path = write(tmp_path / "w.json", r'{"6": {"class_type": "A", "inputs": {"text": "\ud83d\ude00"}}}')
    assert read_workflow(path).graph["6"]["inputs"]["text"] == "\N{GRINNING FACE}"


def test_a_missing_file_names_near_ones_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "portrait.json", "{}")
    with pytest.raises(WorkflowError) as caught:
        read_workflow(tmp_path / "portait.json")
    assert "there is no workflow file" in caught.value.message
    assert caught.value.hint == f"did you mean {tmp_path / 'portrait.json'}?"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError) as caught:
        read_workflow(tmp_path / "gone" / "w.json")
    assert caught.value.hint == f"there is no folder {tmp_path / 'gone'}"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="is a directory"):
        read_workflow(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "w.json", "{}")
    path.chmod(0)
    with pytest.raises(WorkflowError, match="cannot be read: Permission denied"):
        read_workflow(path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux: a file that opens but cannot be read")
def test_a_file_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(WorkflowError, match="cannot be read"):
        read_workflow(Path("/proc/self/mem"))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(WorkflowError, match="larger than 64 MiB"):
        read_workflow(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("meta", "title"),
    [
        pytest.param({"_meta": {"title": "Prompt"}}, "Prompt", id="title"),
        pytest.param({"_meta": {"title": ""}}, "CLIPTextEncode", id="empty title"),
        pytest.param({"_meta": {"title": 5}}, "CLIPTextEncode", id="number as title"),
        pytest.param({"_meta": "x"}, "CLIPTextEncode", id="_meta is no object"),
        pytest.param({}, "CLIPTextEncode", id="no _meta"),
    ],
)
def test_a_node_without_a_title_goes_by_its_class(meta: dict[str, Any], title: str) -> None:
    assert title_of({"6": {"class_type": "CLIPTextEncode", "inputs": {}, **meta}}, "6") == title


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["4", 0], True),
        (["57:8", 12], True),
        ([4, 0], False),
        (["4", -1], False),
        (["4", True], False),
        (["4", 0.0], False),
        (["4"], False),
        (["4", 0, 0], False),
        ("4,0", False),
        ({"__value__": ["4", 0]}, False),
        (None, False),
    ],
    ids=repr,
)
def test_a_link_is_a_node_id_and_a_slot(value: object, expected: bool) -> None:
    assert is_link(value) is expected


def any_json(rng: random.Random, depth: int = 0) -> Any:
    keys = ["6", "nodes", "links", "prompt", "class_type", "inputs", "_meta", "title", "", "\0", "é"]
    kind = rng.randrange(9 if depth < 5 else 6)
    if kind < 6:
        return rng.choice([None, True, 0, -1, 2**70, 1.5, "", "KSampler", "\ud800", "x" * 300, float("nan")])
    if kind == 6:
        return [any_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(keys): any_json(rng, depth + 1) for _ in range(rng.randrange(5))}


def test_any_json_file_is_read_or_refused_in_our_words(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    errors: list[ComfymodalError] = []
    for _ in range(600):
        text = json.dumps(any_json(rng))
        if rng.random() < 0.3:
            text = text[: rng.randrange(len(text) + 1)]
        try:
            read_workflow(write(tmp_path / "w.json", text))
        except ComfymodalError as error:
            errors.append(error)
    assert len(errors) > 300
    assert all(error.message and error.hint for error in errors)


def test_any_bytes_are_refused_in_our_words(tmp_path: Path) -> None:
    rng = random.Random(7)
    for _ in range(200):
        path = write(tmp_path / "w.json", rng.randbytes(rng.randrange(40)))
        with pytest.raises(WorkflowError):
            read_workflow(path)
