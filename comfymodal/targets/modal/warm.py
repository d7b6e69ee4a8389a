"""Keeping a render container up, from the operator's side: begun, replaced, ended, looked at."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import NotFoundError
from comfymodal.targets.modal.app import function_handle
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.calls import cancel, state_of
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.keep_warm import KEEPER_NOTE, NOTE, Pool, set_minimum
from comfymodal.targets.modal.names import KEEP_WARM_FUNCTION, app_name, board_name, render_class
from comfymodal.targets.spec import ModalSpec

PATIENCE_S = 20.0
"""How long a cancelled keeper may take to put the autoscaler back."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """What is kept up until `until` (Unix time); `gpu` None is the deployed one."""

    until: float
    call_id: str
    container_id: str
    gpu: str | None
    minimum: int


def read_warmth(spec: ModalSpec) -> Warmth | None:
    """What the board says, also when its time is over: a keeper that did its work takes the note away."""
    with translated("cannot read the board"):
        return warmth_from(_board(spec).get(NOTE))


def warmth_from(note: Any) -> Warmth | None:
    if not isinstance(note, dict):
        return None
    return Warmth(
        until=float(note["until"]),
        call_id=str(note.get("call_id") or ""),
        container_id=str(note.get("container_id") or ""),
        gpu=note.get("gpu"),
        minimum=int(note.get("minimum") or 1),
    )


def last_keeper(spec: ModalSpec) -> str:
    """The container that kept others warm last, on a CPU; empty when there was none."""
    with translated("cannot read the board"):
        return str(_board(spec).get(KEEPER_NOTE) or "")


def begin(spec: ModalSpec, *, until: float, gpu: str | None) -> Warmth:
    """Have Modal keep containers up until `until`. Called when nothing is kept warm any more."""
    restore = restore_of(spec, gpu)
    minimum = max(1, restore)
    with translated("cannot begin to keep a container warm"):
        call = function_handle(spec, KEEP_WARM_FUNCTION).spawn(until, minimum, restore, gpu)
        # The keeper writes it too, with its container, once it runs.
        note = {"until": until, "call_id": call.object_id, "gpu": gpu, "minimum": minimum, "restore": restore}
        _board(spec).note(NOTE, note)
    return Warmth(until, str(call.object_id), "", gpu, minimum)


def end(spec: ModalSpec, warmth: Warmth) -> None:
    """Let go of what is kept up. Puts the autoscaler back itself too: the keeper may be gone."""
    with contextlib.suppress(NotFoundError):
        cancel(warmth.call_id)
    # Whatever it says of its end, below everything is put back once more.
    state_of(warmth.call_id, wait_s=PATIENCE_S)
    with translated("cannot put the autoscaler back"):
        name = render_class(spec.containers.snapshot)
        pool = Pool(app_name(spec.project), name, warmth.gpu, spec.environment)
        set_minimum(pool, restore_of(spec, warmth.gpu))
        _board(spec).note(NOTE, None)


def restore_of(spec: ModalSpec, gpu: str | None) -> int:
    """How many containers are kept up without us; a pool of another GPU keeps none."""
    return spec.containers.min_containers if gpu is None else 0


def other_gpu(spec: ModalSpec, gpu: str | None) -> str | None:
    """The GPU when its pool is not the deployed one."""
    return None if gpu is None or (gpu,) == spec.containers.gpus else gpu


def forget(spec: ModalSpec) -> None:
    """The app was stopped, and with it whatever was kept up."""
    with translated("cannot write to the board"):
        _board(spec).note(NOTE, None)


def _board(spec: ModalSpec) -> Board:
    return Board(board_name(spec.project), spec.environment)
