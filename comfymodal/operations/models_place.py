"""The volume that commands about models look at: listed and read without starting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.server import LEGACY_MODEL_FOLDERS, MODEL_FOLDERS
from comfymodal.errors import NotFoundError, TransferError, UsageError
from comfymodal.operations.context import Context
from comfymodal.storage.library import Folders, Library, Model, find_models, read_library
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences

FOLDERS = Folders(MODEL_FOLDERS, {old: new for new, olds in LEGACY_MODEL_FOLDERS.items() for old in olds})
"""ComfyUI's model folders, as of its `folder_paths.py` of November 2026."""


@dataclass(frozen=True, slots=True)
class VolumePlace:
    """One volume of the project: Modal's, or the folder that stands for it here."""

    context: Context
    role: str = "models"

    @property
    def words(self) -> str:
        if self.is_on_modal:
            return f"volume {self.context.modal_spec().volumes[self.role].name}"
        return f"folder {self.folder}"

    @property
    def is_on_modal(self) -> bool:
        return self.context.project.target == "modal"

    @property
    def folder(self) -> Path:
        return self.context.local.volumes[self.role]

    def files(self) -> Iterator[tuple[str, int]]:
        """Path and size of every file, ours too. Raises `NotFoundError` or `ServiceError` for a volume of Modal's."""
        if not self.is_on_modal:
            yield from _walk(self.folder)
            return
        from comfymodal.targets.modal.session import connect
        from comfymodal.targets.modal.volumes import Volumes

        spec = self.context.modal_spec()
        connect(spec.workspace)
        yield from Volumes(spec).files(self.role)

    def size_of(self, path: str) -> int | None:
        """Bytes of one file; None when there is none. Raises `ServiceError` and the like for a volume of Modal's."""
        if not self.is_on_modal:
            file = self.folder / path
            return file.stat().st_size if file.is_file() else None
        from comfymodal.targets.modal.session import connect
        from comfymodal.targets.modal.volumes import Volumes

        spec = self.context.modal_spec()
        connect(spec.workspace)
        return Volumes(spec).size_of(self.role, path)

    def library(self) -> Library:
        return read_library(self.files(), FOLDERS)

    def read(self, path: str, start: int, count: int) -> bytes:
        """These bytes of a file. Raises `TransferError`, `NotFoundError` or `ServiceError`."""
        if self.is_on_modal:
            from comfymodal.targets.modal.volumes import Volumes

            return Volumes(self.context.modal_spec()).read_range(self.role, path, start, count)
        try:
            with (self.folder / path).open("rb") as stream:
                stream.seek(start)
                return stream.read(count)
        except OSError as exc:
            raise TransferError(f"cannot read {self.folder / path}: {exc.strerror or exc}") from exc


def require_model(library: Library, name: str) -> Model:
    """The one model of this path or name. Raises `NotFoundError` with near names, `UsageError` for several."""
    found = find_models(library.models, name.strip("/"))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{name} is the name of {len(found)} models", hint=f"which? {listed(model.path for model in found)}"
        )
    paths = [model.path for model in library.models]
    near = near_names(name, paths) or near_names(name, [path.rpartition("/")[2] for path in paths])
    raise NotFoundError(
        f"there is no model {name}", hint=sentences(did_you_mean(near), "all: comfymodal models list"), near=near
    )


def size_words(size: int) -> str:
    """For questions: `12.4 GB`."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    # Followed links may lead back to where they came from.
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        place = Path(folder)
        names[:] = [name for name in sorted(names) if (found := _identity(place / name)) is None or found not in seen]
        seen.update(found for name in names if (found := _identity(place / name)) is not None)
        for name in files:
            try:
                size = (place / name).stat().st_size
            except OSError:
                # Removed a moment ago, or a link that leads nowhere.
                continue
            yield (place / name).relative_to(root).as_posix(), size


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
