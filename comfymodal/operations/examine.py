"""A list of looks, taken one by one: what each found, what could not be told, and the first thing that is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfymodal.errors import CancelledError, ComfymodalError, NotReadyError, ServiceError
from comfymodal.operations.setup_results import CheckRow, CheckStatus

_FALLBACK_HINT = "the same command may work later; how Modal is: https://status.modal.com"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look told. `exit_code` counts for failures."""

    status: CheckStatus
    what: str
    hint: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One look; `needs` are checks without which it cannot tell anything."""

    name: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()


Told = list[tuple[CheckRow, Finding]]
"""What was found, as it is shown and with the exit code it means."""


def examine(checks: Sequence[Check]) -> Told:
    """Take every look, in order; one whose needs are not met is skipped, and so are those that need it."""
    told: Told = []
    unusable: set[str] = set()
    for check in checks:
        began = time.monotonic()
        blocked = [name for name in check.needs if name in unusable]
        finding = Finding("skipped", f"cannot be told without: {blocked[0]}") if blocked else _look(check)
        if finding.status in ("fail", "skipped"):
            unusable.add(check.name)
        told.append(row_of(check.name, finding, time.monotonic() - began))
    return told


def row_of(name: str, finding: Finding, seconds: float = 0.0) -> tuple[CheckRow, Finding]:
    return CheckRow(name, finding.status, finding.what, finding.hint, round(seconds, 3)), finding


def first_failure(told: Told) -> ComfymodalError | None:
    """The error the whole examination ends with."""
    failed = [(row, finding) for row, finding in told if row.status == "fail"]
    if not failed:
        return None
    row, finding = failed[0]
    kind = ServiceError if finding.exit_code == ServiceError.exit_code else NotReadyError
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return kind(f"{row.check}: {row.what}{more}", hint=row.hint)


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except CancelledError:
        raise
    except ComfymodalError as error:
        # 5 is worth trying again; whatever else it is, somebody has to do something first.
        code = error.exit_code if error.exit_code == ServiceError.exit_code else NotReadyError.exit_code
        return Finding("fail", error.message, error.hint or _FALLBACK_HINT, code)
