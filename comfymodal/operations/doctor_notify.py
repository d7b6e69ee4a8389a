"""What `doctor` says of those who are to be told: whether their secrets are here; live, whether a message arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.errors import NotReadyError, ServiceError
from comfymodal.notify.message import Notification
from comfymodal.notify.web import NotSentError
from comfymodal.operations.examine import Check, Finding
from comfymodal.operations.notify import deliver, find_receiver, why_not
from comfymodal.operations.setup import Values
from comfymodal.operations.views import iso_time

if TYPE_CHECKING:
    from comfymodal.project.schema import Project, Receiver


def notify_checks(project: Project, folder: Path, environ: Mapping[str, str]) -> list[Check]:
    """A look at each receiver; nobody is told anything. `folder` may hold a `.env`."""
    return [Check(f"notify {name}", _looker(name, entry, folder, environ)) for name, entry in project.notify.items()]


def live_checks(project: Project, folder: Path, environ: Mapping[str, str]) -> list[Check]:
    """Send each receiver a message that calls itself a test."""
    told = Notification("test", project.project, iso_time(time.time()))
    return [
        Check(f"live: notify {name}", _trier(name, entry, folder, environ, told))
        for name, entry in project.notify.items()
    ]


def _looker(name: str, entry: Receiver, folder: Path, environ: Mapping[str, str]) -> Callable[[], Finding]:
    return lambda: _look(name, entry, Values.read(folder, environ))


def _trier(
    name: str, entry: Receiver, folder: Path, environ: Mapping[str, str], told: Notification
) -> Callable[[], Finding]:
    return lambda: _try(name, entry, Values.read(folder, environ), told)


def _look(name: str, entry: Receiver, values: Values) -> Finding:
    try:
        receiver = find_receiver(name, entry, values)
    except NotSentError as error:
        # Nothing that renders or syncs needs it.
        return Finding("warn", f"{error.why}: nobody will be told", error.hint)
    where = f"writes to {receiver.channel}, " if receiver.channel else ""
    return Finding("ok", f"{receiver.variable} is set; {where}on {', '.join(entry.on) or 'nothing'}")


def _try(name: str, entry: Receiver, values: Values, told: Notification) -> Finding:
    try:
        deliver(told, find_receiver(name, entry, values))()
    except NotSentError as error:
        return Finding("fail", f"not told: {error.why}", error.hint or "comfymodal doctor --live", _code(error))
    except Exception as exc:  # noqa: BLE001 - its words may hold a secret
        return Finding("fail", f"not told: {why_not(exc)}", "is the network up?", ServiceError.exit_code)
    return Finding("ok", "a test message was taken")


def _code(error: NotSentError) -> int:
    """4 when the operator has something to set, 5 when the other side does not work."""
    return NotReadyError.exit_code if error.hint else ServiceError.exit_code
