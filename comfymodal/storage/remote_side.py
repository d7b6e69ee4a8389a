"""A bucket, or a folder in one, as one side of a sync. Everything happens on the server; only copies travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from comfymodal.errors import ComfymodalError, ConflictError, NotFoundError, TransferError
from comfymodal.storage.actions import Action
from comfymodal.storage.base import matches
from comfymodal.storage.rclone import trashing
from comfymodal.storage.rclone.copying import CopyResult, Order, copy
from comfymodal.storage.rclone.listing import find_files, list_files, require_bucket
from comfymodal.storage.rclone.presets import choose_preset
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.side import Refusals
from comfymodal.storage.values import FileState, Listing, Remote


@dataclass(frozen=True, slots=True)
class RemoteSide:
    session: Session
    remote: Remote

    @property
    def identity(self) -> str:
        remote = self.remote
        return f"{remote.kind}://{remote.endpoint or ''}/{remote.bucket}/{remote.prefix}"

    @property
    def place(self) -> Remote:
        return self.remote

    def list_files(self, control: Control) -> Listing:
        found = list_files(self.session, self.remote, control=control)
        if not found:
            # An S3 server lists a bucket that does not exist as an empty folder.
            require_bucket(self.session, self.remote)
        return found

    def find_files(self, paths: Sequence[str]) -> Listing:
        return find_files(self.session, self.remote, paths)

    def hash_file(self, path: str, names: Sequence[str]) -> Mapping[str, str]:
        """Nothing: reading a file that lies elsewhere is a download."""
        return {}

    def keep_replaced(self, actions: Sequence[Action], stamp: str) -> Refusals:
        """A copy on the server: the file keeps its name until the new one has it."""
        return self._guarded(actions, lambda paths: self._copy_to_trash(paths, stamp))

    def set_aside(self, actions: Sequence[Action]) -> Refusals:
        refusals = dict(self._guarded(actions, None))
        for action in actions:
            if action.path not in refusals and action.keep_as is not None:
                error = trashing.rename(self.session, self.remote, action.path, action.keep_as)
                if error is not None:
                    refusals[action.path] = error
        return refusals

    def put_away(self, actions: Sequence[Action], stamp: str) -> Refusals:
        return self._guarded(actions, lambda paths: trashing.trash(self.session, self.remote, paths, stamp))

    def withdraw(self, path: str, stamp: str) -> None:
        trashing.trash(self.session, self.remote, [path], stamp)

    def put_back(self, paths: Sequence[str], stamp: str) -> None:
        """Nothing: they never lost their names."""

    def commit(self) -> None:
        """What a bucket took it keeps."""

    def _copy_to_trash(self, paths: Sequence[str], stamp: str) -> CopyResult:
        folder = trashing.trash_folder(stamp)
        target = replace(self.remote, prefix="/".join(part for part in (self.remote.prefix, folder) if part))
        return copy(self.session, Order(self.remote, target, paths, choose_preset(self.remote, target, ())))

    def _guarded(self, actions: Sequence[Action], act: Callable[[Sequence[str]], CopyResult] | None) -> Refusals:
        """Do it with those that still are what was planned."""
        expected = {action.path: action.target if action.direction else action.there for action in actions}
        refusals: dict[str, ComfymodalError] = {}
        found = self.find_files(list(expected))
        for path, state in expected.items():
            if (error := _why_not(path, state, found.get(path))) is not None:
                refusals[path] = error
        if act is None or not (fit := [path for path in expected if path not in refusals]):
            return refusals
        result = act(fit)
        for each in result.results:
            if each.result == "missing":
                refusals[each.path] = NotFoundError(f"{each.path!r} is gone", hint="run the sync again")
            elif each.result != "copied":
                refusals[each.path] = TransferError(
                    each.error or (result.error.message if result.error else "it was not moved to the trash")
                )
        return refusals


def _why_not(path: str, planned: FileState | None, found: FileState | None) -> ComfymodalError | None:
    if found is None:
        return NotFoundError(f"{path!r} is gone", hint="run the sync again", path=path)
    if planned is not None and matches(found, planned) is False:
        return ConflictError(f"{path!r} changed while the sync ran; it was left alone", hint="run the sync again")
    return None
