"""The runs of a sweep: on Modal side by side, each in a container of its own; on this machine one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from comfymodal.errors import CancelledError, ComfymodalError, StillRunningError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.follow import follow, submit
from comfymodal.operations.money import Price
from comfymodal.operations.train_end import TrainEnding
from comfymodal.operations.train_results import SweepReport, TrainReport
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run

_ENDING = TrainEnding()


@dataclass(frozen=True, slots=True)
class Reserved:
    """A run that is priced; without a price it costs nothing."""

    run: Run
    price: Price | None


def run_sweep(runs: Sequence[Reserved], waiting: Waiting, context: Context, desk: Desk) -> SweepReport:
    """Train them all and follow each to its end; one that fails keeps no other from it. Ctrl-C stops them all."""
    is_together = context.target.name == "modal"
    if waiting.is_detached and not is_together:
        raise UsageError("--detach with a sweep is for Modal: here its runs take turns", hint="--target modal")
    if is_together:
        begun = [_begin(each, context, desk) for each in runs]
        if waiting.is_detached:
            return SweepReport(tuple(_ENDING.report(each.run) for each in begun), None, 0)
        runs = begun
    ends_at = None if waiting.wait_s is None else time.monotonic() + waiting.wait_s
    done: list[TrainReport] = []
    for number, each in enumerate(runs, 1):
        run = each.run
        desk.event({"type": "sweep", "number": number, "of": len(runs), "name": run.title, "run_id": run.id})
        left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        try:
            done.append(_finish(each, replace(waiting, wait_s=left), context, desk))
        except CancelledError:
            _stop(runs[number:], context, desk)
            raise
        if done[-1].exit_code == CancelledError.exit_code:
            _stop(runs[number:], context, desk)
            break
    failed = [report for report in done if report.exit_code]
    return SweepReport(tuple(done), failed[0].error if failed else None, _exit_code(done))


def _begin(each: Reserved, context: Context, desk: Desk) -> Reserved:
    submit(each.run, context, desk, _ENDING, waiting=Waiting(is_detached=True), price=each.price)
    return replace(each, run=context.ledger.get(each.run.id))


def _finish(each: Reserved, waiting: Waiting, context: Context, desk: Desk) -> TrainReport:
    try:
        if each.run.call_id is None:
            return submit(each.run, context, desk, _ENDING, waiting=waiting, price=each.price)
        return follow(each.run, context, desk, _ENDING, waiting=waiting)
    except (CancelledError, StillRunningError):
        raise
    except ComfymodalError as exc:
        report = _ENDING.report(context.ledger.get(each.run.id))
        return replace(report, error=exc.to_dict(), exit_code=exc.exit_code)


def _stop(rest: Sequence[Reserved], context: Context, desk: Desk) -> None:
    begun = [each.run for each in rest if each.run.call_id is not None]
    for run in begun:
        context.target.cancel(run.id, run.call_id or "")
    if begun:
        desk.warn(f"these save and stop by themselves: {', '.join(run.id for run in begun)}")
    if not_begun := [each.run.title for each in rest if each.run.call_id is None]:
        desk.warn(f"not begun: {', '.join(not_begun)}")


def _exit_code(done: Sequence[TrainReport]) -> int:
    codes = {report.exit_code for report in done}
    if CancelledError.exit_code in codes:
        return CancelledError.exit_code
    # Some came to their end and some did not.
    return 6 if 0 in codes and len(codes) > 1 else max(codes)
