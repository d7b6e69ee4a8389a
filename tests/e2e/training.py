"""A folder with pictures and a training config, and a command line that trains with the stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from comfymodal.training.ai_toolkit.command import PATH_VARIABLE, PYTHON_VARIABLE
from comfymodal.training.state import Checkpoint, read_state
from tests.conftest import Cli, Done
from tests.doubles.trainer.files import read_step

ROOT = Path(__file__).parent.parent.parent
TRAINER = ROOT / "tests" / "doubles" / "trainer"

SAVE_EVERY = 10
STEPS = 40

CONFIG = f"""
name: tiny
model: sd15
dataset: ./pictures
trigger: p3r5on
steps: {STEPS}
save_every: {SAVE_EVERY}
resolution: [512]
prompts: ["[trigger] in a boat"]
"""


@dataclass(frozen=True, slots=True)
class TrainWorld:
    """`cli` works in a folder with `train.yaml` and `pictures/`; volumes are folders under its state."""

    cli: Cli

    def volume(self, name: str) -> Path:
        return self.cli.state / "volumes" / name

    @property
    def lora(self) -> Path:
        return self.volume("comfy-models") / "loras" / "tiny.safetensors"

    def kept(self, run_id: str) -> tuple[Checkpoint, ...]:
        """The checkpoints of a run's folder, which is named by the first of the runs that share it."""
        return read_state(self.volume("training-data") / "runs" / run_id) or ()

    def with_trainer(self, faults: str = "", step_s: float = 0.005) -> TrainWorld:
        environ = {**self.cli.environ, "STANDIN_FAULTS": faults, "STANDIN_STEP_S": str(step_s)}
        return TrainWorld(replace(self.cli, environ=environ))

    def worker(self, run_id: str) -> psutil.Process:
        """The process that runs the job."""
        wanted = str(self.cli.state / "calls" / run_id)
        return next(each for each in psutil.process_iter() if wanted in _command(each))

    def trainer(self, run_id: str) -> psutil.Process:
        (found,) = (each for each in self.worker(run_id).children() if "run.py" in " ".join(_command(each)))
        return found


def make_world(cli: Cli, step_s: float = 0.005) -> TrainWorld:
    pictures = cli.cwd / "pictures"
    pictures.mkdir()
    for number in range(5):
        # Noise of another grain each: pictures that look alike are a warning.
        Image.effect_noise((544, 512), 30 + 20 * number).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"number {number}")
    (cli.cwd / "train.yaml").write_text(CONFIG)
    toolkit = {PATH_VARIABLE: str(TRAINER), PYTHON_VARIABLE: sys.executable}
    return TrainWorld(replace(cli, environ={**cli.environ, **toolkit})).with_trainer(step_s=step_s)


def step_of(lora: Path) -> int:
    """What a LoRA's header says it was trained for."""
    return read_step(lora)


def events_of(process: subprocess.Popen[str]) -> list[Mapping[str, Any]]:
    """All that is still to come of `--json-events`; the last is the result."""
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


def wait_for(process: subprocess.Popen[str], wanted: Mapping[str, Any], timeout_s: float = 60) -> Mapping[str, Any]:
    """Read on until an event has these values."""
    assert process.stdout is not None
    give_up_at = time.monotonic() + timeout_s
    for line in process.stdout:
        event: Mapping[str, Any] = json.loads(line)
        if all(event.get(key) == value for key, value in wanted.items()):
            return event
        assert event["type"] != "result", event
        assert time.monotonic() < give_up_at, event
    raise AssertionError(f"it ended without {wanted}: {process.communicate()[1]}")


def ended(process: subprocess.Popen[str]) -> Done:
    stdout, stderr = process.communicate(timeout=120)
    return Done(process.returncode, stdout.splitlines()[-1] if stdout else "", stderr)


def _command(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found
