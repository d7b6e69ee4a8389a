"""What the ledger says of runs alike: only what tells something of the next one counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.measure import Measured
from comfymodal.runs.history import Sample
from comfymodal.runs.ledger import Ledger
from tests.unit.runs.test_ledger import RUN

RATE = {"gpu": "L40S", "nanodollars_per_s": 665_440, "as_of": "2026-10-07"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def ran(ledger: Ledger, number: int, run_s: float | None = 20.5, **changes: Any) -> None:
    """Enter a run of workflow `abc` on an L40S that succeeded, and what its container noted."""
    wanted: dict[str, Any] = {"sha256": "abc", "gpu": "L40S", "status": "succeeded", "prompts": 1, **changes}
    run_id = f"run-{number:03d}"
    job: dict[str, Any] = {"prompts": [{}] * wanted["prompts"]}
    request = {"job": job, "workflow": {"path": "/caf\udce9.json", "sha256": wanted["sha256"]}}
    kind, title = wanted.get("kind", "render"), wanted.get("title", RUN.title)
    rate = {**RATE, "gpu": wanted["gpu"]}
    ledger.add(
        replace(
            RUN,
            id=run_id,
            kind=kind,
            title=title,
            target="modal",
            created_at=float(number),
            request=request,
            rate=rate,
        )
    )
    seen = None
    if run_s is not None:
        seen = Measured(
            container="",
            began_at=1.0,
            ended_at=1.0 + run_s,
            queue_s=0.0,
            start_s=wanted.get("start_s", 0.0),
            load_s=wanted.get("load_s"),
            run_s=run_s,
            lost_s=0.0,
        )
    ledger.settle(
        run_id,
        status=wanted["status"],
        ended_at=1.0,
        result=wanted.get("result", {}),
        cost_nanodollars=wanted.get("cost", 7),
        measured=seen,
    )


def seconds(ledger: Ledger, gpu: str) -> list[float]:
    return [sample.run_s for sample in ledger.history("abc") if sample.gpu == gpu]


def test_samples_are_of_runs_alike_the_newest_first(ledger: Ledger) -> None:
    ran(ledger, 1, 21.0)
    ran(ledger, 2, 19.25)
    ran(ledger, 3, sha256="other")
    ran(ledger, 4, 8.0, gpu="H100")
    ran(ledger, 5, 11.0, gpu="L40S:2")
    ran(ledger, 6, status="partial")
    ran(ledger, 7, None)
    ran(ledger, 8, 0.1, result={"is_cached": True})
    ran(ledger, 9, cost=None)
    ran(ledger, 10, kind="train")
    assert seconds(ledger, "L40S") == [19.25, 21.0]
    assert (seconds(ledger, "H100"), seconds(ledger, "L40S:2")) == ([8.0], [11.0])
    assert ledger.history("ab") == []


def test_a_workflow_without_a_fingerprint_has_no_history(ledger: Ledger) -> None:
    ran(ledger, 1, sha256="")
    assert ledger.history("") == []


def test_the_newest_twenty_of_each_gpu_count(ledger: Ledger) -> None:
    for number in range(25):
        ran(ledger, number, 100.0 + number)
    ran(ledger, 30, 5.0, gpu="H100")
    assert seconds(ledger, "L40S") == [100.0 + number for number in range(24, 4, -1)]
    assert seconds(ledger, "H100") == [5.0]


def test_models_are_loaded_once_however_many_prompts_there_are(ledger: Ledger) -> None:
    ran(ledger, 1, 65.0, load_s=45.0)
    ran(ledger, 2, 845.0, load_s=45.0, prompts=40)
    ran(ledger, 3, 30.0, prompts=2)
    assert [sample.seconds_for(1) for sample in ledger.history("abc")] == [15.0, 65.0, 65.0]
    assert [sample.seconds_for(40) for sample in ledger.history("abc")] == [600.0, 845.0, 845.0]


def test_a_load_longer_than_its_run_is_cut() -> None:
    assert Sample("L40S", 10.0, 12.0, 1).seconds_for(5) == 10.0


def test_start_ups_are_of_containers_that_started(ledger: Ledger) -> None:
    ran(ledger, 1, start_s=9.0)
    ran(ledger, 2, start_s=0.0)
    ran(ledger, 3, start_s=11.0, sha256="another workflow")
    ran(ledger, 4, start_s=40.0, gpu="H100")
    assert ledger.start_ups("render", ["L40S"]) == [11.0, 9.0]
    assert ledger.start_ups("render", ["L40S", "H100"]) == [40.0, 11.0, 9.0]
    assert ledger.start_ups("train", ["L40S"]) == []


def test_the_peak_is_the_most_that_was_seen_of_the_workflow(ledger: Ledger) -> None:
    assert ledger.peak_vram("abc") is None
    for number, engine in enumerate(
        ({"peak_vram_bytes": 20 << 30}, {"peak_vram_bytes": 24 << 30}, {}, None, {"peak_vram_bytes": "x"})
    ):
        ran(ledger, number, result={"engine": engine})
    ran(ledger, 9, sha256="other", result={"engine": {"peak_vram_bytes": 99 << 30}})
    assert ledger.peak_vram("abc") == 24 << 30


def test_bytes_of_outputs_are_those_of_one_prompt(ledger: Ledger) -> None:
    ran(ledger, 1, result={"outputs": [{"size_bytes": 3_000}, {"size_bytes": 1_000}]})
    ran(ledger, 2, result={"outputs": [{"size_bytes": 6_000}]}, prompts=3)
    ran(ledger, 3, result={"outputs": []})
    ran(ledger, 4, result={"texts": [float("nan")], "outputs": [{"size_bytes": 5}]})
    assert ledger.output_bytes("abc") == [2_000.0, 4_000.0]


def test_syncs_are_alike_by_their_pair(ledger: Ledger) -> None:
    ran(ledger, 1, 12.0, kind="sync", title="sync models", gpu="")
    ran(ledger, 2, 14.0, kind="sync", title="sync loras", gpu="")
    assert [sample.run_s for sample in ledger.history_of("sync", "sync models", "modal")] == [12.0]
    assert ledger.history_of("sync", "sync models", "local") == []


def test_a_ledger_of_version_2_keeps_what_its_containers_noted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    results = (
        '{"container": {"started_at": 100.0, "ended_at": 120.5, "enter_s": 9, "is_first": true}, "is_cached": false}',
        '{"container": {"started_at": 200, "ended_at": 201, "is_first": false}, "is_cached": true}',
        '{"container": {"started_at": "x", "ended_at": null}}',
        '{"texts": [NaN]}',
    )
    request = '{"workflow": {"sha256": "abc"}, "job": {"prompts": [{}, {}]}}'
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("DROP TABLE costs; DROP TABLE notified; PRAGMA user_version = 2")
    for number, result in enumerate(results):
        connection.execute(
            "INSERT INTO runs VALUES (?, 'render', 'modal', 'succeeded', 'w', 5.0, 6.0, NULL, NULL, ?, ?, 7,"
            ' \'{"gpu": "L40S", "nanodollars_per_s": 1, "as_of": "x"}\')',
            (str(number), request, result),
        )
    connection.close()
    ledger = Ledger(path)
    assert ledger.history("abc") == [Sample("L40S", 20.5, None, 2)]
    assert ledger.start_ups("render", ["L40S"]) == [9.0]
    ledger.close()
