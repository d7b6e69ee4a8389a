"""`datasets check` and `datasets list`: a folder by the rules of a config or a model, and what is on the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotFoundError, TrainingConfigError, UsageError
from comfymodal.operations.context import open_context
from comfymodal.operations.datasets import DatasetRequest, check_folder, list_datasets
from comfymodal.operations.datasets_push import PushRequest, push_dataset
from comfymodal.operations.train_datasets import read_places
from comfymodal.operations.train_results import DatasetChecked, DatasetRow
from tests.unit.operations.test_train_check import SHORT, Desk
from tests.unit.training.config_files import SDXL
from tests.unit.training.pictures import add, fill

VOLUME = "state/volumes/comfy-datasets"


def environ(folder: Path) -> dict[str, str]:
    return {"COMFYMODAL_STATE_DIR": str(folder / "state"), "COMFYMODAL_DATA_DIR": str(folder / "data")}


def check(folder: Path, name: str = "pictures", *, target: str | None = None, **wishes: Any) -> DatasetChecked:
    places = read_places(None, environ=environ(folder), cwd=folder, flags={"target": target})
    return check_folder(DatasetRequest(name, folder, **wishes), places, Desk())


def test_a_sound_folder_by_the_rules_of_a_model(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    flux, sdxl = check(tmp_path), check(tmp_path, model="sdxl")
    assert (flux.exit_code, flux.problems, flux.dataset.pictures) == (0, (), 6)
    assert [table["resolution"] for table in flux.dataset.tables] == [512, 768, 1024]
    assert [table["resolution"] for table in sdxl.dataset.tables] == [1024]
    assert check(tmp_path, model="flux2_klein_9b").rules == "flux2_klein_9b at 512"


def test_a_picture_that_does_not_open_is_a_problem_with_its_name(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    (tmp_path / "pictures/torn.jpg").write_bytes(b"\xff\xd8\xff")
    checked = check(tmp_path)
    assert checked.exit_code == 3
    assert checked.error is not None
    assert checked.error["code"] == "input_file"
    assert [(problem.kind, problem.files) for problem in checked.problems] == [("broken_picture", ("torn.jpg",))]


def test_a_trigger_is_looked_for(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    assert check(tmp_path, trigger="p3r5on").problems == ()
    assert check(tmp_path, trigger="somebody").problems != ()


def test_the_settings_of_a_config_count_for_its_entry(tmp_path: Path) -> None:
    for name in ("pictures", "more", "third"):
        fill(tmp_path / name)
    entries = "dataset:\n  - {path: ./pictures}\n  - {path: ./more, resolution: 256, repeats: 3}\n"
    (tmp_path / "train.yaml").write_text(SHORT.replace("dataset: ./pictures\n", entries).replace("name: mine\n", ""))
    own = check(tmp_path, "more", train_config=Path("train.yaml"))
    other = check(tmp_path, "third", train_config=Path("train.yaml"))
    assert [(table["resolution"], table["items"]) for table in own.dataset.tables] == [(256, 18)]
    assert [(table["resolution"], table["items"]) for table in other.dataset.tables] == [(512, 6)]
    assert own.rules == "train.yaml (flux)"


def test_a_faulty_config_is_no_measure(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    (tmp_path / "train.yaml").write_text(SDXL.read_text().replace("arch: sdxl", "arch: nonsense"))
    with pytest.raises(TrainingConfigError, match=r"train.yaml:\d+:\d+: model.arch"):
        check(tmp_path, train_config=Path("train.yaml"))


@pytest.mark.parametrize("wishes", [{"model": "sdx"}, {"model": "flux", "train_config": Path("t.yaml")}])
def test_wishes_that_are_none_are_refused(tmp_path: Path, wishes: dict[str, Any]) -> None:
    fill(tmp_path / "pictures")
    with pytest.raises(UsageError):
        check(tmp_path, **wishes)


def test_a_folder_of_the_volume_is_read_where_it_is_here(tmp_path: Path) -> None:
    fill(tmp_path / VOLUME / "people")
    assert check(tmp_path, "volume:/people").dataset.pictures == 6
    assert check(tmp_path, "datasets:/people").dataset.place == f"folder {tmp_path / VOLUME}"
    with pytest.raises(NotFoundError, match="is on Modal"):
        check(tmp_path, "volume:/people", target="modal")
    with pytest.raises(UsageError, match="leads out"):
        check(tmp_path, "volume:/../comfy-datasets/people")


@pytest.mark.parametrize("name", ["nope", "pictures/000.png", "volume:/nope"])
def test_no_folder_is_said(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "pictures")
    with pytest.raises(NotFoundError):
        check(tmp_path, name)


def test_the_volume_is_listed_by_its_folders(tmp_path: Path) -> None:
    volume = tmp_path / VOLUME
    fill(volume / "people", 3)
    add(volume / "people/below", "deep.png", None)
    (volume / "people/.hidden").mkdir()
    (volume / "people/.hidden/x.png").write_bytes(b"1")
    (volume / "clip").mkdir()
    (volume / "clip/a.mp4").write_bytes(b"12345")
    (volume / "loose.txt").write_bytes(b"12")
    listed = list_datasets(open_context(None, environ=environ(tmp_path), cwd=tmp_path))
    people = sum(path.stat().st_size for path in (volume / "people").rglob("*.*") if path.is_file()) - 1
    assert listed.datasets == (
        DatasetRow("", 0, 0, 1, 2),
        DatasetRow("clip", 0, 1, 0, 5),
        DatasetRow("people", 4, 0, 3, people),
    )
    assert listed.size_bytes == people + 7


def test_what_trainings_sent_is_listed_by_its_content(tmp_path: Path) -> None:
    volume = tmp_path / VOLUME
    fill(volume / "sets/0123456789abcdef", 2)
    (volume / "sets/0123456789abcdef/.complete.json").write_bytes(b"{}")
    fill(volume / "sets/fedcba9876543210", 3)
    (volume / "files/00aa").mkdir(parents=True)
    (volume / "files/00aa/x.safetensors").write_bytes(b"12345")
    listed = list_datasets(open_context(None, environ=environ(tmp_path), cwd=tmp_path))
    assert [(row.folder, row.pictures) for row in listed.datasets] == [
        ("files/00aa", 0),
        ("sets/0123456789abcdef", 2),
        ("sets/fedcba9876543210", 3),
    ]


@pytest.mark.parametrize("name", ["", "/", "..", "../up", "sets", "sets/x", "files", ".hidden", "a/.b", "a//b", "a\nb"])
def test_names_that_no_dataset_can_have(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "pictures")
    request = PushRequest(DatasetRequest("pictures", tmp_path), name)
    places = read_places(None, environ=environ(tmp_path), cwd=tmp_path)
    with pytest.raises(UsageError, match="cannot be a dataset's name"):
        push_dataset(request, places, open_context(None, environ=environ(tmp_path), cwd=tmp_path), Desk())
    assert not (tmp_path / "state").exists()


def test_what_is_on_the_volume_is_not_pushed_there(tmp_path: Path) -> None:
    places = read_places(None, environ=environ(tmp_path), cwd=tmp_path)
    request = PushRequest(DatasetRequest("volume:/people", tmp_path))
    with pytest.raises(UsageError, match="volume:/people is on the volume"):
        push_dataset(request, places, open_context(None, environ=environ(tmp_path), cwd=tmp_path), Desk())


def test_an_empty_volume_has_no_datasets(tmp_path: Path) -> None:
    assert list_datasets(open_context(None, environ=environ(tmp_path), cwd=tmp_path)).datasets == ()
