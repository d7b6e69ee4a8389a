"""Fixtures of the tests that render on Modal."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfymodal.comfyui.engines import EngineInstall
from tests.conftest import Cli
from tests.doubles.modal_cloud.client import ModalCloud
from tests.e2e.modal_world import ModalCli, run_modal, start_cloud, write_project

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def modal_cloud(
    engine_install: EngineInstall, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModalCloud]:
    """One control plane for the session, with a model on the models volume that the guide's command put there."""
    cloud = start_cloud(tmp_path_factory.mktemp("modal"), engine_install)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.mktemp("guide"))}
    run_modal(cloud, environ, "volume", "create", "comfy-models")
    run_modal(cloud, environ, "volume", "put", "comfy-models", tiny_checkpoint, "checkpoints/tiny.ckpt")
    yield cloud
    cloud.stop()


@pytest.fixture
def make_modal_cli(tmp_path: Path, modal_cloud: ModalCloud, make_cli: Callable[[Path], Cli]) -> Callable[..., ModalCli]:
    """Build the command line of a project of one's own, with nothing deployed."""

    def make(project: str | None = None, **settings: object) -> ModalCli:
        made = make_cli(tmp_path / "state")
        name = project or f"t{next(_numbers)}-{os.getpid()}"
        write_project(made.cwd, name, **settings)  # type: ignore[arg-type]
        return ModalCli(made.cwd, {**made.environ, **modal_cloud.environ}, modal_cloud, name)

    return make


@pytest.fixture(scope="session")
def shared_project() -> str:
    return f"shared-{os.getpid()}"


@pytest.fixture
def modal_cli(make_modal_cli: Callable[..., ModalCli], shared_project: str) -> ModalCli:
    """The command line of the session's project, deployed: its containers are warm when another test was before."""
    made = make_modal_cli(shared_project)
    done = made("deploy", "--yes")
    assert done.code == 0, done.stderr
    return made
