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

from tests.conftest import Cli
from tests.e2e.training import SAVE_EVERY, STEPS, TrainWorld, ended, make_world, step_of, wait_for

BOUNDARIES: Mapping[str, Mapping[str, Any]] = {
    "staging": {"type": "phase", "phase": "staging"},
    "loading": {"type": "phase", "phase": "loading"},
    "step": {"type": "step"},
    "saving": {"type": "phase", "phase": "saving"},
    "checkpoint": {"type": "checkpoint"},
    "end": {"type": "checkpoint", "is_final": True},
}
"""After the last one there is a fraction of a second left: the LoRA is put among the models."""

RANDOM_MOMENTS = 20


@pytest.fixture
def world(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> TrainWorld:
    return make_world(make_cli(tmp_path / "state"), step_s=0.05)


def test_clients_killed_at_every_boundary_lose_nothing(world: TrainWorld) -> None:
    process, run_id = begun(world.with_trainer(step_s=0.2))
    for boundary in BOUNDARIES:
        process.kill()
        process.communicate()
        process = world.cli.start("runs", "attach", run_id, "--json-events")
        wait_for(process, BOUNDARIES[boundary])
    process.kill()
    process.communicate()
    done = world.cli("runs", "attach", run_id, "--json")
    assert done.code == 0, done.stderr
    assert done.json["data"]["training"]["resumed_from"] is None
    assert step_of(world.lora) == STEPS


@pytest.mark.parametrize("who", ["worker", "trainer"])
def test_killed_at_every_boundary_it_goes_on_from_the_newest_whole_checkpoint(world: TrainWorld, who: str) -> None:
    """Of the worker, which is what a container is on Modal, and of the trainer alone."""
    process, first = begun(world)
    run_id = first
    # Before and after these there is no trainer.
    for boundary in BOUNDARIES if who == "worker" else ("loading", "step", "saving", "checkpoint"):
        reached = wait_for(process, BOUNDARIES[boundary])
        # At the end it may be done before it is met.
        with contextlib.suppress(StopIteration) if boundary == "end" else contextlib.nullcontext():
            (world.worker if who == "worker" else world.trainer)(run_id).kill()
        done = ended(process)
        kept = newest(world, first)
        if boundary == "end" and done.code == 0:
            break
        if boundary in ("step", "checkpoint"):
            assert kept >= int(reached.get("value") or reached["step"]) - SAVE_EVERY - 1
        assert done.code != 0, done.stdout
        assert done.error["hint"].endswith(f"comfymodal runs resume {run_id}"), done.error
        process = world.cli.start("runs", "resume", run_id, "--json-events")
        run_id = str(wait_for(process, {"type": "submitted"})["run_id"])
        if 0 < kept < STEPS:
            assert wait_for(process, {"type": "resumed"})["step"] == kept
    else:
        assert ended(process).code == 0
    assert step_of(world.lora) == STEPS


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("who", ["client", "worker", "trainer"])
def test_twenty_random_moments(world: TrainWorld, who: str) -> None:
    moments = random.Random(20261121)
    for number in range(RANDOM_MOMENTS):
        process, run_id = begun(world, "--name", f"tiny{number}")
        time.sleep(moments.uniform(0.0, 4.0))
        if who == "client":
            process.kill()
            process.communicate()
            done = world.cli("runs", "attach", run_id, "--json")
        else:
            # It may have ended meanwhile, which is a moment like any other.
            with contextlib.suppress(psutil.Error, StopIteration, ValueError):
                (world.worker if who == "worker" else world.trainer)(run_id).kill()
            done, kept = ended(process), newest(world, run_id)
            if done.code:
                done = world.cli("runs", "resume", run_id, "--json")
                if kept < STEPS:
                    assert done.json["data"]["training"]["resumed_from"] == (kept or None)
        assert done.code == 0, done.stderr
        assert step_of(world.lora.with_name(f"tiny{number}.safetensors")) == STEPS


def begun(world: TrainWorld, *more: str) -> tuple[subprocess.Popen[str], str]:
    process = world.cli.start("train", "train.yaml", *more, "--json-events")
    return process, str(wait_for(process, {"type": "submitted"})["run_id"])


def newest(world: TrainWorld, run_id: str) -> int:
    return max((each.step for each in world.kept(run_id)), default=0)
