"""A training config as it lies in its file: read with the place of every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import ProjectError, TrainingConfigError
from comfymodal.project.problems import Mark, printable
from comfymodal.project.tree import Node, parse_yaml
from comfymodal.training.config import KeyPath, Where

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """`tree` is JSON data of whatever shape the file has; `where` gives `train.yaml:8:5`."""

    path: Path
    shown: str
    tree: Any
    where: Where


def read_source(path: Path, cwd: Path) -> Source:
    """Read YAML or JSON. Raises `TrainingConfigError` for a file that cannot be read, or is no such text."""
    full = cwd / path
    return parse_source(_read_text(full, _shown(full, cwd)), full, cwd)


def parse_source(text: str, path: Path, cwd: Path) -> Source:
    """Read the text of `path`, whether it is there or not yet. Raises `TrainingConfigError`."""
    shown = _shown(path, cwd)
    if path.suffix.lower() == ".json":
        # JSON may be indented with tabs, which YAML refuses; inside its texts they cannot stand.
        text = text.replace("\t", " ")
    try:
        root = parse_yaml(text, lambda line, column: Mark(shown, line, column))
    except ProjectError as exc:
        raise _as_training_error(exc) from exc
    if root is None:
        raise TrainingConfigError(f"{shown} is empty", hint="start with `model: flux` and `dataset: ./pictures`")
    return Source(path, shown, root.plain(), lambda at: _place(root, at))


def _shown(path: Path, cwd: Path) -> str:
    return printable(str(path.relative_to(cwd) if path.is_relative_to(cwd) else path), longest=400)


def _place(root: Node, path: KeyPath) -> str:
    """Where a key stands (of an entry of a list: its value); of what is not there, the nearest above it."""
    for length in range(len(path), 0, -1):
        if (node := root.find(path[:length])) is not None:
            return root.closest(path[: length - 1]).keys.get(str(path[length - 1]), node.mark).where
    return root.mark.where


def _read_text(path: Path, shown: str) -> str:
    if path.is_dir():
        raise TrainingConfigError(f"{shown} is a folder", hint="name the training config in it, a YAML or JSON file")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise TrainingConfigError(f"there is no training config {shown}") from exc
    except OSError as exc:
        raise TrainingConfigError(f"cannot read {shown}: {(exc.strerror or str(exc)).lower()}") from exc
    if len(data) > _MAX_BYTES:
        raise TrainingConfigError(f"{shown} is larger than 1 MiB; is this a training config?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise TrainingConfigError(f"{shown} is not UTF-8 text", hint="save the file as UTF-8") from exc


def _as_training_error(error: ProjectError) -> TrainingConfigError:
    """The parser is the project file's, and words a few things so."""
    problems = [dict(_reworded(problem)) for problem in error.details.get("problems", ())]
    return TrainingConfigError(_words(error.message), hint=error.hint and _words(error.hint), problems=problems)


def _reworded(problem: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in problem.items():
        yield key, _words(value) if key in ("message", "hint") and isinstance(value, str) else value


def _words(text: str) -> str:
    return text.replace("a project file", "a training config")
