"""A Modal to render on: the control plane double, containers with the real ComfyUI in them, projects that use it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui import boot
from comfymodal.comfyui.engines import EngineInstall
from comfymodal.targets.modal.recipe import SYNC_PACKAGES
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python

REPOSITORY = Path(__file__).parents[2]

# What the embedded CPU engine needs, which a GPU image has not; scaledown short of what a person would choose.
PROJECT = """\
version: 1
project: {project}
target: modal
comfyui:
  version: 0.3.75
  args: [--cpu, --front-end-root, "{{folder}}/web", --disable-api-nodes, --disable-all-custom-nodes]
  max_containers: {max_containers}
  scaledown_window: {scaledown_window}
{more}"""


@dataclass(frozen=True, slots=True)
class ModalCli(Cli):
    """The command line of a machine whose project renders on Modal."""

    cloud: ModalCloud
    project: str

    def elsewhere(self, folder: Path) -> ModalCli:
        """The same project on another machine: nothing of this one's state is there."""
        work = folder / "work"
        work.mkdir(parents=True)
        shutil.copy(self.cwd / "comfymodal.yaml", work)
        environ = {**self.environ, "HOME": str(folder), "COMFYMODAL_STATE_DIR": str(folder / "state")}
        return ModalCli(work, environ, self.cloud, self.project)

    @property
    def app(self) -> str:
        return f"comfymodal-{self.project}-render"

    def containers(self) -> list[dict[str, object]]:
        """The render containers of this project that live."""
        return [one for one in self.cloud.containers() if one["app"] == self.app and "RenderBox" in one["function"]]


def start_cloud(
    folder: Path, engine: EngineInstall, *, is_flat: bool = False, image_env: Mapping[str, str] | None = None
) -> ModalCloud:
    """A control plane whose images hold the embedded engine; containers do not see this checkout."""
    image = folder / "image"
    image.mkdir(parents=True)
    shutil.copy(boot.__file__, image / "boot.py")
    python = image / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$1" in *.py) exec {engine.python} {image}/boot.py --shim torchvision-ops "$@";; esac\n'
        f'exec {engine.python} "$@"\n'
    )
    python.chmod(0o755)
    return ModalCloud.start(
        folder / "cloud",
        container_python=container_python(ENGINE_DATA / "test-cache", SYNC_PACKAGES),
        image_env={"COMFYUI_PATH": str(engine.comfyui_path), "COMFYUI_PYTHON": str(python), **(image_env or {})},
        hide=[REPOSITORY],
        buckets=buckets_folder(folder),
        is_flat=is_flat,
    )


def buckets_folder(folder: Path) -> Path:
    """Where the buckets are that functions of this control plane can mount: a folder each."""
    found = folder / "buckets"
    found.mkdir(exist_ok=True)
    return found


def write_project(
    cwd: Path, project: str, *, max_containers: int = 3, scaledown_window: str = "60s", more: str = ""
) -> None:
    text = PROJECT.format(project=project, max_containers=max_containers, scaledown_window=scaledown_window, more=more)
    (cwd / "comfymodal.yaml").write_text(text)


def run_modal(cloud: ModalCloud, environ: Mapping[str, str], *arguments: str | Path) -> str:
    """Modal's own command line, as somebody has it who follows the guides."""
    done = subprocess.run(
        [sys.executable, "-m", "modal", *map(str, arguments)],
        env={**environ, **cloud.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
