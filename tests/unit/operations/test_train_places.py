"""Where what a config names lies for its run: stays here, is sent under its hash, or is on a volume."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import InputFileError, TrainingConfigError
from comfymodal.operations.train_datasets import Library, look, read_places
from comfymodal.operations.train_places import Hashes, Placed, files_below, place_files
from comfymodal.training.ai_toolkit.subject import subject_of
from comfymodal.training.config import KeyPath
from tests.unit.operations.test_train_check import Desk
from tests.unit.training.pictures import add, fill, picture, save

DATASET: KeyPath = ("config", "process", 0, "datasets", 0)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with configs' files, placed for one target."""

    folder: Path
    desk: Desk
    hashes: Hashes

    def __call__(self, target: str, *datasets: dict[str, Any], **process: Any) -> Placed:
        model = {"name_or_path": "org/model", "arch": "sdxl"}
        trainer = {"type": "sd_trainer", "model": model, "datasets": list(datasets), **process}
        subject = subject_of({"job": "extension", "config": {"process": [trainer]}}, lambda _: "train.yaml:1:1")
        environ = {"COMFYMODAL_STATE_DIR": str(self.folder / "state")}
        places = read_places(None, environ=environ, cwd=self.folder, flags={"target": target})
        looked = look(subject, (), self.folder, places, Library(self.desk))
        return place_files(looked, subject, target, self.hashes)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    fill(tmp_path / "pictures")
    desk = Desk()
    return Place(tmp_path, desk, Hashes(desk))


def test_on_this_machine_everything_stays_where_it_is(place: Place) -> None:
    fill(place.folder / "state/volumes/comfy-datasets/people", 3)
    weights = place.folder / "start.safetensors"
    weights.write_bytes(b"weights")
    network = {"pretrained_lora_path": "start.safetensors"}
    own, people = {"folder_path": "./pictures"}, {"folder_path": "volume:/people"}
    placed = place("local", own, people, network=network)

    first, second, third = placed.locations
    assert first["at"] == [*DATASET, "folder_path"]
    assert first["from"] == {"folder": str(place.folder / "pictures")}
    assert (first["copies"], first["images"], len(first["sha256"])) == (True, 6, 64)
    assert (second["from"], second["images"]) == ({"role": "datasets", "path": "people"}, 3)
    assert (third["from"], third["copies"], third["images"]) == ({"folder": str(weights)}, False, None)
    assert (placed.mounts, placed.sends) == (("datasets",), ())
    assert placed.texts[*DATASET, "folder_path"] == str(place.folder / "pictures")
    assert placed.texts["config", "process", 0, "datasets", 1, "folder_path"] == "/datasets/people"


def test_on_modal_a_dataset_goes_by_its_hash_with_exactly_what_is_read(place: Place) -> None:
    pictures = place.folder / "pictures"
    add(pictures / "more", "deep.png")
    (pictures / "notes.psd").write_bytes(b"not read")
    (pictures / "_latent_cache").mkdir()
    (pictures / "_latent_cache/000.safetensors").write_bytes(b"of the trainer")
    (pictures / ".aitk_size.json").write_bytes(b"{}")
    placed = place("modal", {"folder_path": "./pictures"}, {"folder_path": "pictures", "resolution": 768})

    (send,) = placed.sends
    assert [location["from"] for location in placed.locations] == [{"role": "datasets", "path": send.folder}] * 2
    assert placed.locations[0]["sha256"] == send.sha256
    assert placed.locations[0]["images"] == 7
    assert send.folder == f"sets/{send.sha256[:16]}"
    names = {f"{number:03}{end}" for number in range(6) for end in (".png", ".txt")}
    assert {file.path for file in send.files} == names | {"more/deep.png", "more/deep.txt"}
    assert all(file.source == pictures / file.path for file in send.files)
    assert placed.texts[*DATASET, "folder_path"] == f"/datasets/{send.folder}"
    assert placed.mounts == ("datasets",)


def test_the_same_content_anywhere_is_the_same_folder_and_other_content_is_not(place: Place) -> None:
    fill(place.folder / "copy")
    own = place("modal", {"folder_path": "./pictures"}).sends[0].folder
    assert place("modal", {"folder_path": "./copy"}).sends[0].folder == own
    (place.folder / "copy/000.txt").write_text("another caption of p3r5on")
    assert place("modal", {"folder_path": "./copy"}).sends[0].folder != own


def test_masks_and_controls_are_folders_of_their_own(place: Place) -> None:
    for name in ("masks", "c1", "c2"):
        fill(place.folder / name)
    placed = place("modal", {"folder_path": "./pictures", "mask_path": "./masks", "control_path": ["./c1", "./c2"]})

    places = {tuple(each["at"][5:]): each for each in placed.locations}
    assert set(places) == {("folder_path",), ("mask_path",), ("control_path", 0), ("control_path", 1)}
    assert {each["copies"] for each in placed.locations} == {True}
    assert places[("folder_path",)]["images"] == 6
    assert places[("mask_path",)]["images"] is None
    # Masks do not count in the name of where the pictures are: other masks send no picture again.
    assert places[("folder_path",)]["from"] == place("modal", {"folder_path": "./pictures"}).locations[0]["from"]
    by_source = {send.source.name: send for send in placed.sends}
    assert {file.path for file in by_source["masks"].files} == {f"{number:03}.png" for number in range(6)}


def test_single_files_and_model_folders_keep_their_names(place: Place) -> None:
    weights = place.folder / "start.safetensors"
    weights.write_bytes(b"weights")
    model = place.folder / "model"
    (model / "unet").mkdir(parents=True)
    (model / "model_index.json").write_bytes(b"{}")
    (model / "unet/w.safetensors").write_bytes(b"w")
    (model / ".gitattributes").write_bytes(b"hidden")
    save(place.folder / "control.png", picture())
    process = {
        "model": {"name_or_path": "./model", "arch": "sdxl"},
        "network": {"pretrained_lora_path": "start.safetensors"},
        "sample": {"samples": [{"prompt": "x", "ctrl_img": "control.png"}]},
    }
    placed = place("modal", {"folder_path": "./pictures"}, **process)

    paths = {each["at"][-1]: each for each in placed.locations}
    by_source = {send.source.name: send for send in placed.sends}
    lora = by_source["start.safetensors"]
    assert paths["pretrained_lora_path"]["from"]["path"] == f"{lora.folder}/start.safetensors"
    assert lora.files[0].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert paths["name_or_path"]["from"]["path"] == f"{by_source['model'].folder}/model"
    assert sorted(file.path for file in by_source["model"].files) == [
        "model/model_index.json",
        "model/unet/w.safetensors",
    ]
    assert by_source["model"].folder.startswith("files/")
    assert paths["ctrl_img"]["from"]["path"].endswith("/control.png")
    assert [paths[key]["copies"] for key in ("pretrained_lora_path", "name_or_path", "ctrl_img")] == [False] * 3


def test_what_is_on_a_volume_or_on_hugging_face_is_not_sent(place: Place) -> None:
    network = {"pretrained_lora_path": "training:/runs/r1/a.safetensors"}
    model = {"name_or_path": "volume:/checkpoints/a.safetensors", "arch": "sdxl", "vae_path": "org/vae"}
    placed = place("modal", {"folder_path": "/datasets/people"}, network=network, model=model)

    assert [each["from"] for each in placed.locations] == [
        {"role": "datasets", "path": "people"},
        {"role": "training", "path": "runs/r1/a.safetensors"},
        {"role": "models", "path": "checkpoints/a.safetensors"},
    ]
    # Nobody read the pictures of a volume elsewhere.
    assert (placed.locations[0]["images"], placed.sends) == (None, ())
    assert placed.mounts == ("datasets", "training", "models")


def test_a_whole_volume_is_no_dataset(place: Place) -> None:
    with pytest.raises(TrainingConfigError, match=r"train\.yaml:1:1: volume:/ is a whole volume"):
        place("modal", {"folder_path": "volume:/"})


def test_a_folder_with_nothing_to_send_is_said(place: Place) -> None:
    (place.folder / "empty").mkdir()
    (place.folder / "empty/.hidden").write_bytes(b"x")
    with pytest.raises(InputFileError, match="nothing to send"):
        place("modal", {"folder_path": "./pictures", "inpaint_path": "./empty"})


def test_links_to_files_are_followed_and_links_to_folders_are_not(place: Place) -> None:
    outside = place.folder / "outside"
    fill(outside, 2)
    model = place.folder / "model"
    model.mkdir()
    os.symlink(outside / "000.png", model / "linked.png")
    os.symlink(outside, model / "folder")
    assert list(files_below(model)) == ["linked.png"]


def test_what_takes_long_to_read_is_told_and_read_once(place: Place) -> None:
    with (place.folder / "big.safetensors").open("wb") as stream:
        stream.truncate(300 << 20)
    for rank in (8, 16):
        network = {"pretrained_lora_path": "big.safetensors", "linear": rank}
        place("modal", {"folder_path": "./pictures"}, network=network)
    told = [event for event in place.desk.events if event["type"] == "hashing"]
    assert told == [{"type": "hashing", "done_bytes": 256 << 20, "total_bytes": 300 << 20, "name": "big.safetensors"}]
