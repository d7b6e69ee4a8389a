"""The operator's side of `doctor --live`: an app that is gone when its last question is answered. No GPU, no build.

Each proof is something that only a real account can tell: what is mounted, what may be written, what others see.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import modal
import modal.exception as me

from comfymodal.errors import CancelledError
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.known_secrets import known_secret
from comfymodal.targets.modal.names import (
    ENV_OF_ROLE,
    MOUNT_ROOT,
    PROVE_FUNCTION,
    ROLES,
    app_name,
    app_tags,
    board_name,
)
from comfymodal.targets.modal.prove import entry_name, file_name, prove
from comfymodal.targets.spec import ModalSpec

TIMEOUT_S: Final = 120
SCALEDOWN_S: Final = 2
WORST_S: Final = 2 * TIMEOUT_S + TIMEOUT_S + SCALEDOWN_S
"""Two calls as long as they may last, a start as long as it may last, and the time until the container ends."""

_PATIENCE_S: Final = 180.0
_CANCEL_PATIENCE_S: Final = 20.0
"""Far below the time after which the cancelled call would end by itself."""
_LATER: Final = "the same command may work later; if it does not, this account behaves unlike what is documented"


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing that was tried. `exit_code` is 0 when it is proved, else 4 (yours to correct) or 5 (Modal's)."""

    check: str
    what: str
    seconds: float
    exit_code: int = 0
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """One session of proofs: what every question says, and who hears what was proved."""

    spec: ModalSpec
    question: Mapping[str, Any]
    on_proof: Callable[[Proof], None]

    def note(self, check: str, told: tuple[bool, str, str], *, began: float, exit_code: int = 5) -> None:
        """`told` is whether it holds, the words for yes and the words for no; `began` is of the monotonic clock."""
        is_proved, yes, no = told
        seconds = round(time.monotonic() - began, 2)
        self.on_proof(Proof(check, yes, seconds) if is_proved else Proof(check, no, seconds, exit_code, _LATER))

    @property
    def token(self) -> str:
        return str(self.question["token"])


def prove_live(spec: ModalSpec, on_proof: Callable[[Proof], None]) -> None:
    """Run every proof on the operator's account, and clean up; each is handed over when it is told.

    Raises `ServiceError` and the like when the app cannot run, or not to its end.
    """
    token = uuid.uuid4().hex[:12]
    keys = [key for name in spec.containers.secrets for key in known_secret(name).keys]
    volumes = {role: volume.name for role, volume in spec.render_volumes.items()}
    question = {"token": token, "board": board_name(spec.project), "volumes": volumes, "keys": keys}
    bench = Bench(spec, question, on_proof)
    app = modal.App(app_name(spec.project, "doctor"), tags=app_tags(spec.project, "doctor"), include_source=False)
    function = _function(app, spec)
    is_whole = False
    began = time.monotonic()
    try:
        with translated("cannot prove anything in a container"), app.run(environment_name=spec.environment):
            bench.note("live: app", (True, "an app for this command only is up", ""), began=began)
            _prove_place(bench, function)
            _prove_cancel(bench, function)
            is_whole = True
    finally:
        _clean_up(spec, token)
    if not is_whole:  # `app.run` ends the app at Ctrl-C, and swallows it
        raise CancelledError("interrupted; the app is gone")


def _function(app: modal.App, spec: ModalSpec) -> Any:
    image = (
        modal.Image.debian_slim(python_version="3.12")
        .env({ENV_OF_ROLE[role]: f"{MOUNT_ROOT}/{role}" for role in ROLES})
        .add_local_python_source("comfymodal")
    )
    volumes: dict[Any, Any] = {}
    for role, volume in spec.render_volumes.items():
        handle = modal.Volume.from_name(volume.name, environment_name=spec.environment)
        volumes[f"{MOUNT_ROOT}/{role}"] = handle.with_mount_options(read_only=True) if role == "models" else handle
    decorate = app.function(
        image=image,
        volumes=volumes,
        secrets=[modal.Secret.from_name(name, environment_name=spec.environment) for name in spec.containers.secrets],
        name=PROVE_FUNCTION,
        timeout=TIMEOUT_S,
        startup_timeout=TIMEOUT_S,
        scaledown_window=SCALEDOWN_S,
        max_containers=1,
    )
    return decorate(prove)


def _prove_place(bench: Bench, function: Any) -> None:
    began = time.monotonic()
    call = function.spawn({**bench.question, "do": "look"})
    try:
        answer = call.get(timeout=_PATIENCE_S)
    except TimeoutError:
        call.cancel(terminate_containers=True)
        bench.note("live: container", (False, "", f"no container answered within {_PATIENCE_S:.0f} s"), began=began)
        return
    missing = ", ".join(role for role, is_there in answer["mounts"].items() if not is_there)
    there = f"the volumes {', '.join(answer['mounts'])} are mounted"
    bench.note("live: mounts", (not missing, there, f"not mounted: {missing}"), began=began)
    told = (answer["is_models_read_only"], "models cannot be written to", "a container can write to the models volume")
    bench.note("live: models", told, began=time.monotonic())
    _prove_commit(bench, answer["commit_error"])
    for name in bench.spec.containers.secrets:
        _prove_secret(bench, name, answer["keys"])
    began = time.monotonic()
    came_back = _board(bench).get(entry_name(bench.token)) == bench.token
    told = (came_back, "an entry came back from the container", "the entry of the container is not in the Dict")
    bench.note("live: dict", told, began=began)


def _prove_commit(bench: Bench, error: str | None) -> None:
    began = time.monotonic()
    volume = modal.Volume.from_name(bench.spec.volumes["outputs"].name, environment_name=bench.spec.environment)
    try:
        text = b"".join(volume.read_file(file_name(bench.token))).decode()
    except FileNotFoundError:
        text = ""
    no = "a committed file is not seen here" if error is None else f"the container could not commit: {error}"
    told = (text == bench.token, "a file committed in the container is seen here", no)
    bench.note("live: commit", told, began=began)


def _prove_secret(bench: Bench, name: str, keys: Mapping[str, bool]) -> None:
    began = time.monotonic()
    wanted = known_secret(name).keys
    missing = ", ".join(key for key in wanted if not keys.get(key))
    yes = f"{', '.join(wanted)} reached the container" if wanted else "the container started with it"
    told = (not missing, yes, f"{missing} did not reach the container")
    bench.note(f"live: secret {name}", told, began=began, exit_code=4)


def _prove_cancel(bench: Bench, function: Any) -> None:
    """Cancel a call that has begun for sure: one that still waits proves little."""
    began = time.monotonic()
    call = function.spawn({**bench.question, "do": "linger"})
    give_up_at = began + _PATIENCE_S
    while (
        not (has_begun := _board(bench).get(entry_name(bench.token)) == "lingering") and time.monotonic() < give_up_at
    ):
        time.sleep(0.5)
    call.cancel()
    no = "a running call did not end when cancelled" if has_begun else f"no call began within {_PATIENCE_S:.0f} s"
    is_cancelled = _ends_cancelled(call)
    told = (has_begun and is_cancelled, "a running call ended when it was cancelled", no)
    bench.note("live: cancel", told, began=began)


def _ends_cancelled(call: Any) -> bool:
    try:
        call.get(timeout=_CANCEL_PATIENCE_S)
    except TimeoutError:
        call.cancel(terminate_containers=True)
    except (me.ConnectionError, me.ServiceError):
        raise
    except me.Error:
        return True
    return False


def _board(bench: Bench) -> Any:
    return modal.Dict.from_name(
        board_name(bench.spec.project), environment_name=bench.spec.environment, create_if_missing=True
    )


def _clean_up(spec: ModalSpec, token: str) -> None:
    # What is left harms nobody: an empty entry that expires, a file of a few bytes.
    with contextlib.suppress(me.Error, FileNotFoundError, KeyError):
        outputs = modal.Volume.from_name(spec.volumes["outputs"].name, environment_name=spec.environment)
        outputs.remove_file(file_name(token))
    with contextlib.suppress(me.Error, KeyError):
        modal.Dict.from_name(board_name(spec.project), environment_name=spec.environment).pop(entry_name(token))
