"""Keeps a render container up for a while. Runs on a CPU in Modal, so that it ends although every laptop is closed.

Imported in a bare container: the standard library and `modal` are all there is.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import modal
import modal.exception

from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.names import ENV_SETTINGS, app_name, render_class

NOTE = "warm"
"""On the board: `{until, call_id, container_id, gpu, minimum, restore}`, None when nothing is kept warm."""

KEEPER_NOTE = "keeper"
"""On the board: the id of the last container that kept others warm; it idles for a while when it is done."""

ASSERT_EVERY_S = 10.0
"""A deploy wipes the autoscaler's settings; so often they are set again."""

ATTEMPTS = 6


def keep_warm(until: float, minimum: int, restore: int, gpu: str | None = None) -> None:
    """Keep `minimum` render containers up until `until` (Unix time), then put the minimum back to `restore`.

    `gpu`: of the pool of that GPU, where it is not the deployed one. Puts it back also when cancelled; a restarted one
    goes on to the same end. Raises what Modal says when it cannot be put back, so that Modal tries once more.
    """
    settings = json.loads(os.environ[ENV_SETTINGS])
    app, board = app_name(settings["project"]), Board(settings["board"], None)
    pool = Pool(app, render_class(settings["snapshot"]), gpu)
    note = {
        "until": until,
        "call_id": modal.current_function_call_id(),
        "container_id": os.environ.get("MODAL_TASK_ID", ""),
        "gpu": gpu,
        "minimum": minimum,
        "restore": restore,
    }
    try:
        while (left_s := until - time.time()) > 0:
            _keep_up(pool, minimum, lambda: _say(board, note))
            time.sleep(min(left_s, ASSERT_EVERY_S))
    finally:
        _put_back(pool, restore)
        # A newer one may have begun: its note is not ours to take away.
        if is_of(board.get(NOTE), until):
            board.note(NOTE, None)


@dataclass(frozen=True, slots=True)
class Pool:
    """Containers of one class and one GPU: those of another GPU than the deployed one scale by themselves."""

    app: str
    render_class: str
    gpu: str | None
    environment: str | None = None


def set_minimum(pool: Pool, minimum: int) -> None:
    """How many containers the autoscaler of the render class keeps up. Raises Modal's exceptions."""
    found = modal.Cls.from_name(pool.app, pool.render_class, environment_name=pool.environment)
    if pool.gpu is not None:
        found = found.with_options(gpu=pool.gpu)
    with warnings.catch_warnings():
        # For a class there is no other public way in 1.6; it warns of a function's method that it calls itself.
        warnings.simplefilter("ignore", modal.exception.DeprecationError)
        found().update_autoscaler(min_containers=minimum)


def is_of(note: Any, until: float) -> bool:
    return isinstance(note, dict) and note.get("until") == until


def _say(board: Board, note: Mapping[str, Any]) -> None:
    board.note(NOTE, dict(note))
    board.note(KEEPER_NOTE, note["container_id"])


def _keep_up(pool: Pool, minimum: int, say: Callable[[], None]) -> None:
    try:
        set_minimum(pool, minimum)
        say()
    except modal.Error as exc:
        print(f"comfymodal: cannot keep {minimum} container(s) up: {exc}", flush=True)  # noqa: T201


def _put_back(pool: Pool, restore: int) -> None:
    """A container that nobody lets go costs money for ever, so this is tried for a minute."""
    for attempt in range(ATTEMPTS):
        try:
            return set_minimum(pool, restore)
        except modal.Error as exc:
            print(f"comfymodal: cannot put back min_containers={restore}: {exc}", flush=True)  # noqa: T201
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2.0**attempt)
    return None
