"""Finds and reads the project file, lays env vars and flags over it, and says where each setting came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from comfymodal.errors import ProjectError
from comfymodal.project.check import check_project
from comfymodal.project.docs import describe_fields
from comfymodal.project.keys import entry_names, leaves, models
from comfymodal.project.layers import misspelt_variables, read_environment, read_flags
from comfymodal.project.problems import Mark, Problem, printable, project_error
from comfymodal.project.schema import LOCAL_ONLY, VERSION, Project
from comfymodal.project.tree import Node, parse_yaml

FILE_NAMES = ("comfymodal.yaml", "comfymodal.yml")
MAX_FILE_BYTES = 1024 * 1024
SCHEMA_ID = f"urn:comfymodal:project:{VERSION}"

_NO_FLAGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """Settings and where they came from; `path` is the project file, None when there is none."""

    settings: Project
    origins: Mapping[str, str]
    path: Path | None
    warnings: tuple[str, ...] = ()


def find_project_file(explicit: Path | None, *, cwd: Path) -> Path | None:
    """Give the project file to read: the one asked for, else the one in `cwd`, else None.

    Parent folders are not searched: which project a command works on should be seen where it is typed.
    Raises ProjectError when the one asked for is no file, or when `cwd` has both `.yaml` and `.yml`.
    """
    if explicit is not None:
        return _require_file(cwd / explicit, cwd)
    found = [cwd / name for name in FILE_NAMES if _exists(cwd / name, cwd)]
    if len(found) > 1:
        raise ProjectError(f"both {' and '.join(FILE_NAMES)} are here", hint="remove one, or choose with -c FILE")
    return found[0] if found else None


def load_project(
    path: Path | None, *, environ: Mapping[str, str], flags: Mapping[str, Any] = _NO_FLAGS, cwd: Path
) -> LoadedProject:
    """Load settings from flags, else env vars, else the file, else defaults.

    `flags` are values by dotted key (`render.output_dir`); None means not given.
    Relative paths are relative to the file's folder when the file has them, and to `cwd` otherwise.
    Raises ProjectError with every mistake in `problems`.
    """
    root = Node({"version": Node(VERSION, Mark())}, Mark()) if path is None else _read(cwd / path, cwd)
    problems: list[Problem] = []
    for found, wrong in (read_environment(environ, cwd=cwd), read_flags(flags, cwd=cwd)):
        problems += wrong
        for key, leaf in found:
            root = root.with_leaf(tuple(key.split(".")), leaf)
    base = cwd if path is None else (cwd / path).parent
    settings = check_project(root, base=base, problems=problems)
    origins = {key: _origin(root, key) for key in leaves(entry_names(settings))}
    warnings = (*misspelt_variables(environ), *_without_effect(settings, origins))
    return LoadedProject(settings, origins, path and cwd / path, warnings)


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of the project file, for editors."""
    schema = Project.model_json_schema(schema_generator=_SchemaWithoutFieldTitles)
    describe_fields(schema, models())
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": SCHEMA_ID,
        **schema,
        "title": "comfymodal project file",
    }


def _without_effect(settings: Project, origins: Mapping[str, str]) -> list[str]:
    # Folders for volumes are not warned of: a project that is used on both targets has them for good reason.
    if settings.target == "local":
        # A mount is no folder here: a model that lies in the bucket alone would be missing without a reason.
        return ["mounts count only on Modal: here ComfyUI sees none of those buckets"] if settings.mounts else []
    idle = sorted(key for key in LOCAL_ONLY if key.startswith("comfyui.") and origins[key].startswith("file "))
    return [f"{key} counts only on the local target" for key in idle]


def _require_file(path: Path, cwd: Path) -> Path:
    shown = _display(path, cwd)
    if not _exists(path, cwd):
        raise ProjectError(f"there is no project file {shown}")
    if path.is_dir():
        raise ProjectError(f"{shown} is a folder", hint=f"name the file: {FILE_NAMES[0]}")
    return path


def _exists(path: Path, cwd: Path) -> bool:
    # A folder without permission must not look like one without a project.
    try:
        return path.exists()
    except OSError as exc:
        raise ProjectError(f"cannot read {_display(path, cwd)}: {(exc.strerror or str(exc)).lower()}") from exc


class _SchemaWithoutFieldTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        # Titles made from names ("Idle Stop") hide the key's real spelling in editors.
        return False


def _origin(root: Node, key: str) -> str:
    node, mark = root, Mark()
    for name in key.split("."):
        if not isinstance(node.value, Mapping) or name not in node.value:
            return Mark().origin
        node, mark = node.value[name], node.keys.get(name, Mark())
    return mark.origin


def _read(path: Path, cwd: Path) -> Node:
    shown = _display(path, cwd)
    text = _read_text(path, shown)
    root = parse_yaml(text, lambda line, column: Mark(shown, line, column))
    if root is None:
        raise project_error([Problem(Mark(shown), "", "the file is empty", f"start with `version: {VERSION}`")])
    return root


def _read_text(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ProjectError(f"cannot read {shown}: {(exc.strerror or str(exc)).lower()}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise project_error([Problem(Mark(shown), "", "larger than 1 MiB; is this a project file?")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].split(b"\n")
        mark = Mark(shown, len(before), len(before[-1].decode("utf-8", "replace")) + 1)
        raise project_error([Problem(mark, "", "not UTF-8 text", "save the file as UTF-8")]) from exc


def _display(path: Path, cwd: Path) -> str:
    return printable(str(path.relative_to(cwd) if path.is_relative_to(cwd) else path), longest=400)
