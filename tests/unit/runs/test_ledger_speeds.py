"""How fast earlier syncs were, for the estimate of the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfymodal.runs.ledger import Ledger, Run


def add(ledger: Ledger, number: int, **more: Any) -> None:
    given: dict[str, Any] = {
        "id": f"run-{number}",
        "kind": "sync",
        "target": "modal",
        "status": "succeeded",
        "title": "sync models",
        "created_at": float(number),
        "ended_at": float(number + 1),
        "call_id": None,
        "again_of": None,
        "request": {},
        "result": {"copied_bytes": number * 1000, "rclone_s": 2.0},
    }
    ledger.add(Run(**{**given, **more}))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_the_newest_speeds_come_first(ledger: Ledger) -> None:
    for number in range(1, 31):
        add(ledger, number)
    assert ledger.copy_speeds("sync models", "modal") == [number * 500.0 for number in range(30, 10, -1)]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"title": "sync others"}, id="another pair"),
        pytest.param({"target": "local"}, id="another place"),
        pytest.param({"kind": "render"}, id="no sync"),
        pytest.param({"result": None}, id="not ended"),
        pytest.param({"result": {"status": "failed"}}, id="nothing known"),
        pytest.param({"result": {"copied_bytes": 0, "rclone_s": 9.0}}, id="nothing copied"),
        pytest.param({"result": {"copied_bytes": 5, "rclone_s": 0.2}}, id="too short to tell"),
        pytest.param({"result": {"copied_bytes": float("nan"), "rclone_s": 2.0}}, id="not JSON"),
    ],
)
def test_what_tells_no_speed_is_left_out(ledger: Ledger, more: dict[str, Any]) -> None:
    add(ledger, 1, **more)
    assert ledger.copy_speeds("sync models", "modal") == []
