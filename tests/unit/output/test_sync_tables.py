from __future__ import annotations

from typing import Any, cast

import pytest

from comfymodal.operations.results import RunView
from comfymodal.operations.sync_results import ErrandReport, PairView, PathView, SyncReport
from comfymodal.output.sync_tables import sync_errors, sync_lines, sync_table
from comfymodal.output.tables import details_of, summary_of, table_of
from tests.unit.output.result_samples import run_report, run_view

RUN = run_view(kind="sync", title="sync models", phases={"copy": 5.0})


def pair(**more: Any) -> PairView:
    given: dict[str, Any] = {
        "name": "models",
        "from": "store:comfy",
        "to": "models:/",
        "here": "models:/",
        "there": "store:comfy",
        "direction": "pull",
        "mode": "run",
        "status": "succeeded",
        "run": RUN,
        "files": {"here": 20, "there": 21},
        "counts": {"new": 2, "changed": 1, "same": 17, "adopt": 1},
        "copy_files": 3,
        "copy_bytes": 12_400_000_000,
        "copied_files": 3,
        "copied_bytes": 12_400_000_000,
        "seconds": 59.0,
        "bytes_per_s": 210_000_000,
        "eta_s": None,
        "is_in_step": True,
        "cost": None,
        "notices": [],
        "paths_left_out": 0,
        "error": None,
        "exit_code": 0,
    }
    return cast("PairView", {**given, **more})


def path(name: str, action: str = "new", **more: Any) -> PathView:
    given: dict[str, Any] = {
        "pair": "models",
        "path": name,
        "action": action,
        "result": "copied",
        "size_bytes": 1_000,
        "why": "because",
        "verified": None,
        "direction": "pull",
        "keep_as": None,
    }
    return cast("PathView", {**given, **more})


def report(*paths: PathView, pairs: tuple[PairView, ...] | None = None, run: RunView | None = RUN) -> SyncReport:
    return SyncReport(run, pairs or (pair(),), paths, None, 0)


def planned(**more: Any) -> PairView:
    return pair(mode="plan", copied_files=0, copied_bytes=0, is_in_step=False, **more)


IN_CONFLICT = path("c", "conflict", result="conflict", direction=None)


@pytest.mark.parametrize(
    ("view", "line"),
    [
        pytest.param(pair(), "models: 3 copied (12.4 GB, 210 MB/s), 18 in step", id="copied"),
        pytest.param(pair(counts={"same": 18}, copy_files=0, copied_files=0), "models: 18 in step", id="nothing to do"),
        pytest.param(pair(counts={}, copy_files=0, copied_files=0), "models: nothing to do", id="nothing there at all"),
        pytest.param(
            pair(copied_bytes=900, counts={"new": 3}), "models: 3 copied (900 B)", id="too little to tell a speed"
        ),
        pytest.param(
            pair(status="partial", counts={"new": 3, "conflict": 1}, exit_code=6),
            "models: 3 copied (12.4 GB, 210 MB/s), 1 in conflict; "
            "next: comfymodal sync models --prefer here|there|both",
            id="a conflict",
        ),
        pytest.param(
            pair(status="partial", copied_files=2, counts={"new": 3}),
            "models: 2 copied (12.4 GB, 210 MB/s), 1 not copied; next: comfymodal sync models",
            id="one failed",
        ),
        pytest.param(
            pair(status="cancelled", copied_files=1, counts={"new": 3}, is_in_step=False),
            "models: stopped; 1 copied (12.4 GB, 210 MB/s), 2 not copied; next: comfymodal sync models",
            id="stopped",
        ),
        pytest.param(pair(mode="status", counts={"same": 20}), "models: in step (20 files here)", id="status: in step"),
        pytest.param(
            pair(mode="status", is_in_step=False, counts={"new": 4, "only_here": 1}),
            "models: not in step, 4 new, 1 only here; next: comfymodal sync models --dry-run",
            id="status: not in step",
        ),
        pytest.param(
            planned(eta_s=61.0),
            "models: 3 to copy (12.4 GB, about 1:01 min by earlier syncs), 18 in step, 2 new, 1 changed; "
            "next: comfymodal sync models",
            id="a plan",
        ),
        pytest.param(
            planned(counts={"delete_there": 2}, copy_files=0),
            "models: 2 to delete there; next: comfymodal sync models --delete",
            id="a plan that deletes",
        ),
        pytest.param(
            pair(status="running", is_in_step=None),
            f"models: run {RUN.id} goes on; watch it: comfymodal runs attach {RUN.id}",
            id="it goes on",
        ),
        pytest.param(
            pair(**{"name": "store:a b -> models:/", "from": "store:a b"}, status="partial", counts={"conflict": 1}),
            "store:a b -> models:/: 3 copied (12.4 GB, 210 MB/s), 1 in conflict; "
            "next: comfymodal sync 'store:a b' models:/ --prefer here|there|both",
            id="two places that were typed",
        ),
    ],
)
def test_a_pair_is_one_line(view: PairView, line: str) -> None:
    assert sync_lines(report(pairs=(view,))) == [line]


def test_a_pair_that_was_never_compared_has_no_line() -> None:
    assert sync_lines(report(pairs=(pair(status="failed", is_in_step=None),))) == []


def test_a_plan_says_what_it_costs() -> None:
    lines = sync_lines(report(pairs=(planned(cost={"lines": ["Modal: about $0.01", "free"]}),)))
    assert lines[1:] == ["  Modal: about $0.01", "  free"]
    assert "how long is not known" in lines[0]


def test_deletions_are_counted_by_what_happened() -> None:
    gone = path("x", "delete_here", result="deleted", direction=None)
    view = pair(counts={"delete_here": 1, "same": 2}, copy_files=0, copied_files=0)
    assert sync_lines(report(gone, pairs=(view,))) == ["models: 1 moved to the trash, 2 in step"]


def test_what_needs_somebody_comes_last_and_what_is_in_step_not_at_all() -> None:
    failed = path("b", result="failed", why="connection cut")
    found = sync_table(
        report(IN_CONFLICT, failed, path("a"), path("s", "same", result="same"), path("o", "only_here", result=None)),
        limit=None,
        is_verbose=False,
    )
    assert found == (
        ("path", "is", "size", "why"),
        [
            ("a", "copied", "1.0 kB", ""),
            ("b", "failed", "1.0 kB", "connection cut"),
            ("c", "conflict", "1.0 kB", "because"),
        ],
    )


def test_verbose_shows_every_path() -> None:
    paths = (path("s", "same", result="same", direction=None), path("o", "only_here", result="skipped", direction=None))
    found = sync_table(report(*paths), limit=None, is_verbose=True)
    assert found is not None
    assert [row[:2] for row in found[1]] == [("o", "only here"), ("s", "same")]


def test_a_plan_shows_also_what_it_would_leave_alone() -> None:
    paths = (path("o", "only_here", result=None, direction=None), path("n", result=None))
    found = sync_table(report(*paths, pairs=(planned(),)), limit=None, is_verbose=False)
    assert found is not None
    assert found[1] == [("n", "new", "1.0 kB", "because"), ("o", "only here", "1.0 kB", "because")]


def test_a_terminal_gets_the_most_urgent_and_how_many_more_there_are() -> None:
    many = [path(f"f{number:03}") for number in range(60)]
    found = sync_table(report(*many, IN_CONFLICT), limit=50, is_verbose=False)
    assert found is not None
    rows = found[1]
    assert (len(rows), rows[0][0], rows[1][0], rows[-1][0]) == (51, "... and 11 more", "f011", "c")


def test_what_the_ledger_did_not_keep_is_counted_too() -> None:
    found = sync_table(report(path("a"), pairs=(pair(paths_left_out=7),)), limit=50, is_verbose=False)
    assert found is not None
    assert [row[0] for row in found[1]] == ["... and 7 more", "a"]


@pytest.mark.parametrize(
    ("view", "found", "row"),
    [
        pytest.param(
            {}, {"verified": False}, ("copied", "not verified: the other side tells no hash"), id="unverified"
        ),
        pytest.param({}, {"action": "changed"}, ("copied", "because"), id="replaced"),
        pytest.param(
            {"direction": "both"},
            {"action": "changed", "direction": "push"},
            ("copied, to there", "because"),
            id="push",
        ),
        pytest.param(
            {"direction": "both", "mode": "plan"}, {"result": None}, ("new, to here", "because"), id="planned"
        ),
        pytest.param(
            {}, {"keep_as": "a.conflict"}, ("copied", "because; the other one is kept as a.conflict"), id="both kept"
        ),
        pytest.param({"status": "cancelled"}, {"result": "failed"}, ("not copied", ""), id="stopped before it"),
    ],
)
def test_a_path_says_what_it_is_and_why(view: dict[str, Any], found: dict[str, Any], row: tuple[str, str]) -> None:
    table = sync_table(report(path("a", **found), pairs=(pair(**view),)), limit=None, is_verbose=False)
    assert table is not None
    assert (table[1][0][1], table[1][0][3]) == row


def test_several_pairs_have_a_column_and_errors_with_their_names() -> None:
    error = {"code": "x", "message": "it is so", "hint": "do this"}
    other = pair(name="up", error=error, status="failed")
    found = report(path("a"), path("b", pair="up"), pairs=(pair(), other), run=None)
    table = sync_table(found, limit=None, is_verbose=False)
    assert table is not None
    assert table[0][-1] == "pair"
    assert [(row[0], row[-1]) for row in table[1]] == [("a", "models"), ("b", "up")]
    assert sync_errors(found) == [{**error, "message": "up: it is so"}]
    assert sync_errors(report(pairs=(other,))) == [error]


def test_another_result_has_no_such_table() -> None:
    assert sync_table(run_report(), limit=None, is_verbose=False) is None


def test_what_is_known_of_a_sync_run() -> None:
    assert details_of(report()) == [
        ("run", RUN.id),
        ("status", "succeeded"),
        ("what", "sync models"),
        ("target", "local"),
        ("started", "2026-11-21 09:30:12 UTC"),
        ("took", "8.0 s (copy 5.0 s)"),
        ("from", "store:comfy"),
        ("to", "models:/"),
        ("here", "models:/"),
        ("there", "store:comfy"),
        ("copied", "3 files, 12.4 GB, 210 MB/s"),
    ]
    assert details_of(report(run=None)) == []


def test_any_other_run_says_what_it_has_to_say() -> None:
    errand = ErrandReport(run_view(kind="download", title="a.safetensors"), {"size_bytes": 5, "to": "loras/a"}, None, 0)
    assert table_of(errand) == ((), [("size bytes", "5"), ("to", "loras/a")])
    assert ("what", "a.safetensors") in details_of(errand)
    silent = ErrandReport(run_view(kind="download", status="failed"), {}, None, 1)
    assert table_of(silent) == ((), [(f"run {silent.run.id}: failed",)])


def test_a_render_says_where_it_was_pushed() -> None:
    pushed = run_report(push=pair(to="store:renders"))
    assert ", pushed to store:renders; next:" in summary_of(pushed)
    assert "pushed" not in summary_of(run_report(push=pair(status="failed")))
