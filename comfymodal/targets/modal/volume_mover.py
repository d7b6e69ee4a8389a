"""Copies between a folder of this machine and a Modal volume, through Modal's API."""

from __future__ import annotations

from collections.abc import Sequence

from comfymodal.storage.actions import Action
from comfymodal.storage.folder_side import FolderSide
from comfymodal.storage.rclone.copying import CopyResult, OnProgress
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.side import Side
from comfymodal.targets.modal.volume_download import download
from comfymodal.targets.modal.volume_side import VolumeSide
from comfymodal.targets.modal.volume_tally import Tally
from comfymodal.targets.modal.volume_upload import upload


class VolumeMover:
    """Fulfils `storage.side.Mover`."""

    def __call__(
        self, source: Side, target: Side, actions: Sequence[Action], on_progress: OnProgress, control: Control
    ) -> CopyResult:
        tally = Tally(actions, on_progress, control)
        if isinstance(source, FolderSide) and isinstance(target, VolumeSide):
            upload(source.place.path, target, tally)
        elif isinstance(source, VolumeSide) and isinstance(target, FolderSide):
            download(source, target.place.path, tally)
        else:
            raise TypeError(f"Modal's API does not copy from {source} to {target}")
        return tally.result()
