from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from comfymodal.files import append_json_line, read_json, read_json_lines, write_json, write_text

HALF = {"text": "half \ud83d of it", "name": "\udcff", "whole": "😀 ü"}


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "ü": "猫"}
    write_json(tmp_path / "x.json", value, indent=1)
    assert read_json(tmp_path / "x.json") == value
    assert "猫" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b'{"a": 1}}'],
    ids=["empty", "torn", "list", "null", "text", "number", "bytes", "too much"],
)
def test_what_is_no_json_object_reads_as_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(data)
    assert read_json(tmp_path / "x.json") is None


def test_a_missing_file_and_a_folder_read_as_nothing(tmp_path: Path) -> None:
    assert (read_json(tmp_path / "none"), read_json(tmp_path)) == (None, None)
    assert (read_json_lines(tmp_path / "none"), read_json_lines(tmp_path)) == ([], [])


def test_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", HALF)
    append_json_line(tmp_path / "x.jsonl", HALF)
    assert read_json(tmp_path / "x.json") == HALF
    assert read_json_lines(tmp_path / "x.jsonl") == [HALF]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_text(target, "old")
    with pytest.raises(TypeError):
        write_json(target, {"a": object()})
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "new")
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "gone" / "x", "new")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x.json"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(b"", [{"b": 2}], id="empty"),
        pytest.param(b'{"a": 1}\n', [{"a": 1}, {"b": 2}], id="whole"),
        pytest.param(b'{"a": 1}\n{"torn": ', [{"a": 1}, {"b": 2}], id="torn"),
        pytest.param(b'{"a": 1}', [{"a": 1}, {"b": 2}], id="whole but for its end"),
        pytest.param(b'\n\n5\n[1]\n"x"\n\xff\n{"a": 1}\n', [{"a": 1}, {"b": 2}], id="odd lines"),
    ],
)
def test_an_appended_line_is_read_whatever_came_before(before: bytes, expected: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(before)
    append_json_line(path, {"b": 2})
    assert read_json_lines(path) == expected


def _append_many(path: Path, who: int) -> None:
    for number in range(200):
        append_json_line(path, {"who": who, "number": number, "fill": "x" * 200})


def test_lines_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_append_many, args=(path, who)) for who in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    found = read_json_lines(path)
    assert len(found) == 400
    for who in range(2):
        assert [line["number"] for line in found if line["who"] == who] == list(range(200))
    assert all(json.dumps(line) for line in found)
