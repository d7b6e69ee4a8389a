"""Make sure that a target is ready for a job before anything is asked of it; the one place that offers to set it up."""

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
    ready_setup("render", context, desk, may_set_up=may_set_up)
    return context.target.engine_facts(desk.event)


def ready_setup(kind: str, context: Context, desk: Desk, *, may_set_up: bool = True) -> None:
    """Install or deploy, once, what jobs of this kind need; ask before. Raises `NotReadyError` as `ready_engine`."""
    setup = context.target.needed_setup(kind)
    if setup is None:
        return
    if not may_set_up:
        raise NotReadyError(setup.summary, hint=f"do it first: {setup.forbidden_hint}", details=setup.details)
    if not desk.agree(setup):
        raise NotReadyError("nothing was set up, nothing was started", hint=setup.declined_hint)
    context.target.set_up(desk.event, kind)
