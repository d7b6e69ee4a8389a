"""What a person reads of `setup` and `doctor`, as lines of columns; pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from comfymodal.costs.rates import money_text, nanodollars_of
from comfymodal.operations.setup_results import CheckRow, DoctorReport, SecretRow, SetupDone, VolumeRow
from comfymodal.output.words import seconds_in_words

Rows = list[tuple[str, ...]]
SETUP_TITLES = ("", "name", "is", "what")
DOCTOR_TITLES = ("check", "is", "what", "do")
_TOLD_FROM_S = 0.1
"""Shorter looks are not worth a number."""


def setup_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result of `setup` or `doctor`; None for any other result."""
    match result:
        case SetupDone():
            return SETUP_TITLES, _setup_rows(result)
        case DoctorReport():
            return DOCTOR_TITLES, _doctor_rows(result)
        case _:
            return None


def _setup_rows(done: SetupDone) -> Rows:
    rows: Rows = [("account", done.workspace, "reached", f"environment {done.environment}")]
    rows += [("volume", row.name, row.action, _volume(row)) for row in done.volumes]
    rows += [("secret", row.name, row.action, _secret(row)) for row in done.secrets]
    if done.next_command:
        rows.append(("next", done.next_command, "", ""))
    return rows


def _volume(row: VolumeRow) -> str:
    entries = "1 entry" if row.entries == 1 else f"{row.entries} entries"
    return f"version {row.version}, for {row.role}" + (f", {entries} at the top" if row.action == "kept" else "")


def _secret(row: SecretRow) -> str:
    if row.action == "not set":
        need = "needed" if row.is_needed else "not needed by this project"
        return f"{need}: {row.hint}"
    if row.action == "lacks keys":
        return f"{', '.join(row.missing)}: {row.hint}"
    keys = ", ".join(row.keys)
    return f"{keys}, from {row.source}" if row.source else keys


def _doctor_rows(report: DoctorReport) -> Rows:
    rows: Rows = [(row.check, row.status, _what(row), row.hint or "") for row in report.checks]
    if report.cost is not None:
        cost = money_text(nanodollars_of(Decimal(report.cost)))
        rows.append(("cost", "", f"at most {cost}, by the list price of a CPU container", ""))
    return rows


def _what(row: CheckRow) -> str:
    return f"{row.what} ({seconds_in_words(row.seconds)})" if row.seconds >= _TOLD_FROM_S else row.what
