"""Modal's function calls: begun, found again by id, looked at and cancelled, whatever happens to the network."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import modal
import modal.exception as me

from comfymodal.errors import ComfymodalError, EngineDiedError, RunFailedError, ServiceError
from comfymodal.targets.modal.app import render_handle
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.sync_app import sync_app
from comfymodal.targets.modal.train_app import train_handle
from comfymodal.targets.modal.train_carrier import GoesOnError
from comfymodal.targets.spec import ModalSpec

_OUTAGE = (me.ConnectionError, me.ServiceError, me.InternalError, me.ResourceExhaustedError)
"""The service has trouble; the call goes on without us."""


@dataclass(frozen=True, slots=True)
class CallState:
    """What Modal says of a call: it runs, or it returned, or it ended without a result, or Modal cannot be asked.

    `is_expired`: it ended long ago and Modal forgot the result; the outputs volume has it.
    """

    is_running: bool
    outcome: Mapping[str, Any] | None = None
    error: ComfymodalError | None = None
    is_cancelled: bool = False
    is_expired: bool = False
    outage: str | None = None


def spawn(spec: ModalSpec, job: Mapping[str, Any]) -> str:
    """Hand the job over; return the call's id. Raises `ComfymodalError`."""
    with translated("cannot submit the job"):
        call = render_handle(spec, job.get("gpu")).run.spawn(dict(job))
        return str(call.object_id)


def spawn_carry(spec: ModalSpec, job: Mapping[str, Any], *, secrets: Collection[str]) -> str:
    """Hand over a job that moves files, with the volumes and secrets it needs; return the call's id.

    Raises `ComfymodalError`.
    """
    with translated("cannot submit the job"):
        call = sync_app(spec).handle(job["modal"]["volumes"], secrets).spawn(dict(job))
        return str(call.object_id)


def spawn_train(spec: ModalSpec, job: Mapping[str, Any], *, secrets: Collection[str]) -> str:
    """Hand over a training, with the GPU, memory, volumes and secrets it needs; return the call's id.

    Raises `ComfymodalError`.
    """
    with translated("cannot submit the training"):
        call = train_handle(spec, job, secrets).spawn(dict(job))
        return str(call.object_id)


def state_of(call_id: str, *, wait_s: float) -> CallState:
    """Look at a call, for at most `wait_s` until it ends."""
    began = time.monotonic()
    try:
        outcome = modal.FunctionCall.from_id(call_id).get(timeout=wait_s)
    except TimeoutError:
        return CallState(is_running=True)
    except _OUTAGE as exc:
        # `get` gives up at once when nobody listens; the call does not.
        time.sleep(max(0.0, wait_s - (time.monotonic() - began)))
        return CallState(is_running=True, outage=_first_line(exc))
    except (Exception, me.InputCancellation) as exc:  # noqa: BLE001 - what a container raised arrives as it was
        return _ended(exc, call_id)
    return CallState(is_running=False, outcome=outcome if isinstance(outcome, Mapping) else None)


def _ended(error: BaseException, call_id: str) -> CallState:
    """How a call ended that returned nothing."""
    said = _first_line(error)
    if isinstance(error, me.OutputExpiredError):
        return CallState(is_running=False, is_expired=True)
    if isinstance(error, me.InputCancellation) or (isinstance(error, me.RemoteError) and _is_cancelled(error)):
        return CallState(is_running=False, is_cancelled=True)
    if isinstance(error, me.FunctionTimeoutError):
        return CallState(is_running=False, error=_timed_out())
    services = (
        (me.InternalFailure, f"Modal lost the run's container: {said}"),
        (GoesOnError, f"Modal has not started another container: {said}"),
        (me.NotFoundError, f"Modal does not know the call {call_id}"),
    )
    for kind, words in services:
        if isinstance(error, kind):
            return CallState(is_running=False, error=ServiceError(words))
    words = f"the container failed: {type(error).__name__}: {said}"
    return CallState(is_running=False, error=EngineDiedError(words))


def cancel(call_id: str) -> None:
    """Take a call back; one that runs is told, one that waits never starts."""
    with translated("cannot cancel the call"):
        modal.FunctionCall.from_id(call_id).cancel()


def _timed_out() -> RunFailedError:
    return RunFailedError(
        "the run took longer than it may (a render: comfyui.timeout), and Modal ended it",
        hint="a render: raise comfyui.timeout and deploy again; what was finished: comfymodal runs fetch",
    )


def _is_cancelled(error: BaseException) -> bool:
    words = str(error).lower()
    return "cancel" in words or "terminated" in words


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
