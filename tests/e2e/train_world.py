"""A Modal to train on: the control plane double, real container runtimes with the stand-in trainer in their image."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.client import _Client

from comfymodal.targets.base import Look
from comfymodal.targets.modal.target import ModalTarget
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.spec import ContainerSpec, ImageSpec, ModalSpec, TrainSpec, VolumeSpec
from comfymodal.training.ai_toolkit.command import PATH_VARIABLE, PYTHON_VARIABLE
from comfymodal.training.state import read_state
from tests.conftest import ENGINE_DATA
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.doubles.trainer.files import PICTURE
from tests.e2e.modal_world import REPOSITORY

PICTURES = 5
ROLES = ("models", "inputs", "outputs", "datasets", "training", "cache")
QUICK = {"stall_s": 10.0, "quiet_s": 20.0, "closing_s": 2.0, "stop_s": 20.0, "signal_s": 10.0}
ENDLESS: Mapping[str, Any] = {"steps": 100_000, "save_every": 40, "step_s": 0.01}
AT = ["config", "process", 0, "datasets", 0, "folder_path"]

Event = Mapping[str, Any]
_numbers = itertools.count(1)


def trainer_image(folder: Path, python: Path) -> dict[str, str]:
    """The environment of an image with the stand-in: containers do not see this checkout, and their Python has nothing
    that training needs.
    """
    toolkit = folder / "toolkit"
    shutil.copytree(REPOSITORY / "tests" / "doubles" / "trainer", toolkit / "tests" / "doubles" / "trainer")
    for package in ("tests", "tests/doubles"):
        (toolkit / package / "__init__.py").touch()
    return {PATH_VARIABLE: str(toolkit / "tests" / "doubles" / "trainer"), PYTHON_VARIABLE: str(python)}


@contextmanager
def start_train_cloud(folder: Path) -> Iterator[ModalCloud]:
    """A control plane whose training images hold the stand-in; this process is its client meanwhile."""
    python = container_python(ENGINE_DATA / "test-cache")
    made = ModalCloud.start(
        folder / "cloud", container_python=python, image_env=trainer_image(folder, python), hide=[REPOSITORY]
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        # The client of the environment is made once a process.
        _Client._set_env_client(None)
        yield made
        _Client._set_env_client(None)
    made.stop()
    assert "Traceback" not in made.log, made.log


def train_spec(project: str, state: Path, **changed: Any) -> ModalSpec:
    """A project that trains, with volumes of its own."""
    containers = ContainerSpec(("L40S",), 3600.0, 600.0, 60.0, 0, 3, 0, "off", ())
    training = {"toolkit_commit": "0123456789abcdef0123456789abcdef01234567", "requirements": ("a==1",), "retries": 3}
    return ModalSpec(
        project=project,
        environment=None,
        workspace=None,
        volumes={role: VolumeSpec(f"{role}-{project}", 2) for role in ROLES},
        image=ImageSpec("0.3.75", (), (), {}, ()),
        containers=containers,
        training=TrainSpec(**{**training, **changed}),
        state=state,
    )


@dataclass
class Trainings:
    """The project that trains, as the operator's side has it."""

    cloud: ModalCloud
    target: ModalTarget
    events: dict[str, list[Event]] = field(default_factory=dict)
    _calls: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, cloud: ModalCloud, folder: Path, **changed: Any) -> Trainings:
        """With the app deployed and a dataset on its volume."""
        made = cls(cloud, ModalTarget(train_spec(f"p{next(_numbers)}-{os.getpid()}", folder, **changed)))
        made.target.set_up(lambda event: None, "train")
        volumes = Volumes(made.spec)
        volumes.create("datasets")
        for number in range(PICTURES):
            volumes.put("datasets", PICTURE, f"sets/d1/{number}.jpg")
        return made

    @property
    def spec(self) -> ModalSpec:
        return self.target.spec

    def write_project(self, folder: Path) -> None:
        """The same project for the command line."""
        volumes = "".join(f"  {role}: {{name: {volume.name}}}\n" for role, volume in self.spec.volumes.items())
        training = f"  toolkit_commit: {self.spec.training.toolkit_commit}\n  requirements: packages.txt\n"
        (folder / "packages.txt").write_text("\n".join(self.spec.training.requirements))
        (folder / "comfymodal.yaml").write_text(
            f"version: 1\nproject: {self.spec.project}\ntarget: modal\nvolumes:\n{volumes}training:\n{training}"
        )

    @property
    def app(self) -> str:
        return f"comfymodal-{self.spec.project}-train"

    def job(self, *, steps: int = 24, save_every: int = 8, **more: Any) -> dict[str, Any]:
        """A new run; `name` is its folder's, and `step_s` and `faults` are the trainer's, by way of a secret."""
        name = more.pop("name", f"t{next(_numbers)}")
        secret = f"standin-{self.spec.project}-{next(_numbers)}"
        steering = {"STANDIN_STEP_S": str(more.pop("step_s", 0.002)), "STANDIN_FAULTS": more.pop("faults", "")}
        modal.Secret.objects.create(secret, steering)
        process = {
            "type": "diffusion_trainer",
            "training_folder": "/tmp/run",
            "model": {"name_or_path": "org/model", "arch": "sd1"},
            "network": {"type": "lora", "linear": 4, "linear_alpha": 4},
            "train": {"steps": steps, "lr": 1e-4},
            "save": {"save_every": save_every, "max_step_saves_to_keep": 2},
            "datasets": [{"folder_path": "/datasets/sets/d1", "resolution": [64]}],
            "sample": {"prompts": ["a cat"], "sample_every": steps // 2},
        }
        from_where = {"role": "datasets", "path": "sets/d1"}
        return {
            "version": 1,
            "kind": "train",
            "run_id": f"run-{next(_numbers)}",
            "folder": f"runs/{name}",
            "config": {"job": "extension", "config": {"name": name, "process": [process]}},
            "locations": [{"at": AT, "from": from_where, "copies": True, "images": PICTURES}],
            "publish": {},
            "limits": QUICK,
            "gpu": "A100-80GB",
            "memory_gib": 64,
            "deadline_s": 3600.0,
            "secrets": [secret],
            "optional_secrets": ["hf-credentials"],
            "origin": {},
            **more,
        }

    def submit(self, job: Mapping[str, Any]) -> str:
        """Returns the run's id."""
        run_id = str(job["run_id"])
        self._calls[run_id] = self.target.submit(job)
        self.events[run_id] = []
        return run_id

    def call_id(self, run_id: str) -> str:
        return self._calls[run_id]

    def look(self, run_id: str) -> Look:
        events = self.events[run_id]
        found = self.target.look(run_id, self._calls[run_id], after=events[-1]["seq"] if events else 0)
        events += found.events
        return found

    def wait_for(self, run_id: str, is_wanted: Callable[[Event], bool], timeout_s: float = 40.0) -> Event:
        """The first event since the last look of which this is true."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            look = self.look(run_id)
            for event in look.events:
                if is_wanted(event):
                    return event
            assert look.is_alive, look.outcome
            time.sleep(0.1)
        raise AssertionError(f"did not come: {self.events[run_id][-5:]}\n{self.cloud.log}")

    def wait_for_type(self, run_id: str, kind: str) -> Event:
        return self.wait_for(run_id, lambda event: event["type"] == kind)

    def outcome(self, run_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """How it ends."""
        give_up_at = time.monotonic() + timeout_s
        while (look := self.look(run_id)).is_alive:
            assert time.monotonic() < give_up_at, self.events[run_id][-5:]
            time.sleep(0.1)
        assert look.outcome is not None
        return json.loads(json.dumps(look.outcome))  # type: ignore[no-any-return]

    def lost(self, run_id: str) -> list[str]:
        """What was said each time another container went on."""
        return [event["message"] for event in self.events[run_id] if event["type"] == "container_lost"]

    def busy(self) -> dict[str, Any]:
        return self.cloud.wait_for_container(lambda one: one["app"] == self.app and one["state"] == "busy")

    def containers(self) -> list[dict[str, Any]]:
        """All there ever were."""
        return [one for one in self.cloud.containers(None) if one["app"] == self.app]

    def volume(self, role: str) -> Path:
        """What is committed of it."""
        return self.cloud.volume_folder(self.spec.volumes[role].name)

    def saved_steps(self, job: Mapping[str, Any]) -> list[int]:
        return [each.step for each in read_state(self.volume("training") / job["folder"]) or ()]

    def lora(self, job: Mapping[str, Any]) -> Path:
        return self.volume("models") / "loras" / f"{job['config']['config']['name']}.safetensors"
