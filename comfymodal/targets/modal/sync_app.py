"""The app that moves files: no GPU and no ComfyUI."""

from __future__ import annotations

import modal

from comfymodal.targets.modal import carrier
from comfymodal.targets.modal.app import RETRIES
from comfymodal.targets.modal.carry_app import CarryApp
from comfymodal.targets.modal.image import sync_image
from comfymodal.targets.modal.names import CARRY_FUNCTION
from comfymodal.targets.modal.plan import sync_fingerprint
from comfymodal.targets.modal.recipe import SYNC_FUNCTION
from comfymodal.targets.spec import ModalSpec


def sync_app(spec: ModalSpec) -> CarryApp:
    """What of the project moves files."""
    retries = modal.Retries(max_retries=RETRIES, initial_delay=1.0, backoff_coefficient=2.0)
    return CarryApp(
        spec=spec,
        kind="sync",
        fingerprint=sync_fingerprint(spec),
        function=CARRY_FUNCTION,
        body=carrier.carry,
        options={**SYNC_FUNCTION, "retries": retries, "region": spec.region},
        make_image=sync_image,
        why="files on Modal are moved by an app of their own",
        details=(
            "takes about 1 min, once, on Modal's CPUs; no GPU",
            "idle it costs nothing; while files are moved, 2 cores and 4 GiB",
        ),
        undone="nothing was moved",
    )
