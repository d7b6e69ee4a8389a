"""What Modal is asked to build: the stock client deploys to a control plane double, which builds nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.targets.modal.recipe import (
    APT,
    REGISTRY_SCRIPT,
    REQUIREMENTS,
    container_env,
    image_steps,
    training_env,
    training_steps,
)
from tests.doubles.modal_cloud.client import ModalCloud
from tests.unit.targets.modal_samples import IMAGE, SPEC, TRAINING

# A container that has the image and nothing else: the App is the least that makes the client send all of it.
DEPLOY = """
import modal
from comfymodal.targets.modal import keep_warm
from comfymodal.targets.modal.image import render_image
from tests.unit.targets.modal_samples import SPEC, with_image
spec = with_image(custom_nodes=(), python_packages=()) if BARE else SPEC
app = modal.App("image", include_source=False)
app.function(image=render_image(spec))(keep_warm.keep_warm)
app.deploy()
"""

DEPLOY_TRAINING = """
from dataclasses import replace
from pathlib import Path
from comfymodal.targets.modal.train_app import train_app
from tests.unit.targets.modal_samples import SPEC
train_app(replace(SPEC, state=Path(STATE))).deploy(lambda event: None)
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    # No container is ever started, so any Python will do.
    found = ModalCloud.start(tmp_path_factory.mktemp("cloud"), container_python=Path(sys.executable), is_flat=True)
    yield found
    found.stop()


def asked_for(cloud: ModalCloud, *, bare: bool = False) -> list[dict[str, Any]]:
    return deployed(cloud, f"BARE = {bare}\n{DEPLOY}")


def deployed(cloud: ModalCloud, script: str) -> list[dict[str, Any]]:
    """What was asked while the script ran."""
    before = len(cloud.requests())
    environ = {"PATH": os.environ["PATH"], "HOME": str(cloud.folder), **cloud.environ}
    argv = [sys.executable, "-c", script]
    root = Path(__file__).parents[3]
    done = subprocess.run(argv, env=environ, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return cloud.requests()[before:]


@pytest.fixture(scope="module")
def requests(cloud: ModalCloud) -> list[dict[str, Any]]:
    return asked_for(cloud)


def bodies(requests: list[dict[str, Any]], rpc: str) -> list[dict[str, Any]]:
    return [request["body"] for request in requests if request["rpc"] == rpc]


def layers(requests: list[dict[str, Any]]) -> list[list[str]]:
    """Each layer's commands without `FROM base`, bottom first; the base image of Modal's own is left out."""
    found = [body["image"]["dockerfile_commands"] for body in bodies(requests, "ImageGetOrCreate")]
    return [commands[1:] for commands in found if commands[0] == "FROM base"]


def test_the_layers_are_the_steps_in_their_order_and_the_settings_come_last(requests: list[dict[str, Any]]) -> None:
    apt, *built, env = layers(requests)

    assert all(name in apt[-1] for name in APT)
    assert built == [
        ["COPY . /"] if step.files else [f"RUN {command}" for command in step.commands]
        for step in image_steps(IMAGE)[1:]
    ]
    assert all(command.startswith("ENV ") for command in env)


def test_the_environment_arrives_as_it_was_meant(requests: list[dict[str, Any]]) -> None:
    env = layers(requests)[-1]

    found = dict(command.removeprefix("ENV ").split("=", 1) for command in env)
    assert {name: shlex.split(value)[0] for name, value in found.items()} == container_env(SPEC)


def test_the_registry_script_is_copied_to_where_it_is_run(requests: list[dict[str, Any]]) -> None:
    (copying,) = (
        body["image"] for body in bodies(requests, "ImageGetOrCreate") if body["image"].get("context_mount_id")
    )
    mounts = [[entry["filename"] for entry in body.get("files", [])] for body in bodies(requests, "MountGetOrCreate")]

    assert copying["dockerfile_commands"] == ["FROM base", "COPY . /"]
    assert [REGISTRY_SCRIPT] in mounts


def test_our_sources_are_mounted_and_in_no_layer(requests: list[dict[str, Any]]) -> None:
    mounts = [{entry["filename"] for entry in body.get("files", [])} for body in bodies(requests, "MountGetOrCreate")]

    (ours,) = (files for files in mounts if "/root/comfymodal/__init__.py" in files)
    assert "/root/comfymodal/jobs/render.py" in ours
    assert {file.rpartition(".")[2] for file in ours} == {"py"}
    at_home = {"cli", "costs", "operations", "output", "project", "runs"}
    assert not [file for file in ours if file.split("/")[3] in at_home]


def test_a_changed_setting_rebuilds_no_layer_but_the_last(cloud: ModalCloud) -> None:
    bare = layers(asked_for(cloud, bare=True))

    assert [commands[0].split()[0] for commands in bare] == ["RUN", "RUN", "RUN", "ENV"]


def test_a_training_image_holds_the_projects_packages_and_the_function_only_its_limits(
    cloud: ModalCloud, tmp_path: Path
) -> None:
    asked = deployed(cloud, f"STATE = {str(tmp_path)!r}\n{DEPLOY_TRAINING}")

    apt, torch, copied, install, toolkit, env = layers(asked)
    _, *steps = training_steps(TRAINING)
    assert all(name in apt[-1] for name in APT)
    assert copied == ["COPY . /"]
    for layer, step in zip((torch, install, toolkit), steps, strict=True):
        assert layer == [f"RUN {command}" for command in step.commands]
    found = dict(command.removeprefix("ENV ").split("=", 1) for command in env)
    assert {name: shlex.split(value)[0] for name, value in found.items()} == training_env()
    mounts = [[entry["filename"] for entry in body.get("files", [])] for body in bodies(asked, "MountGetOrCreate")]
    assert [REQUIREMENTS] in mounts
    (text,) = (tmp_path / "modal").glob("text-*.txt")
    assert text.read_text() == "diffusers==0.39.0\n"
    (function,) = (body["function"] for body in bodies(asked, "FunctionCreate"))
    assert (function["function_name"], function["timeout_secs"], function["startup_timeout_secs"]) == (
        "train",
        86400,
        1200,
    )
    # A GPU is the job's.
    assert not function.get("resources", {}).get("gpu_config")
    assert not function.get("volume_mounts")
