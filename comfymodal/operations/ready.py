"""Make sure a ComfyUI answers before anything is asked of it; the one place that offers to install one."""

from __future__ import annotations

from comfymodal.errors import NotReadyError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.targets.base import EngineFacts


def ready_engine(context: Context, desk: Desk, *, may_set_up: bool = True) -> EngineFacts:
    """Find, and start if need be, the ComfyUI to use; ask before one is installed.

    Raises `NotReadyError` on a no, and when one would have to be installed and must not be.
    """
    desk.event({"type": "engine_looking"})
    setup = context.target.needed_setup()
    if setup is not None:
        if not may_set_up:
            raise NotReadyError(
                setup.summary, hint="a dry run installs nothing; do it first: comfymodal engine install"
            )
        if not desk.agree(setup):
            raise NotReadyError(
                "nothing was installed, nothing was started",
                hint="use a ComfyUI you have: --comfy-url http://..., or comfyui.path in comfymodal.yaml",
            )
        context.target.set_up(desk.event)
    return context.target.engine_facts(desk.event)
