from __future__ import annotations

from typing import Any

import pytest

from comfymodal.runs.totals import extent
from comfymodal.runs.usage import GpuUsage, first_use, gpu_usage
from tests.unit.runs.cost_rows import cost_row, write_costs

T0 = 1_795_000_000.0
GAP_S = 4 * 3600.0


def usage(*rows: dict[str, Any], since: float = 0.0) -> list[GpuUsage]:
    return gpu_usage(write_costs(":memory:", rows), since=since, gap_s=GAP_S)


def test_seconds_and_money_of_each_gpu_the_dearest_first() -> None:
    cheap, dear = usage(
        cost_row(T0 + 1000, gpu_billed="H100", measured=9 * 10**9),
        cost_row(T0),
        cost_row(T0 + 2000, start_s=0.0, lost_s=30.0, measured=630_000_000, idle=None, idle_s=None),
    )[::-1]
    assert (dear.gpu, dear.nanodollars, dear.useful_s) == ("H100", 9_060_000_000, 600.0)
    assert (cheap.gpu, cheap.runs, cheap.useful_s, cheap.paid_s) == ("L40S", 2, 1200.0, 710.0 + 630.0)
    assert cheap.nanodollars == 710_000_000 + 630_000_000


def test_what_failed_is_paid_and_not_useful() -> None:
    (found,) = usage(cost_row(T0), cost_row(T0 + 700, status="failed"), cost_row(T0 + 1400, status="cancelled"))
    assert (found.runs, found.useful_s, found.paid_s) == (3, 600.0, 3 * 710.0)


def test_what_modal_billed_counts_before_what_was_measured() -> None:
    (found,) = usage(cost_row(T0, billed=800_000_000))
    assert found.nanodollars == 800_000_000


@pytest.mark.parametrize(
    "row",
    [cost_row(T0, target="local", gpu_billed=""), cost_row(T0, kind="sync", gpu_billed=""),
     cost_row(T0, status="running"), cost_row(T0 - 10**6)],
    ids=["local", "no GPU", "running", "before"],
)  # fmt: skip
def test_what_is_no_use_of_a_gpu_in_that_time(row: dict[str, Any]) -> None:
    assert usage(row, since=T0 - 100) == []


@pytest.mark.parametrize("missing", ["measured", "run_s"])
def test_what_is_not_known_is_counted_and_in_no_sum(missing: str) -> None:
    (found,) = usage(cost_row(T0), cost_row(T0 + 700, **{missing: None}))
    assert (found.runs, found.unknown, found.useful_s) == (1, 1, 600.0)
    (alone,) = usage(cost_row(T0, **{missing: None}))
    assert (alone.runs, alone.unknown, alone.nanodollars, alone.sessions) == (0, 1, 0, [])


def test_a_long_gap_ends_a_session() -> None:
    day = 86400.0
    (found,) = usage(
        cost_row(T0),
        # Beside the first, and ended before it.
        cost_row(T0 + 100, ended_at=T0 + 200, run_s=100.0, start_s=0.0),
        cost_row(T0 + 3600, status="failed"),
        cost_row(T0 + day, start_s=0.0),
    )
    first, second = found.sessions
    assert (first.span_h * 3600, first.useful_h * 3600) == pytest.approx((50 + 3600 + 600, 700))
    assert (second.span_h * 3600, second.useful_h * 3600) == pytest.approx((600, 600))


def test_when_sums_begin() -> None:
    assert first_use(write_costs(":memory:", [])) is None
    rows = [cost_row(T0), cost_row(T0 - 500, target="local"), cost_row(T0 - 50, gpu_billed="")]
    # What is in no sum, as runs of older releases are, must not stretch the time that the sums are for.
    rows.append(cost_row(T0 - 900, run_s=None))
    assert first_use(write_costs(":memory:", rows)) == T0 - 60


def test_a_clock_that_stood_at_1970_is_no_beginning() -> None:
    rows = [cost_row(T0), cost_row(60.0, run_id="1970"), cost_row(T0 + 5000, run_id="b")]
    connection = write_costs(":memory:", rows)
    assert first_use(connection) == T0 - 60
    assert extent(connection, since=None, now=T0 + 9999).first_at == T0 - 60
