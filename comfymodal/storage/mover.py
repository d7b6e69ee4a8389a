"""rclone as what copies between two sides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from comfymodal.storage.actions import Action
from comfymodal.storage.folder_side import FolderSide
from comfymodal.storage.rclone.copying import CopyResult, OnProgress, Order, copy
from comfymodal.storage.rclone.presets import Limits, choose_preset, split_by_size
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.remote_side import RemoteSide
from comfymodal.storage.side import Side


@dataclass(frozen=True, slots=True)
class RcloneMover:
    """Fulfils `side.Mover`. `deadline` is Unix time; None without a limit."""

    session: Session
    limits: Limits
    deadline: float | None = None

    def __call__(
        self, source: Side, target: Side, actions: Sequence[Action], on_progress: OnProgress, control: Control
    ) -> CopyResult:
        if not isinstance(source, FolderSide | RemoteSide) or not isinstance(target, FolderSide | RemoteSide):
            raise TypeError(f"rclone does not reach {source} or {target}")
        sizes = [action.size for action in actions]
        limits = self.limits
        if self.deadline is not None:
            limits = replace(limits, max_s=max(1.0, self.deadline - time.time()))
        preset = choose_preset(source.place, target.place, sizes, limits)
        order = Order(source.place, target.place, [action.path for action in actions], preset)
        return copy(self.session, order, on_progress=on_progress, control=control)


BATCH_BYTES = 8 << 30
BATCH_FILES = 10_000
"""Each batch costs a listing or two: of 20,000 small files, ten of them took as long as the copying."""


def batches(actions: Sequence[Action]) -> Iterator[tuple[Action, ...]]:
    """Parts of a plan, each recorded (and committed) before the next begins: what a kill can cost, at most.

    Small files and large ones apart, because each kind is moved in a way of its own; the small ones first.
    """
    by_path = {action.path: action for action in actions}
    for group in split_by_size({action.path: action.size for action in actions}):
        batch: list[Action] = []
        size = 0
        for path in group:
            action = by_path[path]
            if batch and (size + action.size > BATCH_BYTES or len(batch) == BATCH_FILES):
                yield tuple(batch)
                batch, size = [], 0
            batch.append(action)
            size += action.size
        if batch:
            yield tuple(batch)
