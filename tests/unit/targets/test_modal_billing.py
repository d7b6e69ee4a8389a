from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from comfymodal.targets.modal.billing import CALLS_SPAN_S, _call, _spans, nanodollars


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.5", 1_500_000_000), ("0E-8", 0), ("-0E-8", 0), ("-0.25", -250_000_000), ("0.0000000004", 0)]
    + [(junk, None) for junk in ("NaN", "sNaN", "Infinity", "1e999999")],
)
def test_amounts_are_whole_nanodollars_or_unknown(text: str, expected: int | None) -> None:
    assert nanodollars(Decimal(text)) == expected


def test_a_long_range_is_asked_for_in_parts_that_modal_takes() -> None:
    assert list(_spans(10.7, 10.7)) == [(10, 11)]
    assert list(_spans(20, 10)) == []
    parts = list(_spans(0.5, 2 * CALLS_SPAN_S + 0.5))
    assert parts == [(0, CALLS_SPAN_S), (CALLS_SPAN_S, 2 * CALLS_SPAN_S), (2 * CALLS_SPAN_S, 2 * CALLS_SPAN_S + 1)]


def test_a_call_that_waits_says_what_is_known() -> None:
    row = {"function_call_id": "fc-1", "status": "pending", "enqueued_at": "2026-11-21T12:00:00.250Z"}
    call = _call("app", "carry", {**row, "started_at": None, "container_id": None})
    assert call.created_at == datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()
    assert (call.started_at, call.container_id, call.execution_s, call.ended_at) == (None, None, None, None)
    done = _call("app", "carry", {**row, "started_at": "2026-11-21T12:00:01Z", "execution_time_seconds": 2.5})
    assert done.ended_at == datetime(2026, 11, 21, 12, 0, 3, 500_000, tzinfo=UTC).timestamp()
