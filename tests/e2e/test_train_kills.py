"""Whatever is killed, and whenever: the highest complete checkpoint is kept, and the training goes on from it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Cli, Done
from tests.e2e.training import SAVE_EVERY, STEPS, TrainWorld, ended, make_world, step_of, wait_for

BOUNDARIES: Mapping[str, Mapping[str, Any]] = {
    "submitted": {"type": "submitted"},
    "staging": {"type": "phase", "phase": "staging"},
    "loading": {"type": "phase", "phase": "loading"},
    "step": {"type": "step"},
    "saving": {"type": "phase", "phase": "saving"},
    "checkpoint": {"type": "checkpoint"},
    "end": {"type": "checkpoint", "is_final": True},
    "publishing": {"type": "phase", "phase": "publishing"},
}
RANDOM_MOMENTS = 20


@pytest.fixture
def world(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> TrainWorld:
    return make_world(make_cli(tmp_path / "state"), step_s=0.02)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_killed_client_loses_nothing(world: TrainWorld, boundary: str) -> None:
    process, run_id = begun(world)
    reach(process, boundary)
    process.kill()
    process.communicate()
    done = world.cli("runs", "attach", run_id, "--json")
    assert done.code == 0, done.stderr
    assert done.json["data"]["training"]["resumed_from"] is None
    assert step_of(world.lora) == STEPS


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_killed_worker_is_gone_on_after(world: TrainWorld, boundary: str) -> None:
    process, run_id = begun(world)
    reach(process, boundary)
    killed(world.worker, run_id)
    goes_on(world, run_id, ended(process))


@pytest.mark.parametrize("boundary", ["loading", "step", "saving", "checkpoint"])
def test_a_killed_trainer_is_gone_on_after(world: TrainWorld, boundary: str) -> None:
    process, run_id = begun(world)
    reach(process, boundary)
    killed(world.trainer, run_id)
    goes_on(world, run_id, ended(process))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("who", ["client", "worker", "trainer"])
def test_twenty_random_moments(world: TrainWorld, who: str) -> None:
    moments = random.Random(20261121)
    for _ in range(RANDOM_MOMENTS):
        process, run_id = begun(world)
        time.sleep(moments.uniform(0.0, 3.0))
        if who == "client":
            process.kill()
            process.communicate()
            assert world.cli("runs", "attach", run_id, "--json").code == 0
        else:
            killed(world.worker if who == "worker" else world.trainer, run_id)
            goes_on(world, run_id, ended(process))
        assert step_of(world.lora) == STEPS


def begun(world: TrainWorld) -> tuple[subprocess.Popen[str], str]:
    process = world.cli.start("train", "train.yaml", "--json-events")
    return process, str(wait_for(process, {"type": "submitted"})["run_id"])


def reach(process: subprocess.Popen[str], boundary: str) -> None:
    if boundary != "submitted":
        wait_for(process, BOUNDARIES[boundary])


def killed(find: Callable[[str], psutil.Process], run_id: str) -> None:
    # It may have ended meanwhile, which is a moment like any other.
    with contextlib.suppress(psutil.Error, StopIteration, ValueError):
        find(run_id).kill()


def goes_on(world: TrainWorld, run_id: str, first: Done) -> None:
    """The rerun ends well, from the newest whole checkpoint; at most one save interval is lost."""
    kept = world.kept(run_id)
    if first.code == 0:
        assert step_of(world.lora) == STEPS
        return
    assert first.error["hint"].endswith(f"comfymodal runs resume {run_id}"), first.error
    done = world.cli("runs", "resume", run_id, "--json")
    assert done.code == 0, done.stderr
    training = done.json["data"]["training"]
    newest = max((each.step for each in kept), default=None)
    if newest == STEPS:
        # It had been trained to its end: only what was left to do was done.
        assert training["resumed_from"] is None
    else:
        assert training["resumed_from"] == newest
    reached = ((first.json["data"] or {}).get("training") or {}).get("step", 0)
    assert (newest or 0) >= reached - SAVE_EVERY - 1
    assert step_of(world.lora) == STEPS
