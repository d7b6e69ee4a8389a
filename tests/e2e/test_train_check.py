"""`train` and `datasets` as an operator has them, on a machine without an account, a trainer or a ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from comfymodal.targets.modal.recipe import SYNC_PACKAGES
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.e2e.modal_world import REPOSITORY, run_modal
from tests.unit.training.config_files import FLUX, GUIDE
from tests.unit.training.pictures import fill


@pytest.fixture
def work(engineless_cli: Cli) -> Path:
    """The working directory, with pictures and the configs of this repository."""
    fill(engineless_cli.cwd / "pictures")
    (engineless_cli.cwd / "train.yaml").write_text(FLUX.read_text())
    (engineless_cli.cwd / "guide.yaml").write_text(GUIDE.read_text())
    return engineless_cli.cwd


def test_the_guides_config_is_refused_mended_and_then_only_its_folder_is_missing(
    engineless_cli: Cli, work: Path
) -> None:
    refused = engineless_cli("train", "guide.yaml", "--check")
    fixed = engineless_cli("train", "guide.yaml", "--fix")
    again = engineless_cli("train", "guide.fixed.yaml", "--check", "--json")
    (work / "guide.fixed.yaml").write_text("mine")
    unasked = engineless_cli("train", "guide.yaml", "--fix")

    lines = refused.stdout.splitlines()
    assert lines[0] == ("guide.yaml:1:1: job: is missing: the trainer ends with `config file must have a job key`")
    assert lines[1] == "  hint: put `job: extension` at the top of the file"
    assert lines[-3:] == [
        "config\tguide.yaml (a config of ai-toolkit): 6 problems and 5 warnings",
        "name\tmy_lora_v1",
        "dataset\tdatasets/my_character, not found",
    ]
    assert refused.stderr == (
        "error: guide.yaml: 6 problems and 5 warnings\n"
        "hint: comfymodal train guide.yaml --fix writes a corrected copy\n"
    )
    assert (refused.code, fixed.code, again.code, unasked.code) == (3, 0, 3, 4)
    errors = [problem for problem in again.json["data"]["problems"] if problem["severity"] == "error"]
    assert [(problem["place"], problem["kind"]) for problem in errors] == [("guide.fixed.yaml:17:7", "no_such_path")]
    assert again.error["code"] == "training_config_invalid"
    assert "--yes" in unasked.stderr
    assert (work / "guide.fixed.yaml").read_text() == "mine"
    assert (work / "guide.yaml").read_text() == GUIDE.read_text()


def test_a_sound_config_is_checked_planned_and_not_trained_without_a_trainer(engineless_cli: Cli, work: Path) -> None:
    checked = engineless_cli("train", "train.yaml", "--check", "--sweep", "train.lr=1e-4,4e-4", "--json")
    planned = engineless_cli("train", "train.yaml", "--dry-run", "--target", "modal", "--gpu", "A100-80GB", "-q")
    trained = engineless_cli("train", "train.yaml")

    assert (checked.code, planned.code) == (0, 0), checked.stderr + planned.stderr
    assert list(checked.json["data"]) == ["config", "form", "problems", "plans", "can_fix"]
    assert [plan["name"] for plan in checked.json["data"]["plans"]] == [
        "my_character_v1--lr1e-4",
        "my_character_v1--lr4e-4",
    ]
    rows = dict(line.split("\t", 1) for line in planned.stdout.splitlines() if "\t" in line)
    assert rows["config"] == "train.yaml (short form): 1 warning"
    assert rows["GPU"].startswith("A100-80GB (--gpu): fits")
    assert rows["cost"].startswith("about $")
    assert 'change\ttraining_folder: "output" -> "/tmp/run"' in planned.stdout
    assert (trained.code, "AI_TOOLKIT_PATH" in trained.stderr) == (4, True)
    # Looking is free, and leaves nothing behind.
    assert not (engineless_cli.state / "projects").exists()


def test_a_folder_is_checked_and_the_volume_listed(engineless_cli: Cli, work: Path) -> None:
    fill(engineless_cli.state / "volumes/comfy-datasets/people", 5)
    (work / "pictures/torn.png").write_bytes(b"no picture")
    listed = engineless_cli("datasets", "list")
    checked = engineless_cli("datasets", "check", "volume:/people", "--for", "train.yaml", "--json")
    torn = engineless_cli("datasets", "check", "pictures")

    assert listed.stdout.startswith("people\t5 pictures\t5 captions\t")
    assert (checked.code, checked.json["data"]["dataset"]["pictures"]) == (0, 5)
    assert checked.json["command"] == ["datasets", "check"]
    assert (torn.code, torn.stdout.splitlines()[0]) == (3, "pictures: torn.png: it is no picture")
    assert torn.stderr == "error: pictures: 1 problem\n"


def test_the_datasets_on_modal_are_listed_without_starting_anything(
    tmp_path: Path, make_cli: Callable[[Path], Cli]
) -> None:
    made = make_cli(tmp_path / "state")
    python = container_python(ENGINE_DATA / "test-cache", SYNC_PACKAGES)
    cloud = ModalCloud.start(tmp_path / "cloud", container_python=python, hide=[REPOSITORY])
    try:
        cli = Cli(made.cwd, {**made.environ, **cloud.environ})
        none = cli("datasets", "list", "--target", "modal")
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        run_modal(cloud, environ, "volume", "create", "comfy-datasets")
        run_modal(cloud, environ, "volume", "put", "comfy-datasets", fill(tmp_path / "people", 3), "/people")
        listed = cli("datasets", "list", "--target", "modal")
    finally:
        cloud.stop()

    assert (none.code, "comfy-datasets" in none.stderr) == (4, True), none.stderr
    assert listed.stdout.startswith("people\t3 pictures\t3 captions\t"), listed.stderr
    assert "1 dataset in volume comfy-datasets" in listed.stdout
