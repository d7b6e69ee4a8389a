"""`comfymodal train` on Modal: the command line, the real client and container runtime, the stand-in trainer."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import modal
import pytest

from comfymodal.training.state import Checkpoint, read_state
from tests.conftest import Cli
from tests.doubles.modal_cloud.client import ModalCloud
from tests.doubles.trainer.files import read_step
from tests.e2e.test_train_kills import BOUNDARIES
from tests.e2e.train_world import start_train_cloud
from tests.e2e.training import SAVE_EVERY, STEPS, ended, events_of, make_world, wait_for

PROJECT = """\
version: 1
project: {project}
target: modal
volumes:
  models: {{name: {project}-models}}
  outputs: {{name: {project}-outputs}}
  datasets: {{name: {project}-datasets}}
  training: {{name: {project}-training}}
  cache: {{name: {project}-cache}}
training: {{gpu: A100-80GB, retries: 10, secret: {project}-standin}}
"""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    with start_train_cloud(tmp_path_factory.mktemp("train")) as made:
        yield made


@dataclass(frozen=True, slots=True)
class World:
    """A project of its own on the double. The trainer's pace and faults come with a secret."""

    cli: Cli
    cloud: ModalCloud
    project: str

    def volume(self, role: str) -> Path:
        """What is committed of it."""
        return self.cloud.volume_folder(f"{self.project}-{role}")

    @property
    def lora(self) -> Path:
        return self.volume("models") / "loras" / "tiny.safetensors"

    def kept(self, run_id: str) -> tuple[Checkpoint, ...]:
        return read_state(self.volume("training") / "runs" / run_id) or ()

    def steer(self, step_s: float, faults: str = "") -> None:
        values = {"STANDIN_STEP_S": str(step_s), "STANDIN_FAULTS": faults, "HF_TOKEN": "hf_of_a_test"}
        modal.Secret.objects.delete(f"{self.project}-standin", allow_missing=True)
        modal.Secret.objects.create(f"{self.project}-standin", values)

    def elsewhere(self, folder: Path) -> Cli:
        """The same project on another machine: nothing of this one's state is there."""
        work = folder / "work"
        work.mkdir(parents=True)
        shutil.copy(self.cli.cwd / "comfymodal.yaml", work)
        environ = {**self.cli.environ, "HOME": str(folder), "COMFYMODAL_STATE_DIR": str(folder / "state")}
        return Cli(work, environ)

    def all_busy(self) -> list[str]:
        app = f"comfymodal-{self.project}-train"
        return [str(one["task_id"]) for one in self.cloud.containers() if (one["app"], one["state"]) == (app, "busy")]

    def busy(self) -> str:
        self.cloud.wait_for_container(lambda one: one["task_id"] in self.all_busy())
        return self.all_busy()[0]


@pytest.fixture
def world(cloud: ModalCloud, tmp_path: Path, make_cli: Callable[[Path], Cli]) -> World:
    project = f"m{next(_numbers)}-{os.getpid()}"
    made = make_world(make_cli(tmp_path / "state")).cli
    bare = {key: value for key, value in made.environ.items() if not key.startswith(("AI_TOOLKIT", "STANDIN"))}
    cli = replace(made, environ={**bare, **cloud.environ})
    (cli.cwd / "comfymodal.yaml").write_text(PROJECT.format(project=project))
    found = World(cli, cloud, project)
    found.steer(step_s=0.02)
    return found


def test_from_pictures_here_to_a_lora_among_the_models_there(world: World, tmp_path: Path) -> None:
    refused = world.cli("train", "train.yaml", "--json")
    assert (refused.code, refused.error["code"]) == (4, "not_ready")
    assert "--yes" in refused.error["hint"]

    process = world.cli.start("train", "train.yaml", "--yes", "--json-events")
    events = events_of(process)
    process.communicate()
    assert process.returncode == 0, events[-1]
    data = events[-1]["data"]
    price = next(event for event in events if event["type"] == "price")
    assert (price["gpu"], price["where"].split()[0]) == ("A100-80GB", "Modal")
    assert (price["basis"], price["samples"]) == ("an estimate, nothing measured", 0)
    assert 0 < float(price["low_usd"]) < float(price["typical_usd"]) < float(price["high_usd"])
    assert float(data["run"]["cost"]) > 0
    assert data["training"]["step"] == STEPS
    assert read_step(world.lora) == STEPS
    here = [Path(each["path"]) for each in data["outputs"]]
    assert here[0].read_bytes() == world.lora.read_bytes()
    assert [path.name for path in here[1:]] == [f"step-{step:06d}-0.jpg" for step in range(0, STEPS + 1, SAVE_EVERY)]
    receipt = json.loads(Path(data["receipt"]).read_text())
    assert receipt["container"]["container_id"].startswith("ta-")
    # What was sent is the dataset by its hash, once: the same pictures are not sent again.
    (sent,) = (world.volume("datasets") / "sets").iterdir()
    assert sorted(path.name for path in sent.glob("*.png")) == [f"{number}.png" for number in range(5)]

    again = world.cli("train", "train.yaml", "--name", "second", "--json")
    assert again.code == 0, again.stderr
    kinds = [run["kind"] for run in world.cli("runs", "list", "--json").json["data"]["runs"]]
    assert sorted(kinds) == ["sync", "train", "train"]

    (tmp_path / "other").mkdir()
    other = world.elsewhere(tmp_path / "other")
    fetched = other("runs", "fetch", data["run"]["id"], "--json")
    assert fetched.code == 0, fetched.stderr
    assert Path(fetched.outputs[0]["path"]).read_bytes() == world.lora.read_bytes()


def test_containers_killed_at_every_boundary_lose_no_more_than_one_interval_each(world: World) -> None:
    world.steer(step_s=0.1)
    process = world.cli.start("train", "train.yaml", "--yes", "--json-events")
    run_id = str(wait_for(process, {"type": "submitted", "kind": "train"})["run_id"])
    for boundary in ("staging", "loading", "step", "saving", "checkpoint"):
        reached = wait_for(process, BOUNDARIES[boundary])
        world.cloud.kill_container(world.busy())
        newest = max((each.step for each in world.kept(run_id)), default=0)
        if boundary in ("step", "checkpoint"):
            assert newest >= int(reached.get("value") or reached["step"]) - SAVE_EVERY - 1
        lost = wait_for(process, {"type": "warning"})
        assert lost["message"].startswith("Modal took the run's container away")
    # Not its event, which may have come before the last warning.
    while process.poll() is None and not any(each.is_final for each in world.kept(run_id)):
        time.sleep(0.05)
    # It may have put it among the models by now, and ended.
    for task_id in world.all_busy():
        world.cloud.kill_container(task_id)
    done = ended(process)
    assert done.code == 0, done.stdout
    assert done.json["data"]["training"]["step"] == STEPS
    assert read_step(world.lora) == STEPS


@pytest.mark.soak
def test_ctrl_c_saves_and_stops_and_resume_goes_on_elsewhere(world: World, tmp_path: Path) -> None:
    world.steer(step_s=0.1)
    process = world.cli.start("train", "train.yaml", "--yes", "--json-events")
    wait_for(process, {"type": "checkpoint"})
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130, done.stdout
    training: dict[str, Any] = done.json["data"]["training"]
    # The stop may reach the trainer before its next step.
    assert training["saved_step"] >= max(SAVE_EVERY, training["step"] - 1)
    assert not world.lora.exists()

    on = world.cli("runs", "resume", done.run["id"], "--json")
    assert on.code == 0, on.stderr
    assert on.json["data"]["training"]["resumed_from"] == training["saved_step"]
    assert read_step(world.lora) == STEPS


@pytest.mark.soak
def test_a_killed_client_and_one_on_another_machine(world: World, tmp_path: Path) -> None:
    process = world.cli.start("train", "train.yaml", "--yes", "--json-events")
    run_id = str(wait_for(process, {"type": "submitted", "kind": "train"})["run_id"])
    wait_for(process, {"type": "step"})
    process.kill()
    process.communicate()
    (tmp_path / "other").mkdir()
    done = world.elsewhere(tmp_path / "other")("runs", "attach", run_id, "--json")
    assert done.code == 0, done.stderr
    assert Path(done.outputs[0]["path"]).read_bytes() == world.lora.read_bytes()
    assert float(done.run["cost"]) > 0


@pytest.mark.soak
def test_a_sweep_trains_side_by_side_within_its_budget(world: World) -> None:
    poor = world.cli("train", "train.yaml", "--sweep", "lr=1e-4,4e-4", "--max-cost", "0.01", "--yes", "--json")
    assert (poor.code, poor.error["code"]) == (7, "budget_refused")
    assert world.cli("runs", "list", "--json").json["data"]["runs"] == []
    world.steer(step_s=0.05)
    process = world.cli.start(
        "train", "train.yaml", "--sweep", "lr=1e-4,4e-4", "--max-cost", "40", "--yes", "--json-events"
    )
    wait_for(process, {"type": "sweep", "number": 1})
    world.cloud.wait_for_container(lambda one: len(world.all_busy()) == 2)
    done = ended(process)
    assert done.code == 0, done.stdout
    assert [each["name"] for each in done.json["data"]["runs"]] == ["tiny--lr1e-4", "tiny--lr4e-4"]
    loras = sorted(path.name for path in world.lora.parent.glob("*.safetensors"))
    assert loras == ["tiny--lr1e-4.safetensors", "tiny--lr4e-4.safetensors"]
