"""Files of the project's volumes from the operator's side: listed, put, fetched whole and verified by the caller."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import modal
import modal.exception
from modal.types import FileEntryType

from comfymodal.errors import NotFoundError
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.ranges import read_from, read_range
from comfymodal.targets.spec import ModalSpec


class Volumes:
    """The volumes of one project by role."""

    def __init__(self, spec: ModalSpec) -> None:
        self._spec = spec
        self._handles = {
            role: modal.Volume.from_name(volume.name, environment_name=spec.environment)
            for role, volume in spec.volumes.items()
        }

    def missing(self) -> list[str]:
        """Roles of render containers whose volume does not exist yet."""
        found = []
        for role in self._spec.render_volumes:
            with translated(f"cannot look up the volume {self._spec.volumes[role].name}"):
                try:
                    self._handles[role].hydrate()
                except modal.exception.NotFoundError:
                    found.append(role)
        return found

    def create(self, role: str) -> None:
        volume = self._spec.volumes[role]
        with translated(f"cannot create the volume {volume.name}"):
            modal.Volume.objects.create(
                volume.name,
                version=2 if volume.version == 2 else 1,
                allow_existing=True,
                environment_name=self._spec.environment,
            )

    def files(self, role: str, folder: str = "") -> Iterator[tuple[str, int]]:
        """Path and size of every file, or of those below a folder, which need not be there."""
        with translated(f"cannot list the volume {self._spec.volumes[role].name}"):
            try:
                for entry in self._handles[role].iterdir(f"/{folder}", recursive=True):
                    if entry.type == FileEntryType.FILE:
                        yield entry.path.lstrip("/"), entry.size
            except (modal.exception.NotFoundError, FileNotFoundError):
                # Of the whole volume it is the volume that is not there.
                if not folder:
                    raise

    def size_of(self, role: str, path: str) -> int | None:
        """Bytes of one file; None when it is not there."""
        with translated(f"cannot look at {path} on the volume {self._spec.volumes[role].name}"):
            try:
                entries = self._handles[role].listdir(path)
            except (modal.exception.NotFoundError, FileNotFoundError):
                return None
        return entries[0].size if entries else None

    def put(self, role: str, source: Path | bytes, path: str) -> None:
        """Write one file, replacing it whole. Raises `ServiceError`."""
        with (
            translated(f"cannot write {path} to the volume {self._spec.volumes[role].name}"),
            self._handles[role].batch_upload(force=True) as batch,
        ):
            batch.put_file(io.BytesIO(source) if isinstance(source, bytes) else str(source), path)

    def read(self, role: str, path: str) -> bytes | None:
        """A small file whole; None when it is not there."""
        with translated(f"cannot read {path} from the volume {self._spec.volumes[role].name}"):
            try:
                return b"".join(self._handles[role].read_file(path))
            except FileNotFoundError:
                return None

    def read_json(self, role: str, path: str) -> Mapping[str, Any] | None:
        text = self.read(role, path)
        try:
            found = json.loads(text) if text is not None else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def read_range(self, role: str, path: str, start: int, count: int) -> bytes:
        """Some bytes of a file, fewer at its end. Raises `NotFoundError`, `ServiceError`."""
        with translated(f"cannot read {path} from the volume {self._spec.volumes[role].name}"):
            try:
                return read_range(self._handles[role], path, start, count)
            except FileNotFoundError:
                raise NotFoundError(f"{path} is gone from the volume {self._spec.volumes[role].name}") from None

    def fetch(self, role: str, path: str, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        """Append what `stream` lacks of a file, block by block; `on_bytes` hears how far it is.

        Raises `FileNotFoundError` for a file that is gone.
        """
        with translated(f"cannot read {path} from the volume {self._spec.volumes[role].name}"):
            for block in read_from(self._handles[role], path, stream.tell()):
                stream.write(block)
                on_bytes(stream.tell())
