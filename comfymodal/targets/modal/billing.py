"""What Modal tells about money, through its SDK; its call history through its command line, the only door to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, DecimalException
from typing import Any

import modal
import modal.exception as me

from comfymodal.errors import BillingUnavailableError, ServiceError
from comfymodal.targets.billing import BilledMonth, BilledRow, CallRow
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.fleet import find_app
from comfymodal.targets.modal.modal_cli import ask_modal
from comfymodal.targets.modal.names import (
    CARRY_FUNCTION,
    INSPECT_FUNCTION,
    KEEP_WARM_FUNCTION,
    LIST_MOUNTS_FUNCTION,
    TRAIN_FUNCTION,
    app_name,
    render_class,
)
from comfymodal.targets.modal.session import connect
from comfymodal.targets.spec import ModalSpec

HOUR_S = 3600
CALLS_SPAN_S = 7 * 24 * 3600
"""`modal function calls` takes no longer range at once."""

_READERS = 4
_NANO = 10**9

# Which of them a plan without billing gets is not documented: whatever says "not you", and nothing that says "not now".
_CLOSED = (me.PermissionDeniedError, me.InvalidError, me.UnimplementedError)


@dataclass(slots=True)
class ModalBilling:
    """Fulfils `targets.billing.Billing`. Raises as that says, and `NotReadyError` without a token."""

    spec: ModalSpec
    _workspace: modal.Workspace | None = field(default=None, init=False)

    def workspace(self) -> str:
        with translated("cannot ask for the workspace"):
            found = self._opened()
            found.hydrate()
            return str(found.name)

    def rates(self) -> Mapping[str, Decimal]:
        with _asking("cannot read this workspace's prices"):
            return dict(self._opened().billing.rates().items())

    def report(self, start: float, end: float) -> list[BilledRow]:
        with _asking("cannot read Modal's billing report"):
            found = self._opened().billing.report(
                start=_moment(start // HOUR_S * HOUR_S),
                # Modal leaves out an hour that is not over by then.
                end=_moment(-(-end // HOUR_S) * HOUR_S),
                resolution="h",
                tag_names=["*"],
            )
            return [_row(item) for item in found]

    def summary(self, month: str | None = None) -> BilledMonth:
        with _asking("cannot read Modal's bill"):
            found = self._opened().billing.summary(month)
            return BilledMonth(
                start=found.start.timestamp(),
                metered=nanodollars(found.metered_cost),
                billed=nanodollars(found.billed_cost),
                by_kind={str(key): nanodollars(value) for key, value in found.metered_cost_breakdown.items()},
                adjustments={str(key): nanodollars(value) for key, value in found.adjustments.items()},
            )

    def calls(self, since: float, until: float) -> list[CallRow]:
        self._opened()
        spans = list(_spans(since, until))
        with ThreadPoolExecutor(_READERS) as pool:
            asked = [pool.submit(self._calls, *which, span) for which in self._functions() for span in spans]
            rows = [row for one in asked for row in one.result()]
        return sorted(rows, key=lambda row: row.created_at or 0.0)

    def _opened(self) -> modal.Workspace:
        if self._workspace is None:
            connect(self.spec.workspace)
            self._workspace = modal.Workspace.from_context()
        return self._workspace

    def _functions(self) -> list[tuple[str, str]]:
        """App and function of all that the project may have deployed and that is deployed."""
        spec = self.spec
        classes = [f"{render_class(snapshot)}.*" for snapshot in ("off", "cpu")]
        wanted = {
            "render": [*classes, INSPECT_FUNCTION, KEEP_WARM_FUNCTION, LIST_MOUNTS_FUNCTION],
            "sync": [CARRY_FUNCTION],
            "train": [TRAIN_FUNCTION],
        }
        found = []
        for kind, names in wanted.items():
            name = app_name(spec.project, kind)
            if find_app(name, spec.environment) is not None:
                found += [(name, function) for function in names if self._is_there(name, function)]
        return found

    def _is_there(self, app: str, function: str) -> bool:
        with translated(f"cannot look up {app}/{function}"):
            try:
                # The SDK takes `Class.*` for no function's name; its command line wants exactly that.
                kind = modal.Cls if function.endswith(".*") else modal.Function
                kind.from_name(app, function.removesuffix(".*"), environment_name=self.spec.environment).hydrate()
            except me.NotFoundError:
                return False
            return True

    def _calls(self, app: str, function: str, span: tuple[int, int]) -> list[CallRow]:
        words = ["function", "calls", f"{app}/{function}", "--all-variants"]
        words += ["--since", _moment(span[0]).isoformat(), "--until", _moment(span[1]).isoformat()]
        return [_call(app, function, row) for row in ask_modal(words, environment=self.spec.environment)]


def nanodollars(amount: Decimal) -> int | None:
    """Negative amounts are adjustments and stay; None for what is no number."""
    if not amount.is_finite() or abs(amount) >= 10**12:
        return None
    return int((amount * _NANO).to_integral_value(ROUND_HALF_UP))


@contextlib.contextmanager
def _asking(doing: str) -> Iterator[None]:
    with translated(doing):
        try:
            yield
        except _CLOSED as exc:
            raise BillingUnavailableError(
                f"{doing}: Modal does not open it to this token or plan: {str(exc).strip() or type(exc).__name__}",
                hint="runs are still measured here: comfymodal costs",
            ) from exc
        except DecimalException as exc:
            # The SDK takes a whole answer or none of it.
            raise ServiceError(
                f"{doing}: one of its amounts is no number", hint="the same command may work later"
            ) from exc


def _row(item: modal.types.BillingReportItem) -> BilledRow:
    return BilledRow(
        object_id=item.object_id,
        description=item.description,
        environment=item.environment_name,
        interval_start=item.interval_start.timestamp(),
        cost=nanodollars(item.cost),
        by_resource={name: nanodollars(cost) for name, cost in item.cost_by_resource.items()},
        tags=item.tags,
    )


def _call(app: str, function: str, row: Mapping[str, Any]) -> CallRow:
    """From a row of `modal function calls --json`."""
    return CallRow(
        app=app,
        function=function,
        call_id=str(row["function_call_id"]),
        container_id=row.get("container_id"),
        status=str(row.get("status")),
        created_at=_time(row.get("enqueued_at")),
        started_at=_time(row.get("started_at")),
        startup_s=_optional(row.get("startup_time_seconds"), float),
        execution_s=_optional(row.get("execution_time_seconds"), float),
    )


def _spans(since: float, until: float) -> Iterator[tuple[int, int]]:
    """The range in whole seconds, in parts that may be asked for."""
    begin, last = int(since), -int(-until // 1)
    while begin < last:
        yield begin, min(begin + CALLS_SPAN_S, last)
        begin += CALLS_SPAN_S


def _moment(at: float) -> datetime:
    # The SDK refuses every other time zone, also another one of UTC.
    return datetime.fromtimestamp(at, UTC)


def _time(text: Any) -> float | None:
    return _optional(text, lambda given: datetime.fromisoformat(str(given)).timestamp())


def _optional(value: Any, read: Callable[[Any], float]) -> float | None:
    return None if value is None else read(value)
