"""What `config` answers: each setting with its origin, whether a project file is valid, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from comfymodal.project.load import LoadedProject


ReadAt = Literal["deploy", "run", ""]


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One setting; `value` is JSON, with durations as `15m`.

    `read_at` tells when a change of it takes effect: with the next `deploy`, with the next run (or any other command),
    or, empty, never on this target.
    """

    key: str
    value: Any
    origin: str
    read_at: ReadAt


@dataclass(frozen=True, slots=True)
class ConfigShown:
    path: str | None
    rows: tuple[ConfigRow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigValidated:
    path: str
    project: str
    warnings: tuple[str, ...]


def show_config(loaded: LoadedProject) -> ConfigShown:
    """List every setting in the order of the schema."""
    tree = loaded.settings.model_dump(mode="json", by_alias=True)
    rows = tuple(
        ConfigRow(key, _value(tree, key), origin, _read_at(key, loaded.settings.target))
        for key, origin in loaded.origins.items()
    )
    return ConfigShown(str(loaded.path) if loaded.path else None, rows, loaded.warnings)


def validate_config(explicit: Path | None, *, environ: Mapping[str, str], cwd: Path) -> ConfigValidated:
    """Check the project file by itself, then with the env vars over it.

    Raises ProjectError with every mistake, and NotFoundError when there is no file to check.
    """
    from comfymodal.errors import NotFoundError
    from comfymodal.project.load import FILE_NAMES, find_project_file, load_project

    path = find_project_file(explicit, cwd=cwd)
    if path is None:
        raise NotFoundError(f"there is no {FILE_NAMES[0]} in {cwd}", hint="name the file with -c FILE")
    # First alone: an env var would hide a mistake in the value it replaces.
    load_project(path, environ={}, cwd=cwd)
    loaded = load_project(path, environ=environ, cwd=cwd)
    return ConfigValidated(str(path), loaded.settings.project, loaded.warnings)


def config_schema() -> dict[str, Any]:
    """Give the JSON Schema of the project file, for editors."""
    from comfymodal.project.load import json_schema

    return json_schema()


def _read_at(key: str, target: str) -> ReadAt:
    from comfymodal.project.keys import without_names
    from comfymodal.project.schema import DEPLOYED, LOCAL_ONLY, MODAL_ONLY

    key = without_names(tuple(key.split(".")))
    if key in (MODAL_ONLY if target == "local" else LOCAL_ONLY):
        return ""
    return "deploy" if target == "modal" and key in DEPLOYED else "run"


def _value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree[name]
    return tree
