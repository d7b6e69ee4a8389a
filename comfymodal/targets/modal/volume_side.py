"""A Modal volume that is not mounted here, as one side of a sync: listed, copied and cleared through Modal's API.

Modal tells times of whole seconds and no hashes. So a file that is rewritten within the second of its last writing,
and keeps its size, is taken for the one before. What this machine sent is known by its sha256, too (`volume_sent`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import modal
import modal.exception as me
from modal.types import FileEntryType

from comfymodal.errors import CancelledError, ComfymodalError, ConflictError, NotFoundError, ServiceError, TransferError
from comfymodal.storage.actions import Action
from comfymodal.storage.base import matches
from comfymodal.storage.ends import ApiEnd
from comfymodal.storage.names import OWN_FOLDER
from comfymodal.storage.side import Mover, Refusals
from comfymodal.storage.trash import TRASH, trash_name
from comfymodal.storage.values import FileState, Listing
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.session import connect
from comfymodal.targets.modal.volume_sent import SENT_FILE, SentFiles, parse_sent

if TYPE_CHECKING:
    from modal.types import FileEntry

    from comfymodal.storage.rclone.process import Control

PARTIAL_SUFFIX = ".partial"
FOLDER_MARK = ".folder"
"""A folder of a volume can only be made by putting a file into it; this one is removed again."""

FEW = 20
"""Up to so many folders are listed one by one; above, all is listed once."""

_CONTROL_EVERY = 500


def open_side(end: ApiEnd) -> tuple[VolumeSide, Mover]:
    """The volume as a side, and what copies between it and a folder.

    Raises `NotReadyError` (no token), `ServiceError` (Modal does not answer), `NotFoundError` (no such volume).
    """
    from comfymodal.targets.modal.volume_mover import VolumeMover

    connect(None)
    with translated(f"cannot open the volume {end.name}"):
        handle = modal.Volume.from_name(end.name, environment_name=end.environment)
        try:
            handle.hydrate()
        except me.NotFoundError:
            raise NotFoundError(f"there is no Modal volume {end.name}", hint="comfymodal setup creates it") from None
        version = _version(end)
    return VolumeSide(handle, end.name, end.path, version), VolumeMover()


class VolumeSide:
    """Fulfils `storage.side.Side`. `path` is the pair's folder in the volume, empty for all of it; `version` 1 or 2."""

    def __init__(self, handle: modal.Volume, name: str, path: str, version: int) -> None:
        self.handle, self.name, self.path, self.version = handle, name, path.strip("/"), version
        self.sent = SentFiles()

    def __str__(self) -> str:
        return f"{self.name}:/{self.path}"

    @property
    def identity(self) -> str:
        # The id: a volume that was deleted and made anew under the same name has no common past with a folder.
        return f"modal://{self.name}/{self.path}#{self.handle.object_id}"

    def full(self, path: str) -> str:
        """A path of the pair from the volume's root, without a slash before it."""
        return f"{self.path}/{path}" if self.path else path

    def list_files(self, control: Control) -> Listing:
        self.sent = self.read_sent()
        found: dict[str, FileState] = {}
        with translated(f"cannot list {self}"):
            try:
                for number, entry in enumerate(self._walk(self.path)):
                    if number % _CONTROL_EVERY == 0 and control() is not None:
                        raise CancelledError("stopped before anything was copied", hint="run it again")
                    self._take(entry, found)
            except (me.NotFoundError, FileNotFoundError, NotADirectoryError):
                raise NotFoundError(
                    f"there is no folder {self.path} on the volume {self.name}", hint=f"modal volume ls {self.name}"
                ) from None
        return found

    def find_files(self, paths: Sequence[str]) -> Listing:
        wanted = set(paths)
        folders = {self.full(path).rpartition("/")[0] for path in wanted}
        found: dict[str, FileState] = {}
        with translated(f"cannot list {self}"):
            for folder in folders if len(folders) <= FEW else [self.path]:
                for entry in self._entries(folder, is_deep=len(folders) > FEW):
                    self._take(entry, found)
        return {path: state for path, state in found.items() if path in wanted}

    def hash_file(self, path: str, names: Sequence[str]) -> Mapping[str, str]:
        """Nothing: reading a file that lies elsewhere is a download."""
        return {}

    def keep_replaced(self, actions: Sequence[Action], stamp: str) -> Refusals:
        """A copy on the volume: the file keeps its name until the new one has it."""
        fit, refusals = self._fit(actions)
        return {**refusals, **self._copy_to_trash([action.path for action in fit], stamp)}

    def put_away(self, actions: Sequence[Action], stamp: str) -> Refusals:
        fit, refusals = self._fit(actions)
        refusals |= self._copy_to_trash([action.path for action in fit], stamp)
        safe = [action.path for action in fit if action.path not in refusals]
        return {**refusals, **_each(safe, self.remove)}

    def set_aside(self, actions: Sequence[Action]) -> Refusals:
        fit, refusals = self._fit(actions)
        new_names = {action.path: action.keep_as or action.path for action in fit}
        taken = self.find_files(list(new_names.values()))
        for path, name in new_names.items():
            if name in taken:
                refusals[path] = ConflictError(f"{name!r} appeared while the sync ran", hint="run the sync again")

        def rename(path: str) -> None:
            self._copy(self.full(path), self.full(new_names[path]))
            self.remove(path)

        return {**refusals, **_each([path for path in new_names if path not in refusals], rename)}

    def withdraw(self, path: str, stamp: str) -> None:
        for error in self._copy_to_trash([path], stamp).values():
            raise error
        self.remove(path)

    def put_back(self, paths: Sequence[str], stamp: str) -> None:
        """Nothing: they never lost their names."""

    def commit(self) -> None:
        """Every call of the API is durable when it returns."""

    def remove(self, path: str) -> None:
        """Delete one file; one that is gone already is gone. Raises `ServiceError` and the like."""
        with translated(f"cannot remove {path!r} from {self}"), contextlib.suppress(FileNotFoundError):
            self.handle.remove_file(self.full(path))

    def read_sent(self) -> SentFiles:
        """The note of what was sent last; empty when there is none. Raises `ServiceError` and the like."""
        with translated(f"cannot read from {self}"), contextlib.suppress(FileNotFoundError):
            if (written := self.sent_at()) is not None:
                return parse_sent(b"".join(self.handle.read_file(SENT_FILE)), written)
        return SentFiles()

    def sent_at(self) -> int | None:
        """The volume's time of the note; None when there is none. Raises `ServiceError` and the like."""
        with translated(f"cannot list {self}"):
            found = self._entries(OWN_FOLDER, is_deep=False)
        return next((int(entry.mtime) for entry in found if entry.path.lstrip("/") == SENT_FILE), None)

    def _walk(self, folder: str) -> Iterator[FileEntry]:
        """Every entry below a folder. Raises `NotADirectoryError` for a file, and Modal's exceptions."""
        if folder.endswith("*"):
            # The SDK takes such a name for a pattern and refuses it.
            above = folder.rpartition("/")[0]
            yield from (entry for entry in self._walk(above) if _is_below(entry, folder))
            return
        for entry in self.handle.iterdir(f"/{folder}", recursive=True):
            if folder and entry.path.lstrip("/") == folder:
                raise NotADirectoryError(folder)
            yield entry

    def _entries(self, folder: str, *, is_deep: bool) -> Iterable[FileEntry]:
        """What is in a folder; nothing where there is no such folder."""
        try:
            if is_deep or folder.endswith("*"):
                return list(self._walk(folder))
            return self.handle.listdir(f"/{folder}")
        except (me.NotFoundError, FileNotFoundError, NotADirectoryError):
            return []

    def _path_of(self, entry: FileEntry) -> str | None:
        """The path of a file of the pair; None for all else."""
        path = entry.path.lstrip("/")
        if entry.type != FileEntryType.FILE or path.endswith(PARTIAL_SUFFIX) or path.startswith(f"{OWN_FOLDER}/"):
            return None
        if not self.path:
            return path
        return path.removeprefix(f"{self.path}/") if path.startswith(f"{self.path}/") else None

    def _take(self, entry: FileEntry, found: dict[str, FileState]) -> None:
        path = self._path_of(entry)
        if path is None:
            return
        full, time = entry.path.lstrip("/"), int(entry.mtime)
        sent = self.sent.of(full, entry.size, time)
        mtime = sent.mtime if sent and sent.mtime is not None else float(time)
        found[path] = FileState(entry.size, {"sha256": sent.sha256} if sent else {}, mtime, version=f"mtime:{time}")
        if sent:
            self.sent.listed(full, time)

    def _fit(self, actions: Sequence[Action]) -> tuple[list[Action], dict[str, ComfymodalError]]:
        """The actions whose file still is what was planned, and why the others may not be touched."""
        found = self.find_files([action.path for action in actions])
        fit: list[Action] = []
        refusals: dict[str, ComfymodalError] = {}
        for action in actions:
            planned, state = action.target if action.direction else action.there, found.get(action.path)
            if state is None:
                refusals[action.path] = _gone(action.path)
            elif planned is not None and matches(state, planned) is False:
                refusals[action.path] = ConflictError(
                    f"{action.path!r} changed while the sync ran; it was left alone", hint="run the sync again"
                )
            else:
                fit.append(action)
        return fit, refusals

    def _copy_to_trash(self, paths: Sequence[str], stamp: str) -> dict[str, ComfymodalError]:
        if not paths:
            return {}
        try:
            stamp = self._free_stamp(paths, stamp)
            names = {path: trash_name(stamp, self.full(path)) for path in paths}
            with self._folders({name.rpartition("/")[0] for name in names.values()}):
                refusals = _each(paths, lambda path: self._copy(self.full(path), names[path]))
            there = self._sizes(trash_name(stamp))
            sizes = self.find_files(paths)
        except ComfymodalError as exc:
            return dict.fromkeys(paths, exc)
        for path in paths:
            # Nothing is taken away, or replaced, of which there is no whole copy.
            if path not in refusals and (path not in sizes or there.get(names[path]) != sizes[path].size):
                refusals[path] = TransferError(
                    f"no whole copy of {path!r} came into the trash; it was left alone", hint="run the sync again"
                )
        return refusals

    def _free_stamp(self, paths: Sequence[str], stamp: str) -> str:
        """A folder of the trash in which none of the paths is yet: another sync may be of the same second."""
        for number in range(1, 10_000):
            name = stamp if number == 1 else f"{stamp}-{number}"
            taken = self._sizes(trash_name(name))
            if not any(trash_name(name, self.full(path)) in taken for path in paths):
                return name
        raise ConflictError(f"the trash is full of {stamp}", hint="comfymodal trash empty")

    def _sizes(self, folder: str) -> dict[str, int]:
        with translated(f"cannot list {TRASH} of {self}"):
            entries = self._entries(folder, is_deep=True)
        return {entry.path.lstrip("/"): entry.size for entry in entries if entry.type == FileEntryType.FILE}

    @contextlib.contextmanager
    def _folders(self, folders: Iterable[str]) -> Iterator[None]:
        """Folders that are there while files are copied into them."""
        marks = [f"{folder}/{FOLDER_MARK}" for folder in sorted(folders)]
        with translated(f"cannot write to {self}"), self.handle.batch_upload(force=True) as batch:
            for mark in marks:
                batch.put_file(io.BytesIO(b""), f"/{mark}")
        try:
            yield
        finally:
            with translated(f"cannot write to {self}"):
                for mark in marks:
                    with contextlib.suppress(FileNotFoundError):
                        self.handle.remove_file(mark)

    def _copy(self, source: str, target: str) -> None:
        with translated(f"cannot copy {source!r} to {target!r} on the volume {self.name}"):
            try:
                self.handle.copy_files([source], target)
            except me.NotFoundError:
                raise _gone(source) from None


def _version(end: ApiEnd) -> int:
    # Nothing public tells it; asked for as the other version, the SDK refuses to open the volume.
    try:
        modal.Volume.from_name(end.name, environment_name=end.environment, version=2).hydrate()
    except me.InvalidError:
        return 1
    return 2


def _each(paths: Iterable[str], act: Callable[[str], object]) -> dict[str, ComfymodalError]:
    """Do it with each; when Modal itself does not answer, the rest is not tried."""
    refusals: dict[str, ComfymodalError] = {}
    silence: ServiceError | None = None
    for path in paths:
        if silence is not None:
            refusals[path] = silence
            continue
        try:
            act(path)
        except ServiceError as exc:
            refusals[path] = silence = exc
        except ComfymodalError as exc:
            refusals[path] = exc
    return refusals


def _is_below(entry: FileEntry, folder: str) -> bool:
    return entry.path.lstrip("/").startswith(f"{folder}/")


def _gone(path: str) -> NotFoundError:
    return NotFoundError(f"{path!r} is gone", hint="run the sync again", path=path)
