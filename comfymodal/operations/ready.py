"""Make sure a ComfyUI is there before anything is asked of it; the one place that offers to set one up."""

from __future__ import annotations

from comfymodal.errors import NotReadyError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.targets.base import EngineFacts


def ready_engine(context: Context, desk: Desk, *, may_set_up: bool = True) -> EngineFacts:
    """Find, and start if need be, the ComfyUI to use; ask before one is installed or deployed.

    Raises `NotReadyError` on a no, and when it would have to be set up and must not be.
    """
    desk.event({"type": "engine_looking"})
    setup = context.target.needed_setup()
    if setup is not None:
        if not may_set_up:
            raise NotReadyError(setup.summary, hint=f"do it first: {setup.forbidden_hint}", details=setup.details)
        if not desk.agree(setup):
            raise NotReadyError("nothing was set up, nothing was started", hint=setup.declined_hint)
        context.target.set_up(desk.event)
    return context.target.engine_facts(desk.event)
