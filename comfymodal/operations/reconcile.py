"""`comfymodal costs reconcile`: what was measured beside what Modal says, and what follows for each run.

Where Modal shows its bill, each hour's is shared among the runs of that hour. Where it does not (not every plan has
it), its call history tells what containers did: runs that nobody saw end get their seconds from there, and gaps their
length. What was estimated and measured stays as it was.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from comfymodal.costs.rates import money_json
from comfymodal.costs.reconcile import HOUR_S, PROVISIONAL_S, HourOfApp, Reconciled, Stretch, reconcile
from comfymodal.errors import BillingUnavailableError, ComfymodalError, PartialError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.news import telling
from comfymodal.operations.reconcile_results import HourView, MonthView, Reconciliation
from comfymodal.operations.refresh import refresh
from comfymodal.operations.views import iso_time
from comfymodal.runs.bills import CallSpan, Paid
from comfymodal.targets.billing import BilledRow, Billing, CallRow
from comfymodal.targets.modal.names import app_kind, app_name, app_names

_EARLIER_S = 24 * 3600.0
"""A run may have begun that long before the first hour that is looked at."""


def reconcile_costs(context: Context, desk: Desk, *, since: float, now: float | None = None) -> Reconciliation:
    """Match the runs from `since` on (Unix seconds, rounded down to the hour) with what Modal says of them.

    Raises `UsageError` for a project that runs here, `NotReadyError` without a token, `ServiceError`.
    """
    now = time.time() if now is None else now
    since = since // HOUR_S * HOUR_S
    billing = context.billing()
    _settle_what_ended(context, desk)
    try:
        rows = billing.report(since, now)
    except BillingUnavailableError as exc:
        desk.warn(f"{exc.message}; Modal's call history is used instead")
        return _from_calls(billing, context, since, now)
    found = _matched(rows, context, since, now)
    context.ledger.note_bills({run: (bill.billed, bill.status) for run, bill in found.runs.items()})
    return _told(found, since, now, month=_month(billing, context, now))


def _settle_what_ended(context: Context, desk: Desk) -> None:
    with telling(context, desk):
        for run in context.ledger.with_reservation():
            try:
                refresh(run, context)
            except ComfymodalError as exc:
                desk.warn(f"cannot ask how run {run.id} is: {exc.message}")


def _matched(rows: Sequence[BilledRow], context: Context, since: float, now: float) -> Reconciled:
    project = context.project.project
    billed: dict[tuple[str, int], int | None] = {}
    for row in rows:
        if row.description not in app_names(project) or not _is_here(row, context):
            continue
        place = (row.description, int(row.interval_start))
        before = billed.get(place, 0)
        billed[place] = None if row.cost is None or before is None else before + row.cost
    paid = context.ledger.paid_since(since - _EARLIER_S)
    stretches = [stretch for each in paid for stretch in _stretches(each, project, since)]
    # A run that began before the first hour has a part of its bill in hours that were not asked for.
    found = reconcile(stretches, billed, now=now, known_until=now)
    whole = {each.run_id for each in paid if each.begin >= since}
    return replace(found, runs={run: bill for run, bill in found.runs.items() if run in whole})


def _is_here(row: BilledRow, context: Context) -> bool:
    wanted = context.project.modal.environment
    return wanted is None or row.environment in ("", wanted)


def _stretches(paid: Paid, project: str, since: float) -> list[Stretch]:
    begin = max(paid.begin, since)
    if begin >= paid.end:
        return []
    return [Stretch(paid.run_id, app_name(project, app_kind(paid.kind)), begin, paid.end, paid.nanodollars_per_s)]


def _from_calls(billing: Billing, context: Context, since: float, now: float) -> Reconciliation:
    """Without a bill: runs that nobody saw end, and gaps between calls, from Modal's call history."""
    calls = billing.calls(since, now)
    by_call: dict[str, list[CallRow]] = {}
    for call in calls:
        by_call.setdefault(call.call_id, []).append(call)
    context.ledger.note_calls(_spans(by_call))
    starts: dict[str, list[float]] = {}
    for call in calls:
        if call.container_id and call.started_at is not None:
            starts.setdefault(call.container_id, []).append(call.started_at)
    context.ledger.note_next_calls(starts, now=now)
    found = _matched((), context, since, math.inf)
    unknown = {run: (None, "unavailable") for run in found.runs}
    context.ledger.note_bills(unknown)
    hours = tuple(replace(hour, status="no_rows") for hour in found.hours)
    told = _told(Reconciled(hours, {}), since, now, month=None)
    return replace(told, source="calls", statuses={"unavailable": len(unknown)}, exit_code=0)


def _spans(by_call: Mapping[str, Sequence[CallRow]]) -> dict[str, CallSpan]:
    """By call id, of calls that are over. Containers that a run was lost in have rows of their own."""
    found = {}
    for call_id, rows in by_call.items():
        ended = [row for row in rows if row.ended_at is not None]
        if ended and len(ended) == len(rows):
            last = max(ended, key=lambda row: row.ended_at or 0.0)
            paid_s = sum((row.execution_s or 0.0) + (row.startup_s or 0.0) for row in ended)
            started_at, run_s, start_s = last.started_at or 0.0, last.execution_s or 0.0, last.startup_s or 0.0
            lost_s = max(0.0, paid_s - run_s - start_s)
            found[call_id] = CallSpan(last.container_id or "", started_at, run_s, start_s, lost_s)
    return found


def _month(billing: Billing, context: Context, now: float) -> MonthView | None:
    """What the whole workspace was billed this month, beside what this ledger measured of it."""
    with contextlib.suppress(BillingUnavailableError):
        told = billing.summary()
        apps = [told.by_kind.get(name) for name in ("deployed_apps", "ephemeral_apps")]
        start = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return MonthView(
            month=f"{start:%Y-%m}",
            metered=money_json(told.metered),
            billed=money_json(told.billed),
            of_apps=money_json(sum(apps) if None not in apps else None),  # type: ignore[arg-type]
            of_ledger=money_json(context.ledger.measured_since(start.timestamp())),
        )
    return None


def _told(found: Reconciled, since: float, now: float, *, month: MonthView | None) -> Reconciliation:
    statuses: dict[str, int] = {}
    for bill in found.runs.values():
        statuses[bill.status] = statuses.get(bill.status, 0) + 1
    own = [hour for hour in found.hours if hour.status != "unattributed"]
    known = [hour.billed for hour in own if hour.billed is not None]
    return Reconciliation(
        since=iso_time(since),
        until=iso_time(now),
        source="bill",
        hours=tuple(_hour(hour) for hour in found.hours),
        statuses=statuses,
        measured=money_json(sum(hour.measured for hour in own)),
        billed=money_json(sum(known)) if known else None,
        unattributed=money_json(found.unattributed),
        provisional_hours=PROVISIONAL_S / 3600,
        month=month,
        exit_code=PartialError.exit_code if "drift" in statuses else 0,
    )


def _hour(hour: HourOfApp) -> HourView:
    return HourView(
        hour=iso_time(hour.hour),
        app=hour.app,
        runs=hour.runs,
        measured=money_json(hour.measured),
        billed=money_json(hour.billed),
        difference=money_json(hour.difference),
        status=hour.status,
    )
