"""The frozen values of `models` and `trash`. Field names are keys of `--json`: adding one is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelView:
    """One file. `path` is on the volume, `name` as ComfyUI's loaders list it; an empty `folder`: ComfyUI sees none."""

    path: str
    folder: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelsListed:
    place: str
    models: tuple[ModelView, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelsTree:
    place: str
    models: tuple[ModelView, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FolderUse:
    """`is_known`: one that ComfyUI has by itself; others belong to custom nodes."""

    folder: str
    files: int
    size_bytes: int
    is_known: bool


@dataclass(frozen=True, slots=True)
class DiskUse:
    """`unfinished_bytes` are of half-written files, `trash_bytes` of what can be restored."""

    place: str
    folders: tuple[FolderUse, ...]
    files: int
    size_bytes: int
    unfinished_bytes: int
    trash_bytes: int


@dataclass(frozen=True, slots=True)
class ModelsUnused:
    """Models that no render of this machine's ledgers names; they reach back to `since`, None without any render."""

    place: str
    models: tuple[ModelView, ...]
    size_bytes: int
    since: str | None
    renders: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model file says of itself; None and empty where it does not. `sha256` is a claim, nothing was read."""

    path: str
    place: str
    size_bytes: int
    format: str
    is_lora: bool | None
    title: str | None
    base_model: str | None
    rank: int | None
    alpha: float | None
    trigger_words: tuple[str, ...]
    steps: int | None
    resolution: str | None
    sha256: str | None
    tensors: int | None
    parameters: int | None
    dtypes: Mapping[str, int]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelAddPlanned:
    source: str
    path: str
    place: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Tidied:
    """What was done to files; `result` of a path is trashed, moved, restored, deleted, failed, or `would` be so."""

    action: str
    place: str
    is_dry_run: bool
    files: int
    size_bytes: int
    paths: tuple[Mapping[str, Any], ...]
    error: Mapping[str, Any] | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class TrashRow:
    """`stamp` names what went at once; `trashed_at` is ISO 8601 in UTC, None where the stamp is not ours."""

    place: str
    stamp: str
    path: str
    size_bytes: int
    trashed_at: str | None


@dataclass(frozen=True, slots=True)
class TrashListed:
    place: str
    files: tuple[TrashRow, ...]
    size_bytes: int
