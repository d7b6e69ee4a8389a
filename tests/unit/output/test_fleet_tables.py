from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from comfymodal.operations.fleet_results import (
    ContainerView,
    DriftView,
    FleetStatus,
    FleetStopped,
    KeptWarm,
    LogLineView,
    LogShown,
    ShellPlan,
    StartView,
    WarmthEnded,
)
from comfymodal.output.fleet_tables import STATUS_TITLES, fleet_table, log_text, shell_lines
from comfymodal.output.tables import table_of
from tests.unit.output.result_samples import run_report

UNTIL = "2026-11-21T14:20:00.000Z"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def container(**more: Any) -> ContainerView:
    given: dict[str, Any] = {
        "id": "ta-1",
        "app": "comfymodal-demo-render",
        "does": "runs",
        "why": "runs r1",
        "run_id": "r1",
        "gpu": "L40S",
        "started_at": UNTIL,
        "age_s": 90.0,
        "usd_per_hour": "2.395584",
        "per_hour": "$2.40/h",
    }
    return ContainerView(**{**given, **more})


def status(**more: Any) -> FleetStatus:
    given: dict[str, Any] = {
        "app": "comfymodal-demo-render",
        "deployed": "current",
        "deployed_at": None,
        "drift": (),
        "containers": (),
        "usd_per_hour": "0",
        "per_hour": "$0.00/h",
        "warm_until": None,
        "is_warm_overdue": False,
        "cold": None,
        "warm": None,
        "end_command": None,
    }
    return FleetStatus(**{**given, **more})


def stopped(**more: Any) -> FleetStopped:
    given: dict[str, Any] = {
        "apps": ("comfymodal-demo-render",),
        "containers": (container(),),
        "per_hour": "$2.40/h",
        "asked": (),
        "unfinished": (),
        "is_dry_run": False,
    }
    return FleetStopped(**{**given, **more})


def rows_of(result: Any) -> list[tuple[str, ...]]:
    found = fleet_table(result)
    assert found is not None
    assert found[0] == (STATUS_TITLES if isinstance(result, FleetStatus) else ())
    return found[1]


def test_a_status_says_what_lives_why_and_what_ends_it() -> None:
    shown = status(
        deployed="differs",
        deployed_at=UNTIL,
        drift=(DriftView("comfyui.gpu", "L40S", "H100", "new containers"), DriftView("comfyui.args", "", "--x", "new")),
        containers=(container(), container(id="ta-2", gpu=None, per_hour=None, age_s=None, why="starting")),
        per_hour="$2.40/h and 1 of unknown price",
        end_command="comfymodal stop",
        warm_until=UNTIL,
        cold=StartView(62.5, 1),
        warm=StartView(3.2, 4),
    )
    assert rows_of(shown) == [
        (
            "app",
            "comfymodal-demo-render",
            "deployed, but not what comfymodal.yaml says: comfymodal deploy (2026-11-21 14:20 UTC)",
        ),
        ("differs", "comfyui.gpu", "L40S -> H100  (new containers)"),
        ("differs", "comfyui.args", "- -> --x  (new)"),
        ("container", "ta-1", "L40S, $2.40/h, up 1:30 min, runs r1"),
        ("container", "ta-2", "GPU unknown, starting"),
        ("costs now", "$2.40/h and 1 of unknown price", "ends it: comfymodal stop"),
        ("kept warm", "until 2026-11-21 14:20 UTC", "sooner: comfymodal warm --off"),
        ("starts", "cold", "1:02 min to the first node (median of 1 run)"),
        ("starts", "warm", "3.2 s to the first node (median of 4 runs)"),
    ]


def test_nothing_deployed_costs_nothing() -> None:
    assert rows_of(status(deployed="no")) == [
        ("app", "comfymodal-demo-render", "not deployed: comfymodal deploy"),
        ("costs now", "$0.00/h", ""),
    ]


def test_a_warmth_that_nobody_ended_is_a_warning() -> None:
    assert rows_of(status(warm_until=UNTIL, is_warm_overdue=True))[-1] == (
        "warning",
        "kept warm beyond 2026-11-21 14:20 UTC",
        "ends it: comfymodal warm --off",
    )


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        pytest.param(
            stopped(apps=(), containers=()), ["nothing of comfymodal is deployed, and nothing bills"], id="nothing"
        ),
        pytest.param(
            stopped(is_dry_run=True),
            [
                "would stop comfymodal-demo-render (1 container, $2.40/h)",
                "  ta-1  L40S, $2.40/h, up 1:30 min, runs r1",
            ],
            id="a dry run",
        ),
        pytest.param(
            stopped(asked=("r1", "r2"), unfinished=("r2",), containers=()),
            [
                "stopped comfymodal-demo-render (0 containers)",
                "run r1 ended; what is finished: comfymodal runs fetch r1",
                "run r2 had not ended; what it had committed: comfymodal runs fetch r2",
                "the image is kept: the next render deploys again, without building",
            ],
            id="runs that ended and one that did not",
        ),
        pytest.param(
            KeptWarm(UNTIL, "L40S", 1, "1.2", "$1.23", "$2.40/h", replaced=False, is_dry_run=False),
            [
                "keeps 1 container on L40S warm until 2026-11-21 14:20 UTC, also when this machine is off: "
                "about $1.23 ($2.40/h)"
            ],
            id="kept warm",
        ),
        pytest.param(WarmthEnded(None, 60.0, is_dry_run=False), ["nothing was kept warm"], id="nothing to end"),
        pytest.param(
            WarmthEnded(UNTIL, 60.0, is_dry_run=True),
            ["would end what was kept warm until 2026-11-21 14:20 UTC; idle containers end within 60 s"],
            id="would be ended",
        ),
        pytest.param(
            LogShown("r1", "modal", (LogLineView("2026-11-21T14:20:00.123Z", "ta-1", "stdout", "got prompt"),)),
            ["2026-11-21 14:20:00.123  ta-1  got prompt"],
            id="a log",
        ),
        pytest.param(LogShown("r1", "kept", (LogLineView(None, None, None, "got prompt"),)), ["got prompt"], id="kept"),
        pytest.param(
            ShellPlan(("python", "-m", "modal", "shell", "a b"), None, None, "$1/h", "", ()),
            ["python -m modal shell 'a b'"],
            id="a shell",
        ),
    ],
)
def test_a_result_is_lines(result: Any, lines: list[str]) -> None:
    assert rows_of(result) == [(line,) for line in lines]


def test_a_log_cannot_steer_the_terminal() -> None:
    assert log_text(LogLineView(None, None, None, "a\x1b]0;x\x07")) == "a\\x1b]0;x\\x07"


def test_a_shell_says_first_what_it_costs_and_how_it_ends() -> None:
    plan = ShellPlan((), None, None, "about $0.17/h", "it ends with exit", ("a note",))
    assert shell_lines(plan) == ("a note", "about $0.17/h; it ends with exit")


def test_other_results_are_not_ours() -> None:
    assert fleet_table(run_report()) is None
    assert table_of(run_report())[1]
