"""`datasets push` as an operator has it: to the folder that stands for the volume, and to Modal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.doubles.modal_cloud.client import ModalCloud
from tests.unit.operations.test_train_check import SHORT
from tests.unit.training.pictures import add, fill

VOLUME = "volumes/comfy-datasets"


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_pushed_kept_in_step_and_trained_on_by_its_name(engineless_cli: Cli) -> None:
    pictures = fill(engineless_cli.cwd / "anna", 6)
    (pictures / "_latent_cache").mkdir()
    (pictures / "_latent_cache/0.safetensors").write_bytes(b"cache")
    there = engineless_cli.state / VOLUME / "anna"
    planned = engineless_cli("datasets", "push", "anna", "-n", "--json")
    was_there = there.exists()
    pushed = engineless_cli("datasets", "push", "anna", "--json")
    wanted = names_in(there)
    (pictures / "000.png").unlink()
    (pictures / "000.txt").unlink()
    (pictures / "001.txt").write_text("p3r5on, again")
    add(pictures, "new.png")
    again = engineless_cli("datasets", "push", "anna", "--json")
    pruned = engineless_cli("datasets", "push", "anna", "--delete", "--yes", "-q")
    (engineless_cli.cwd / "train.yaml").write_text(SHORT.replace("./pictures", "volume:/anna"))
    checked = engineless_cli("train", "train.yaml", "--check", "--json")

    assert (planned.code, planned.json["data"]["copied"], was_there) == (0, 12, False), planned.stderr
    data = pushed.json["data"]
    assert (pushed.code, data["path"], data["copied"], data["same"]) == (0, "volume:/anna", 12, 0), pushed.stderr
    assert wanted == sorted(f"{number:03}{end}" for number in range(6) for end in (".png", ".txt"))
    data = again.json["data"]
    assert (again.code, data["copied"], data["same"], data["deleted"]) == (0, 3, 9, 0), again.stderr
    (warning,) = again.json["warnings"]
    assert "volume:/anna also has what is not in the folder, and trainings take it: 000.png, 000.txt" in warning
    assert (pruned.code, "12 there before, 2 deleted" in pruned.stdout) == (0, True), pruned.stderr
    assert names_in(there) == [path for path in names_in(pictures) if not path.startswith("_")]
    # What was replaced and deleted is in the trash of the volume.
    trash = names_in(engineless_cli.state / VOLUME / ".comfymodal/trash")
    assert [path.partition("/")[2] for path in trash].count("anna/001.txt") == 1
    assert [path.partition("/")[2] for path in trash].count("anna/000.png") == 1
    assert checked.code == 0, checked.stdout
    assert checked.json["data"]["plans"][0]["datasets"][0]["pictures"] == 6
    # Nothing of ours is in the operator's own folder.
    assert names_in(pictures) == sorted([*names_in(there), "_latent_cache/0.safetensors"])


def test_a_folder_with_problems_is_not_pushed(engineless_cli: Cli) -> None:
    pictures = fill(engineless_cli.cwd / "anna", 6)
    (pictures / "torn.png").write_bytes(b"no picture")
    refused = engineless_cli("datasets", "push", "anna")
    misnamed = engineless_cli("datasets", "push", "anna", "sets/x")

    assert (refused.code, refused.stdout.splitlines()[0]) == (3, "anna: torn.png: it is no picture")
    assert refused.stderr == "error: anna: 1 problem\n"
    assert (misnamed.code, "there trainings keep what they sent" in misnamed.stderr) == (2, True)
    assert not (engineless_cli.state / VOLUME).exists()


@pytest.mark.soak
def test_a_folder_goes_to_modal_and_is_listed_there(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> None:
    made = make_cli(tmp_path / "state")
    (made.cwd / "comfymodal.yaml").write_text("version: 1\nproject: pushes\ntarget: modal\n")
    pictures = fill(made.cwd / "anna", 6)
    cloud = ModalCloud.start(tmp_path / "cloud", container_python=Path(sys.executable), is_flat=True)
    try:
        cli = Cli(made.cwd, {**made.environ, **cloud.environ})
        pushed = cli("datasets", "push", "anna", "people/anna", "--json")
        sent = names_in(cloud.volume_folder("comfy-datasets") / "people/anna")
        (pictures / "000.png").unlink()
        (pictures / "000.txt").unlink()
        pruned = cli("datasets", "push", "anna", "people/anna", "--delete", "--yes", "--json")
        left = names_in(cloud.volume_folder("comfy-datasets") / "people/anna")
        listed = cli("datasets", "list")
        containers = cloud.containers(None)
    finally:
        cloud.stop()

    assert (pushed.code, pushed.json["data"]["path"]) == (0, "volume:/people/anna"), pushed.stderr
    assert pushed.json["data"]["place"] == "volume comfy-datasets"
    assert len(sent) == 12
    assert (pruned.code, pruned.json["data"]["deleted"]) == (0, 2), pruned.stderr
    assert left == sent[2:]
    assert listed.stdout.startswith("people\t5 pictures\t5 captions\t"), listed.stderr
    assert containers == []
