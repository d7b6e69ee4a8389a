"""A run's manifest: what each prompt came to. The one file that says how far a run got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.files import append_json_line, parse_json_lines, read_json_lines
from comfymodal.jobs.contract import MANIFEST_FILE

OUTPUTS_FOLDER = "outputs"

LASTING = ("succeeded", "failed", "refused")
"""Endings that a second attempt would only repeat; a lost or cancelled prompt is rendered anew."""


@dataclass(slots=True)
class Manifest:
    """Results by prompt index, appended to disk after each prompt; a later line replaces an earlier one.

    A result is `{index, prompt_id, status: succeeded|failed|cancelled|refused|lost, is_cached, outputs, texts,
    error, queued_at, started_at, ended_at, seconds}`; an output is `{node_id, title, class_type, kind, file, name,
    size_bytes, sha256, is_temporary}` with `file` relative to the run's folder; a text is `{node_id, title, text}`.
    """

    folder: Path
    expected: int
    was_begun: bool
    results: dict[int, dict[str, Any]]

    @classmethod
    def open(cls, folder: Path, prompts: Sequence[Mapping[str, Any]]) -> Manifest:
        """Take up an earlier attempt's manifest, or begin one. Raises `OSError` when the folder cannot be written."""
        path = folder / MANIFEST_FILE
        was_begun = path.exists()
        results = {
            index: result
            for index, result in read_results(path).items()
            if index < len(prompts)
            and prompts[index]["prompt_id"] == result["prompt_id"]
            and result["status"] in LASTING
        }
        (folder / OUTPUTS_FOLDER).mkdir(parents=True, exist_ok=True)
        path.touch()
        return cls(folder, len(prompts), was_begun, results)

    @property
    def prompts(self) -> list[dict[str, Any]]:
        return [self.results[index] for index in sorted(self.results)]

    @property
    def is_complete(self) -> bool:
        return len(self.results) == self.expected

    def add(self, result: dict[str, Any]) -> None:
        append_json_line(self.folder / MANIFEST_FILE, result)
        self.results[result["index"]] = result


def read_results(path: Path) -> dict[int, dict[str, Any]]:
    """Results by prompt index, also of a run that was killed; empty without a manifest."""
    return _by_index(read_json_lines(path))


def parse_results(text: bytes) -> dict[int, dict[str, Any]]:
    """The same of a manifest that was read from elsewhere."""
    return _by_index(parse_json_lines(text))


def _by_index(lines: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {int(line["index"]): line for line in lines if "index" in line}
