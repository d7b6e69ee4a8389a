from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from comfymodal.operations.config import ConfigRow, ConfigShown, ConfigValidated
from comfymodal.operations.results import ChangeView, OutputText, RenderPlan, RunCancelled, RunList
from comfymodal.output.tables import details_of, summary_of, table_of
from tests.unit.output.result_samples import output_file, run_report, run_view

PRICE = {
    "gpu": "L40S",
    "per_hour": "$2.40/h",
    "where": "Modal main",
    "low": "$0.0612",
    "typical": "$0.0872",
    "high": "$0.1201",
    "worst": "$2.83",
    "basis": "12 runs",
    "deadline_s": 3570.0,
    "is_shortened": False,
}


@pytest.mark.parametrize(
    ("result", "titles", "rows"),
    [
        pytest.param(
            run_report(),
            (),
            [("/elsewhere/img.png", "image/png", "1.2 MB", "Save Image"), ("Preview: a cat",)],
            id="a run",
        ),
        pytest.param(run_report(outputs=(), texts=()), (), [], id="a run that left nothing"),
        pytest.param(
            run_report(outputs=(), texts=(), run=run_view(status="failed")),
            (),
            [("run 261121-093012-k7f3: failed",)],
            id="a failed run",
        ),
        pytest.param(
            RunList((run_view(), run_view(id="r2", status="running", seconds=None, ended_at=None))),
            ("run", "status", "when", "took", "what"),
            [
                ("261121-093012-k7f3", "succeeded", "2026-11-21 09:30:12 UTC", "8.0 s", "portrait.json"),
                ("r2", "running", "2026-11-21 09:30:12 UTC", "", "portrait.json"),
            ],
            id="a list",
        ),
        pytest.param(RunList(()), ("run", "status", "when", "took", "what"), [], id="an empty list"),
        pytest.param(
            RunCancelled(run_view(status="cancelled"), was_active=True, is_still_running=False),
            *((), [("run 261121-093012-k7f3 cancelled",)]),
            id="cancelled",
        ),
        pytest.param(
            RunCancelled(run_view(status="succeeded"), was_active=True, is_still_running=False),
            *((), [("run 261121-093012-k7f3 succeeded",)]),
            id="cancelled too late",
        ),
        pytest.param(
            RunCancelled(run_view(status="running"), was_active=True, is_still_running=True),
            *((), [("run 261121-093012-k7f3 was asked to stop and has not ended yet",)]),
            id="not cancelled yet",
        ),
        pytest.param(
            RunCancelled(run_view(status="failed"), was_active=False, is_still_running=False),
            *((), [("run 261121-093012-k7f3 had ended already: failed",)]),
            id="nothing to cancel",
        ),
        pytest.param(
            RenderPlan("w.json", "local", "ComfyUI 1", 1, (ChangeView("6", "P", "seed", 1, 2),), ("/a.png",), "/out"),
            (),
            [
                ("workflow", "w.json (1 node), checked"),
                ("engine", "ComfyUI 1"),
                ("set 6.seed", "1 -> 2  (P)"),
                ("upload", "/a.png"),
                ("outputs", "/out"),
            ],
            id="a plan",
        ),
        pytest.param(
            RenderPlan("w.json", "modal", "ComfyUI 1", 1, (), (), "/out", cost=PRICE),
            (),
            [
                ("workflow", "w.json (1 node), checked"),
                ("engine", "ComfyUI 1"),
                ("outputs", "/out"),
                (
                    "cost",
                    "L40S $2.40/h on Modal main: $0.0612 to $0.1201, typically $0.0872 (12 runs); "
                    "at most $2.83 (ends after 59:30 min)",
                ),
            ],
            id="a plan on Modal",
        ),
        pytest.param(
            ConfigShown(
                None,
                tuple(
                    ConfigRow(f"k{number}", value, "default", "run")
                    for number, value in enumerate([True, None, "x", 5, ["a", "b"], [], {"A": "1", "B": "x"}])
                ),
                (),
            ),
            ("setting", "value", "from", "read at"),
            [
                (f"k{number}", text, "default", "run")
                for number, text in enumerate(["true", "", "x", "5", "a b", "", "A=1 B=x"])
            ],
            id="settings",
        ),
        pytest.param(
            ConfigValidated("/elsewhere/c.yaml", "demo", ()),
            *((), [("/elsewhere/c.yaml is valid (project demo)",)]),
            id="valid",
        ),
    ],
)
def test_a_result_is_shown_in_columns(result: Any, titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    assert table_of(result) == (titles, rows)


def test_a_result_without_a_table_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="no table for object"):
        table_of(object())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        pytest.param(
            {},
            "succeeded: 1 file and 1 text in 8.0 s (prepare 0.5 s, render 7.0 s, download 0.2 s); "
            "next: comfymodal runs again 261121-093012-k7f3",
            id="a run",
        ),
        pytest.param(
            {"texts": (), "outputs": (output_file(),) * 2, "is_cached": True, "run": run_view(phases={})},
            "succeeded: 2 files in 8.0 s, from ComfyUI's cache; next: comfymodal runs again 261121-093012-k7f3",
            id="from the cache",
        ),
        pytest.param(
            {"run": run_view(status="running", seconds=None)},
            "run 261121-093012-k7f3 goes on; its outputs: comfymodal runs fetch 261121-093012-k7f3",
            id="running",
        ),
    ],
)
def test_the_last_line_names_the_next_command(more: dict[str, Any], line: str) -> None:
    assert summary_of(run_report(**more)) == line


def test_details_leave_out_what_is_not_known() -> None:
    changes = (ChangeView("6", "P", "text", None, "a cat"), ChangeView("7", "P", "flag", None, False))
    rows = details_of(run_report(run=run_view(seconds=None), receipt=None, changes=changes))
    assert rows == [
        ("run", "261121-093012-k7f3"),
        ("status", "succeeded"),
        ("workflow", "portrait.json"),
        ("target", "local"),
        ("started", "2026-11-21 09:30:12 UTC"),
        ("set", "6.text = a cat"),
        ("set", "7.flag = false"),
    ]


def test_every_cell_is_text() -> None:
    report = run_report(texts=(OutputText(0, "7", "", "two\nlines"),))
    for row in (*table_of(report)[1], *details_of(report)):
        assert all(isinstance(cell, str) for cell in row)
    assert dataclasses.is_dataclass(report)
