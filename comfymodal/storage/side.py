"""What a sync asks of each of its two places, whichever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from comfymodal.errors import ComfymodalError
from comfymodal.storage.actions import Action
from comfymodal.storage.rclone.copying import CopyResult, OnProgress
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.values import Listing

Refusals = Mapping[str, ComfymodalError]
"""By path: why nothing was done with it. A path that is not there was done."""


class Side(Protocol):
    """A folder, a mounted volume, a bucket, or a volume behind an API. Paths are relative to the pair's folder."""

    @property
    def identity(self) -> str:
        """The place in full, the same on every day and in every process; part of the base's name."""

    def list_files(self, control: Control) -> Listing:
        """Every file but half-written ones and our own. Raises `NotFoundError` for a place that does not exist."""

    def find_files(self, paths: Sequence[str]) -> Listing:
        """Those of `paths` that are there."""

    def hash_file(self, path: str, names: Sequence[str]) -> Mapping[str, str]:
        """Read one file and give these hashes of it; empty where bytes cannot be read cheaply. Raises `OSError`."""

    def keep_replaced(self, actions: Sequence[Action], stamp: str) -> Refusals:
        """Let the trash hold what copies are about to replace, if it still is what was planned."""

    def set_aside(self, actions: Sequence[Action]) -> Refusals:
        """Rename each action's file to its `keep_as`, if it still is what was planned."""

    def put_away(self, actions: Sequence[Action], stamp: str) -> Refusals:
        """Move the files to the trash, if they still are what was planned."""

    def withdraw(self, path: str, stamp: str) -> None:
        """A copy arrived that is not what was planned: take it from its name, into the trash."""

    def put_back(self, paths: Sequence[str], stamp: str) -> None:
        """The copies that were to replace these did not come: let each have its name again, if it lost it."""

    def commit(self) -> None:
        """Make what was written durable. Raises `TransferError`."""


Mover = Callable[[Side, Side, Sequence[Action], OnProgress, Control], CopyResult]
"""Copies the actions' files from the first side to the second. Nothing is raised for a file that fails."""
