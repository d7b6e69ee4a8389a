"""What lies in a models volume, by the folders that ComfyUI knows. Values and pure functions only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfymodal.storage.filters import Filter
from comfymodal.storage.names import OWN_FOLDER

PARTIAL_SUFFIX = ".partial"

SIDECAR_SUFFIX = ".comfymodal.json"
"""Beside a model that was trained here, in place of its extension: where it comes from. No model itself."""

WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl", ".engine")
"""Extensions of files that hold weights."""

_EMBEDDING = re.compile(r"embedding:([^\s,()<>:]+)")
_PLACEHOLDER = re.compile(r"put_.*_here")


@dataclass(frozen=True, slots=True)
class Folders:
    """ComfyUI's model folders: `names` as it calls them today, `older` their older names -> the name of today."""

    names: tuple[str, ...]
    older: Mapping[str, str]

    def today(self, folder: str) -> str:
        return self.older.get(folder, folder)

    def is_known(self, folder: str) -> bool:
        return folder in self.names or folder in self.older


@dataclass(frozen=True, slots=True)
class Model:
    """One file. `folder` is ComfyUI's (today's name; empty at the volume's root, where ComfyUI does not look)."""

    path: str
    """Relative to the volume."""
    folder: str
    name: str
    """As ComfyUI's loaders list it: below the folder."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Library:
    """`models` by path; the rest is what else takes room on the volume."""

    models: tuple[Model, ...]
    unfinished_bytes: int
    trash_bytes: int
    notes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the notes beside models, by path."""

    def notes_of(self, models: Collection[Model]) -> dict[Model, str]:
        """The note that goes where its model goes; it stays while another model of that name does."""
        staying = {note_path(model.path) for model in self.models if model not in models}
        found: dict[Model, str] = {}
        for model in models:
            note = note_path(model.path)
            if note in self.notes and note not in staying and note not in found.values():
                found[model] = note
        return found


def note_path(path: str) -> str:
    """Where the note of a model is: `loras/anna.safetensors` -> `loras/anna.comfymodal.json`."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{folder}{slash}{stem}{SIDECAR_SUFFIX}"


def read_library(files: Iterable[tuple[str, int]], folders: Folders) -> Library:
    """From path and size of every file of the volume, ours and half-written ones too."""
    keep = Filter()
    models, unfinished, trashed, notes = [], 0, 0, {}
    for path, size in sorted(files):
        if path.startswith(f"{OWN_FOLDER}/"):
            trashed += size if path.startswith(f"{OWN_FOLDER}/trash/") else 0
        elif path.endswith(PARTIAL_SUFFIX):
            unfinished += size
        elif path.endswith(SIDECAR_SUFFIX):
            notes[path] = size
        elif keep.accepts(path) and not _is_clutter(path, size):
            models.append(model_at(path, size, folders))
    return Library(tuple(models), unfinished, trashed, notes)


def model_at(path: str, size_bytes: int, folders: Folders) -> Model:
    folder, slash, name = path.partition("/")
    return Model(path, folders.today(folder) if slash else "", name if slash else path, size_bytes)


def in_folder(models: Iterable[Model], folder: str, folders: Folders) -> tuple[Model, ...]:
    """Those in a folder, by its name of today or an older one, or in a folder below one: `loras/people`."""
    top, _, below = folder.strip("/").partition("/")
    wanted = folders.today(top)
    return tuple(m for m in models if m.folder == wanted and (not below or m.name.startswith(f"{below}/")))


def find_models(models: Iterable[Model], wanted: str) -> tuple[Model, ...]:
    """The model of this path; else all that ComfyUI or their file name calls so."""
    found = tuple(models)
    exact = tuple(m for m in found if m.path == wanted)
    named = exact or tuple(m for m in found if m.name == wanted)
    return named or tuple(m for m in found if m.path.rpartition("/")[2] == wanted)


def split_folder(path: str, folders: Folders) -> tuple[str, str] | None:
    """Folder and the rest of a path somebody else chose: `split_files/vae/ae.safetensors` -> `vae`, `ae.safetensors`.

    The last part that names one of ComfyUI's folders counts; None when there is none.
    """
    parts = path.strip("/").split("/")
    for number in range(len(parts) - 2, -1, -1):
        if folders.is_known(parts[number]):
            return folders.today(parts[number]), "/".join(parts[number + 1 :])
    return None


@dataclass(frozen=True, slots=True)
class Named:
    """Every text that workflows hold, in which a model's name may be."""

    texts: frozenset[str]
    embeddings: frozenset[str]

    def names(self, model: Model) -> bool:
        """Whether a workflow may have meant this model; rather too often than once too seldom."""
        if model.name in self.texts or model.path in self.texts:
            return True
        if model.folder == "diffusers":
            return any(folder in self.texts for folder in _parents(model.name))
        stem = model.name.rpartition(".")[0]
        return model.folder == "embeddings" and not {model.name, stem}.isdisjoint(self.embeddings)


def named_in(graphs: Iterable[Mapping[str, Any]]) -> Named:
    texts = {text.replace("\\", "/") for graph in graphs for text in _texts(list(graph.values()))}
    return Named(frozenset(texts), frozenset(name for text in texts for name in _EMBEDDING.findall(text)))


def _texts(values: Sequence[Any]) -> Iterator[str]:
    pending = list(values)
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, Sequence):
            pending.extend(value)


def _parents(name: str) -> Iterator[str]:
    folder = name.rpartition("/")[0]
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _is_clutter(path: str, size: int) -> bool:
    name = path.rpartition("/")[2]
    return any(part.startswith(".") for part in path.split("/")) or (size == 0 and bool(_PLACEHOLDER.fullmatch(name)))
