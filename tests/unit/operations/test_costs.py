from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotReadyError, OutputFolderError
from comfymodal.operations.books import open_books
from comfymodal.operations.costs import CostsWish, costs_page, costs_report, write_page
from comfymodal.operations.costs_results import BudgetView, CostsReport, OthersView, ShareView, UnitView
from comfymodal.runs.totals import GROUPINGS
from tests.unit.runs.cost_rows import DAY_S, NOON, fill
from tests.unit.runs.test_totals import mixed_rows

NOW = float(NOON)
MODAL = "version: 1\nproject: demo\ntarget: modal\n"


class Desk:
    """A project with a ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"COMFYMODAL_STATE_DIR": str(folder / "state")}
        self.ledger = folder / "state" / "projects" / "demo" / "ledger.sqlite"
        self.write(MODAL)

    def write(self, project: str) -> None:
        (self.folder / "comfymodal.yaml").write_text(project)

    def fill(self, *rows: Mapping[str, Any], reserved: Mapping[str, int] | None = None) -> None:
        fill(self.ledger, [{"run_id": f"r-{number}", **row} for number, row in enumerate(rows)], reserved)

    def report(self, wish: CostsWish, **more: Any) -> CostsReport:
        books = open_books(None, environ=self.environ, cwd=self.folder)
        try:
            return costs_report(wish, books, now=NOW, **more)
        finally:
            books.ledger.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


ALL = CostsWish(None)


def test_an_estimate_what_was_measured_and_what_was_billed_stand_side_by_side(desk: Desk) -> None:
    desk.fill(
        {"typical": 60_000_000, "measured": 40_000_000, "idle": 8_000_000, "billed": 50_000_000},
        {"typical": None, "measured": 1, "idle": 0, "billed": None},
        {"typical": 9, "status": "running", "measured": None, "idle": None},
        reserved={"r-2": 300_000_000},
    )

    total = desk.report(ALL).total

    assert (total.estimate, total.estimated_runs, total.estimated_total) == ("0.06", 1, "0.05")
    assert (total.measured, total.idle, total.billed, total.billed_runs) == ("0.040000001", "0.008", "0.05", 1)
    assert (total.total, total.drift) == ("0.050000001", "0.002")
    assert (total.runs, total.active_runs, total.unknown_runs, total.reserved) == (3, 1, 0, "0.3")


def test_what_is_not_known_is_never_nothing(desk: Desk) -> None:
    desk.fill({"measured": None, "idle": None, "typical": None}, {"measured": 5, "idle": None})

    report = desk.report(CostsWish(None, "run"))
    unknown, known = sorted(report.groups, key=lambda group: group.sums.total or "")

    assert unknown.sums.unknown_runs == 1
    assert (unknown.sums.measured, unknown.sums.idle, unknown.sums.billed, unknown.sums.total) == (None,) * 4
    assert (known.sums.measured, known.sums.idle, known.sums.total) == ("0.000000005", None, "0.000000005")
    assert report.notices == (
        "what 1 run that ended cost is not known: no sum has it",
        "how long the container idled after 1 run is not known: no sum has it",
    )


def test_runs_of_this_machine_cost_nothing_and_say_so(desk: Desk) -> None:
    desk.fill({"target": "local", "gpu_billed": "", "measured": 0, "idle": 0, "typical": None})

    report = desk.report(CostsWish(None, "gpu"))

    assert [(group.key, group.sums.total, group.share) for group in report.groups] == [("this machine", "0", None)]
    assert (report.local_runs, report.per_image, report.failed_share) == (1, None, None)


def test_an_image_costs_its_share_of_the_failures(desk: Desk) -> None:
    desk.fill(
        {"billed": 30, "outputs": 2},
        {"billed": 10, "outputs": 0, "status": "failed"},
        {"measured": None, "idle": None, "outputs": 50},
        {"target": "local", "measured": 0, "idle": 0, "outputs": 50},
        {"kind": "train", "billed": 500, "status": "interrupted", "outputs": 3},
        {"kind": "train", "billed": 700, "outputs": 3},
    )

    report = desk.report(ALL)

    assert report.per_image == UnitView(2, "0.00000004", "0.00000002")
    assert report.per_lora == UnitView(1, "0.0000012", "0.0000012")
    assert report.failed_share == pytest.approx(510 / 1240)


@pytest.mark.parametrize("by", GROUPINGS)
def test_rows_sum_up_to_the_total_in_dollars_too(by: Any, desk: Desk) -> None:
    fill(desk.ledger, mixed_rows(7), {"r-001": 5})
    report = desk.report(CostsWish(None, by, top=3))
    rows = [group.sums for group in report.groups] + ([report.others.sums] if report.others else [])

    for name in ("estimate", "estimated_total", "measured", "idle", "billed", "drift", "total", "failed", "reserved"):
        assert sum(Decimal(getattr(row, name) or 0) for row in rows) == Decimal(getattr(report.total, name) or 0), name
    for name in ("runs", "active_runs", "outputs", "estimated_runs", "billed_runs", "unknown_runs", "failed_runs"):
        assert sum(getattr(row, name) for row in rows) == getattr(report.total, name), name
    assert sum(group.share or 0 for group in report.groups) + ((report.others and report.others.share) or 0) == (
        pytest.approx(1.0)
    )


def test_many_rows_are_folded_unless_they_are_days(desk: Desk) -> None:
    desk.fill(*({"created_at": NOW - number * DAY_S, "workflow": f"w{number}"} for number in range(30)))

    days, workflows = desk.report(ALL), desk.report(CostsWish(None, "workflow"))

    assert (len(days.groups), days.others) == (30, None)
    assert len(workflows.groups) == 20
    assert isinstance(workflows.others, OthersView)
    assert workflows.others.groups == 10


def test_no_ledger_gives_an_empty_report(desk: Desk) -> None:
    for by in GROUPINGS:
        report = desk.report(CostsWish(None, by))

        assert (report.runs_ever, report.groups, report.total.total, report.forecast) == (0, (), None, None)
        assert report.notices == ()


def test_today_is_told_whatever_the_period(desk: Desk) -> None:
    desk.fill(
        {"created_at": NOW - 60, "billed": 7},
        {"created_at": NOW - 30, "status": "running", "measured": None, "idle": None},
        {"created_at": NOW - DAY_S, "billed": 900},
        reserved={"r-1": 11},
    )

    today = desk.report(CostsWish(NOW - 1)).today

    assert (today.spent, today.runs, today.reserved) == ("0.000000007", 2, "0.000000011")


def test_three_complete_days_give_a_forecast(desk: Desk) -> None:
    # The fourth of October; the first run is of the last day of September.
    rows = [{"created_at": NOW - number * DAY_S, "billed": 10**9} for number in range(5)]
    desk.fill(*rows[1:4])
    assert desk.report(ALL).forecast is None
    fill(desk.ledger, [{"run_id": "first", **rows[4]}])

    ahead = desk.report(CostsWish(NOW - 1)).forecast

    assert ahead is not None
    assert (ahead.month, ahead.complete_days, ahead.so_far, ahead.typical) == ("2024-10", 3, "3", "31")


def test_containers_that_are_kept_up_are_said_and_forecast(desk: Desk) -> None:
    desk.write(MODAL + "comfyui: {min_containers: 1, gpu: L40S}\n")
    desk.fill(*({"created_at": NOW - number * DAY_S, "billed": 10**9} for number in range(5)))

    report = desk.report(ALL)

    # $2.3956 an hour (facts of the design), 27.5 days to go.
    assert report.notices[0].startswith("comfyui.min_containers costs $57.49 a day")
    assert report.forecast is not None
    assert Decimal(report.forecast.fixed) == pytest.approx(Decimal("57.494016") * Decimal("27.5"))


def test_a_clock_that_was_wrong_is_told(desk: Desk) -> None:
    desk.fill({"created_at": NOW + 5000, "ended_at": NOW + 6000}, {"ended_at": NOW - DAY_S}, {"created_at": 1e18})

    report = desk.report(CostsWish(None, "run"))

    assert [notice.partition(" a clock")[0] for notice in report.notices] == ["of 2 runs", "of 2 runs"]
    assert {group.run.created_at for group in report.groups if group.run} >= {None}


def test_storage_has_unit_prices_and_no_sum(desk: Desk) -> None:
    desk.write(
        MODAL + "remotes:\n  store: {type: b2, bucket: mine}\n"
        "  other: {type: s3, bucket: its, endpoint: 'https://minio.example.org'}\n"
    )

    volumes, backblaze, other = desk.report(ALL).storage

    assert volumes.price == "$0.09 per GiB and month above the workspace's first 1 TiB"
    assert str(backblaze.price).startswith("$6.95 per TB and month above 10 GB")
    assert (other.name, other.price, other.as_of) == ("bucket other", None, None)


def test_budgets_are_shown_as_they_are_given(desk: Desk) -> None:
    budget = BudgetView("today", "costs.daily_usd", "10", "1", "0.5", "8.5")

    assert desk.report(ALL, budgets=[budget]).budgets == (budget,)


def test_a_ledger_from_a_newer_version_is_refused(desk: Desk) -> None:
    import sqlite3

    desk.fill({})
    connection = sqlite3.connect(desk.ledger)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(NotReadyError, match="newer comfymodal"):
        desk.report(ALL)


def test_the_page_draws_every_day_that_a_calendar_of_ours_has(desk: Desk) -> None:
    desk.fill(
        {"created_at": NOW - DAY_S, "billed": 10**9},
        {"created_at": NOW - DAY_S, "kind": "train", "billed": 2 * 10**9},
        {"created_at": -1e18, "billed": 10**9},
        {"created_at": NOW + 40 * DAY_S, "billed": 10**9},
    )
    books = open_books(None, environ=desk.environ, cwd=desk.folder)
    report = costs_report(ALL, books, now=NOW)
    found = costs_page(report, books, since=None, now=NOW)
    books.ledger.close()

    yesterday = datetime.fromtimestamp(NOW - DAY_S, UTC).date().isoformat()
    assert [(day.day, day.spent) for day in found.days] == [(yesterday, {"render": "1", "train": "2"})]
    assert found.days_outside == 2
    assert found.gpus == (ShareView("L40S", "5", 1.0),)


def test_the_page_folds_what_is_cheap(desk: Desk) -> None:
    desk.fill(*({"workflow": f"w{number}", "billed": 10 - number} for number in range(10)))
    books = open_books(None, environ=desk.environ, cwd=desk.folder)
    found = costs_page(costs_report(ALL, books, now=NOW), books, since=None, now=NOW)
    books.ledger.close()

    assert [share.key for share in found.workflows[:2]] == ["w0", "w1"]
    assert found.workflows[8] == ShareView("2 others", "0.000000003", 3 / 55)


def test_a_page_is_written_whole_or_not_at_all(desk: Desk) -> None:
    report = desk.report(ALL)

    written = write_page(report, "<html>", desk.folder / "new" / "page.html")
    assert (written.page, (desk.folder / "new" / "page.html").read_text()) == (
        str(desk.folder / "new" / "page.html"),
        "<html>",
    )
    with pytest.raises(OutputFolderError, match="cannot write"):
        write_page(report, "<html>", desk.folder / "comfymodal.yaml" / "page.html")
