"""A folder of this machine, or a mounted volume, as one side of a sync."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import ComfymodalError, TransferError
from comfymodal.storage import trash
from comfymodal.storage.actions import Action
from comfymodal.storage.rclone.listing import find_files, list_files
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.side import Refusals
from comfymodal.storage.values import FileState, Folder, Listing

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FolderSide:
    """`root` holds base and trash; the pair's files lie in `root/path`. `on_commit` makes them durable."""

    session: Session
    root: Path
    path: str
    identity: str
    on_commit: Callable[[], None]
    volume_version: int | None = None

    @property
    def place(self) -> Folder:
        return Folder(self.root / self.path if self.path else self.root, self.volume_version)

    def list_files(self, control: Control) -> Listing:
        return list_files(self.session, self.place, control=control)

    def find_files(self, paths: Sequence[str]) -> Listing:
        return find_files(self.session, self.place, paths)

    def hash_file(self, path: str, names: Sequence[str]) -> Mapping[str, str]:
        digests = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        # Listed here, so also what lies behind a link; only what writes asks where a link leads.
        with (self.place.path / path).open("rb") as stream:
            while block := stream.read(READ_BYTES):
                for digest in digests.values():
                    digest.update(block)
        return {name: digest.hexdigest() for name, digest in digests.items()}

    def keep_replaced(self, actions: Sequence[Action], stamp: str) -> Refusals:
        return _each(actions, lambda action: trash.keep_replaced(self.root, *self._known(action, stamp)))

    def set_aside(self, actions: Sequence[Action]) -> Refusals:
        def rename(action: Action) -> object:
            target = self._name(action.keep_as or action.path)
            return trash.set_aside(self.root, self._name(action.path), target, expected=action.target)

        return _each(actions, rename)

    def put_away(self, actions: Sequence[Action], stamp: str) -> Refusals:
        return _each(actions, lambda action: trash.put_away(self.root, *self._known(action, stamp)))

    def withdraw(self, path: str, stamp: str) -> None:
        trash.put_away(self.root, self._name(path), stamp)

    def put_back(self, paths: Sequence[str], stamp: str) -> None:
        for path in paths:
            # Its place is taken, or it is in the trash of a later stamp: nothing is lost, it only stays there.
            with contextlib.suppress(ComfymodalError, OSError):
                trash.restore(self.root, trash.Trashed(stamp, self._name(path), 0))

    def broken_link(self, path: str) -> Path | None:
        """The link on the way to `path` that leads nowhere, e.g. to a disk that is not mounted; None without one."""
        place = self.place.path / path
        return next((each for each in (place, *place.parents) if each.is_symlink() and not each.exists()), None)

    def commit(self) -> None:
        self.on_commit()

    def _name(self, path: str) -> str:
        return f"{self.path}/{path}" if self.path else path

    def _known(self, action: Action, stamp: str) -> tuple[str, str, FileState | None]:
        state = action.target if action.direction else _deleted(action)
        return self._name(action.path), stamp, state


def _deleted(action: Action) -> FileState | None:
    return action.here if action.kind == "delete_here" else action.there


def _each(actions: Sequence[Action], act: Callable[[Action], object]) -> Refusals:
    refusals: dict[str, ComfymodalError] = {}
    for action in actions:
        try:
            act(action)
        except ComfymodalError as exc:
            refusals[action.path] = exc
        except OSError as exc:
            refusals[action.path] = TransferError(f"cannot move {action.path!r}: {exc.strerror or exc}")
    return refusals
