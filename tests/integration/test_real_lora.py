"""A true LoRA: learned by a real trainer under the real supervisor, killed on the way, painted with by ComfyUI."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.child import LOG_FILE
from comfymodal.jobs.kinds import run_job
from comfymodal.storage.library import SIDECAR_SUFFIX
from comfymodal.targets.local_place import LocalPlace
from comfymodal.training.ai_toolkit.layout import LOSS_FILE
from comfymodal.training.ai_toolkit.losses import read_losses
from comfymodal.training.state import read_state
from comfymodal.training.weights import read_weights
from tests.conftest import Cli
from tests.tiny_lora import (
    PICTURES,
    native_config,
    pixels,
    read_numbers,
    require_learned,
    toolkit_environ,
    write_dataset,
)

# The first time on a machine the trainer's environment is made, beside the engine's.
pytestmark = pytest.mark.timeout(900)

NAME, STEPS, SAVE_EVERY, KILLED_AT = "lighthouse", 20, 8, 12
UNKNOWN = "lora key not loaded"


@dataclass
class Training:
    """One run on this machine: its attempts' outcomes, the last first."""

    root: Path
    models: Path
    python: Path
    base: Path
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lora(self) -> Path:
        return self.models / "loras" / f"{NAME}.safetensors"

    @property
    def store(self) -> Path:
        return self.root / "volumes" / "training" / "runs" / NAME

    def run(self, faults: str = "") -> dict[str, Any]:
        run_id = f"run-{len(self.outcomes)}"
        call = self.root / run_id
        call.mkdir()
        job = self.job(run_id)
        roles = ("inputs", "outputs", "datasets", "training", "cache")
        volumes = {**{role: str(self.root / "volumes" / role) for role in roles}, "models": str(self.models)}
        place = LocalPlace(call, {"volumes": volumes, "state": str(self.root / "state"), "job": job})
        place.environ = {**os.environ, **toolkit_environ(self.python, faults=faults)}
        try:
            self.outcomes.append(run_job(json.loads(json.dumps(job)), place))
        finally:
            place.close()
        return self.outcomes[-1]

    def job(self, run_id: str) -> dict[str, Any]:
        process = ["config", "process", 0]
        dataset = {"role": "datasets", "path": "sets/angles"}
        config = native_config(NAME, model="of this machine", dataset="angles", steps=STEPS, save_every=SAVE_EVERY)
        return {
            "version": 1,
            "kind": "train",
            "run_id": run_id,
            "folder": f"runs/{NAME}",
            "config": config,
            "locations": [
                {"at": [*process, "datasets", 0, "folder_path"], "from": dataset, "copies": True, "images": PICTURES},
                {"at": [*process, "model", "name_or_path"], "from": {"folder": str(self.base)}},
            ],
            "publish": {},
            "device": "cpu",
            "scratch": str(self.root / "scratch"),
        }


@pytest.fixture(scope="module")
def training(
    trainer_python: Path, tiny_diffusers: Path, session_state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Training]:
    """Killed once, and trained to its end; its LoRA is among the models of the session's engine meanwhile."""
    root = tmp_path_factory.mktemp("real")
    write_dataset(root / "volumes" / "datasets" / "sets" / "angles")
    made = Training(root, session_state / "volumes" / "comfy-models", trainer_python, tiny_diffusers)
    made.run(f"kill_at={KILLED_AT}")
    made.run()
    yield made
    for path in (made.lora, made.lora.with_name(f"{NAME}{SIDECAR_SUFFIX}")):
        path.unlink(missing_ok=True)


def test_what_was_killed_is_learned_to_its_end(training: Training) -> None:
    killed, outcome = training.outcomes

    assert (killed["status"], killed["error"]["cause"]) == ("failed", "host_memory")
    assert (outcome["status"], outcome["error"]) == ("succeeded", None)
    assert (outcome["result"]["resumed_from"], outcome["result"]["final"]["step"]) == (SAVE_EVERY, STEPS)
    assert list(outcome["result"]["images"].values()) == [PICTURES]
    assert [each.step for each in read_state(training.store) or ()] == [8, 16, 20]

    found = read_weights(training.lora)
    assert (found.step, found.not_finite, found.tensors) == (STEPS, (), 36)
    (early,) = training.store.glob(f"checkpoints/**/{NAME}_{SAVE_EVERY:09d}.safetensors")
    require_learned(read_numbers(training.lora), read_numbers(early))


def test_its_loss_falls_across_the_kill(training: Training) -> None:
    losses = read_losses(training.store / LOSS_FILE)
    values = [loss.value for loss in losses]

    # The last ones before the kill were not written yet.
    assert losses[0].step < SAVE_EVERY < losses[-1].step == STEPS - 1
    assert all(math.isfinite(value) for value in values)
    assert statistics.mean(values[-5:]) < 0.6 * statistics.mean(values[:3])


def test_comfyui_paints_with_it(training: Training, cli: Cli) -> None:
    # With none of its strength the loader leaves the model as it is.
    without = pixels(cli, training.lora.name, strength=0.0)

    assert pixels(cli, training.lora.name) != without
    assert UNKNOWN not in cli.engine_file.with_name(LOG_FILE).read_text()


def test_comfyui_says_so_when_a_lora_is_of_another_kind(training: Training, cli: Cli) -> None:
    other = training.lora.with_name("other.safetensors")
    other.write_bytes(training.lora.read_bytes().replace(b"attn1_to_q", b"attn9_to_q"))
    try:
        pixels(cli, other.name)
    finally:
        other.unlink()

    assert UNKNOWN in cli.engine_file.with_name(LOG_FILE).read_text()
