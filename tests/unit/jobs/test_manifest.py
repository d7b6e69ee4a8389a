from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfymodal.jobs.contract import MANIFEST_FILE
from comfymodal.jobs.manifest import Manifest, read_results

PROMPTS = [{"prompt_id": "a"}, {"prompt_id": "b"}, {"prompt_id": "c"}]


def result(index: int, status: str = "succeeded", prompt_id: str | None = None) -> dict[str, Any]:
    return {"index": index, "prompt_id": prompt_id or "abc"[index], "status": status, "outputs": []}


def taken_up(folder: Path) -> list[int]:
    return sorted(Manifest.open(folder, PROMPTS).results)


def test_a_new_manifest_is_empty_and_leaves_a_file(tmp_path: Path) -> None:
    manifest = Manifest.open(tmp_path / "run", PROMPTS)
    assert (manifest.was_begun, manifest.prompts, manifest.is_complete) == (False, [], False)
    assert (tmp_path / "run" / MANIFEST_FILE).read_bytes() == b""
    assert (tmp_path / "run" / "outputs").is_dir()
    assert Manifest.open(tmp_path / "run", PROMPTS).was_begun


def test_a_manifest_of_no_prompts_is_complete(tmp_path: Path) -> None:
    assert Manifest.open(tmp_path, []).is_complete


@pytest.mark.parametrize(
    ("status", "is_taken_up"),
    [("succeeded", True), ("failed", True), ("refused", True), ("cancelled", False), ("lost", False)],
)
def test_only_lasting_results_are_taken_up(status: str, is_taken_up: bool, tmp_path: Path) -> None:
    Manifest.open(tmp_path, PROMPTS).add(result(1, status))
    assert taken_up(tmp_path) == ([1] if is_taken_up else [])
    # A reader sees every result all the same.
    assert read_results(tmp_path / MANIFEST_FILE)[1]["status"] == status


def test_a_later_line_replaces_an_earlier_one(tmp_path: Path) -> None:
    manifest = Manifest.open(tmp_path, PROMPTS)
    manifest.add(result(0, "lost"))
    manifest.add(result(0, "succeeded"))
    assert read_results(tmp_path / MANIFEST_FILE)[0]["status"] == "succeeded"
    assert taken_up(tmp_path) == [0]


def test_results_of_other_prompts_are_not_taken_up(tmp_path: Path) -> None:
    manifest = Manifest.open(tmp_path, PROMPTS)
    manifest.add(result(0, prompt_id="other"))
    manifest.add(result(1))
    assert [p["prompt_id"] for p in Manifest.open(tmp_path, PROMPTS[:1]).prompts] == []
    assert taken_up(tmp_path) == [1]


def test_a_torn_last_line_is_ignored_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    Manifest.open(tmp_path, PROMPTS).add(result(0))
    with (tmp_path / MANIFEST_FILE).open("ab") as stream:
        stream.write(b'{"index": 1, "prompt_id": "b", "sta')
    again = Manifest.open(tmp_path, PROMPTS)
    assert sorted(again.results) == [0]
    again.add(result(1))
    again.add(result(2))
    assert taken_up(tmp_path) == [0, 1, 2]


def test_results_are_listed_by_prompt_not_by_time(tmp_path: Path) -> None:
    manifest = Manifest.open(tmp_path, PROMPTS)
    for index in (2, 0, 1):
        manifest.add(result(index))
    assert [prompt["index"] for prompt in manifest.prompts] == [0, 1, 2]
    assert manifest.is_complete


def test_a_manifest_where_none_can_be_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="run"):
        Manifest.open(tmp_path / "run", PROMPTS)
