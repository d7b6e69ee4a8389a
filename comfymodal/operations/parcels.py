"""Chosen files of this machine as one folder to sync from: links under the names that they get.

So exactly these are sent, whatever else lies beside them, and nothing of ours is written into the operator's folder,
which may be one that only can be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import BusyError, OutputFolderError
from comfymodal.operations.context import Context
from comfymodal.operations.ends import Pair
from comfymodal.storage.ends import FolderEnd, VolumeEnd
from comfymodal.storage.names import OWN_FOLDER


@dataclass(frozen=True, slots=True)
class Parcel:
    """A folder of links, and where it goes. What syncs keep of it lies in it too: it is the same one each time."""

    folder: Path
    shown: str
    target: VolumeEnd

    @property
    def pair(self) -> Pair:
        return Pair("", FolderEnd(str(self.folder)), self.target, self.shown, str(self.target))

    def remove(self) -> None:
        """Once nobody will go on with it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def packed(files: Mapping[str, Path], shown: str, target: VolumeEnd, context: Context) -> Iterator[Parcel]:
    """Link `files`, by the path each gets below `target`; `shown` is what the operator calls their folder.

    Raises `BusyError` while another command sends to the same place, and `OutputFolderError`.
    """
    from filelock import FileLock, Timeout

    volume = getattr(context.project.volumes, target.role)
    place = f"{context.project.target} {context.project.modal.environment} {volume.path or volume.name} {target}"
    folder = context.state / "parcels" / hashlib.sha256(place.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another command is sending to {target}", hint="run it again when that one has ended"
        ) from None
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    try:
        _link(files, folder)
        yield Parcel(folder, shown, target)
    finally:
        lock.release()


def _link(files: Mapping[str, Path], folder: Path) -> None:
    try:
        for old in folder.iterdir():
            if old.name == OWN_FOLDER:
                continue
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
        for path, source in files.items():
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            _link_one(source.absolute(), link)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc


def _link_one(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source)
    except OSError:
        # Windows gives symbolic links to few.
        try:
            os.link(source, link)
        except OSError:
            shutil.copy2(source, link)


def _unwritable(folder: Path, error: OSError) -> OutputFolderError:
    return OutputFolderError(f"cannot write to {folder}: {error.strerror or error}")
