"""What a training reads goes to the datasets volume: Modal's stock client and our worker against the double."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.client import _Client

from comfymodal.errors import BusyError, NotFoundError, NotReadyError, TransferError
from comfymodal.jobs.train_stage import plan_staging
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.parcels import packed
from comfymodal.operations.train_datasets import Library, Looked, look, read_places
from comfymodal.operations.train_gate import Keys, require_model
from comfymodal.operations.train_places import Hashes, Placed, place_files
from comfymodal.operations.train_send import MARKER, open_volume, require_there, send
from comfymodal.storage.ends import VolumeEnd
from comfymodal.targets.modal.known_secrets import KnownSecret
from comfymodal.targets.modal.secrets import create_secret
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.training.ai_toolkit.layout import CACHE_FOLDERS
from comfymodal.training.ai_toolkit.subject import Subject, subject_of
from tests.conftest import clean_environ
from tests.doubles.modal_cloud.client import ModalCloud
from tests.doubles.model_hub import TOKEN
from tests.doubles.storage_place import FolderPlace
from tests.unit.operations.sync_target import Clerk
from tests.unit.training.pictures import fill

pytestmark = [
    # The worker is another command's to wait for.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    # No container is ever started, so any Python will do.
    made = ModalCloud.start(tmp_path_factory.mktemp("cloud"), container_python=Path(sys.executable), is_flat=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        # The client of the environment is made once a process.
        _Client._set_env_client(None)
        yield made
        _Client._set_env_client(None)
    made.stop()


@dataclass(frozen=True, slots=True)
class Desktop:
    """A machine whose project trains on Modal, with pictures in a folder; its volumes are its own."""

    folder: Path
    cloud: ModalCloud
    environ: Mapping[str, str]
    clerk: Clerk

    @property
    def context(self) -> Context:
        return open_context(None, environ=self.environ, cwd=self.folder)

    @property
    def volume(self) -> Path:
        return self.cloud.volume_folder(self.context.project.volumes.datasets.name)

    def subject(self, *datasets: str, **process: Any) -> Subject:
        entries = [{"folder_path": path} for path in datasets]
        model = {"name_or_path": "org/model", "arch": "sdxl"}
        trainer = {"type": "sd_trainer", "model": model, "datasets": entries, **process}
        return subject_of({"job": "extension", "config": {"process": [trainer]}}, lambda _: "train.yaml:1:1")

    def look(self, subject: Subject) -> Looked:
        places = read_places(None, environ=self.environ, cwd=self.folder)
        return look(subject, (), self.folder, places, Library(self.clerk))

    def place(self, *datasets: str, **process: Any) -> Placed:
        subject = self.subject(*datasets, **process)
        return place_files(self.look(subject), subject, "modal", Hashes(self.clerk))

    def send(self, placed: Placed) -> int:
        return len(send(placed, self.context, self.clerk))

    def require_there(self, *datasets: str, **process: Any) -> None:
        require_there(self.look(self.subject(*datasets, **process)), self.context, self.clerk)

    def put(self, role: str, data: bytes, path: str) -> None:
        Volumes(self.context.modal_spec()).put(role, data, path)

    def sync_runs(self) -> list[str]:
        return [run.title for run in self.context.ledger.newest(limit=20)]


@pytest.fixture
def desktop(tmp_path: Path, cloud: ModalCloud) -> Desktop:
    name = f"s{next(_numbers)}-{os.getpid()}"
    volumes = f"volumes: {{datasets: {{name: datasets-{name}}}, models: {{name: models-{name}}}}}"
    secret = f"training: {{secret: hf-{name}}}"
    (tmp_path / "comfymodal.yaml").write_text(f"version: 1\nproject: {name}\ntarget: modal\n{volumes}\n{secret}\n")
    fill(tmp_path / "pictures")
    environ = {**clean_environ(tmp_path, tmp_path / "state"), **cloud.environ}
    return Desktop(tmp_path, cloud, environ, Clerk())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_is_sent_once_and_nothing_is_written_beside_it(desktop: Desktop) -> None:
    pictures = desktop.folder / "pictures"
    (pictures / "_latent_cache").mkdir()
    (pictures / "_latent_cache/0.safetensors").write_bytes(b"cache")
    (pictures / "notes.psd").write_bytes(b"not read")
    before = files_of(pictures)
    placed = desktop.place("./pictures")
    first, second = desktop.send(placed), desktop.send(desktop.place("./pictures"))

    assert (first, second) == (1, 0)
    (sent,) = placed.sends
    there = files_of(desktop.volume / sent.folder)
    marker = json.loads(there.pop(MARKER))
    wanted = {path: data for path, data in before.items() if not path.startswith(("_latent", "notes"))}
    assert there == wanted
    assert (marker["sha256"], marker["files"], marker["size_bytes"]) == (sent.sha256, 12, sent.size_bytes)
    assert files_of(pictures) == before
    # One run for the one upload, and the links it was made of are gone.
    assert desktop.sync_runs() == [f"sync {pictures} -> datasets:/{sent.folder}"]
    assert {path.suffix for path in (desktop.folder / "state/parcels").iterdir()} == {".lock"}
    told = desktop.clerk.of_type("pair")
    assert [event["here"] for event in told] == [str(pictures)]
    assert desktop.clerk.of_type("transfer")


def test_what_was_sent_is_what_the_job_finds(desktop: Desktop) -> None:
    (desktop.folder / "start.safetensors").write_bytes(b"weights")
    placed = desktop.place("./pictures", network={"pretrained_lora_path": "start.safetensors"})
    desktop.send(placed)
    container = FolderPlace(desktop.folder / "container", {})
    (desktop.folder / "container").mkdir()
    container.volumes["datasets"].symlink_to(desktop.volume)
    job = json.loads(json.dumps({"locations": placed.locations}))
    staging = plan_staging(job, container, desktop.folder / "scratch", CACHE_FOLDERS)
    staging.bring()

    pictures, weights = (location.at for location in staging.locations)
    assert files_of(pictures) == files_of(desktop.folder / "pictures")
    assert weights.read_bytes() == b"weights"
    assert weights.is_relative_to(container.volumes["datasets"])
    assert [location.images for location in staging.locations] == [6, None]
    assert list(staging.texts) == list(placed.texts)


def test_what_was_cut_off_is_completed_and_what_is_wrong_there_is_replaced(desktop: Desktop) -> None:
    placed = desktop.place("./pictures")
    assert desktop.send(placed) == 1
    there = desktop.volume / placed.sends[0].folder
    wanted = files_of(there)
    # As after a kill: not marked, one file missing, another not what its name says.
    (there / MARKER).unlink()
    (there / "000.png").unlink()
    (there / "001.txt").write_bytes(b"something else")
    assert desktop.send(placed) == 1

    assert {path: data for path, data in files_of(there).items() if path != MARKER} == {
        path: data for path, data in wanted.items() if path != MARKER
    }
    assert (there / MARKER).is_file()


def test_a_picture_that_changes_meanwhile_is_noticed_and_nothing_is_called_complete(desktop: Desktop) -> None:
    placed = desktop.place("./pictures")
    (desktop.folder / "pictures/000.txt").write_text("another caption of p3r5on")
    with pytest.raises(TransferError, match=r"000\.txt changed while it was sent"):
        desktop.send(placed)
    assert not (desktop.volume / placed.sends[0].folder / MARKER).exists()
    assert desktop.place("./pictures").sends[0].folder != placed.sends[0].folder


def test_two_commands_do_not_send_to_one_place_at_a_time(desktop: Desktop) -> None:
    placed = desktop.place("./pictures")
    target = VolumeEnd("datasets", placed.sends[0].folder)
    with packed({}, "x", target, desktop.context), pytest.raises(BusyError, match="another command is sending"):
        desktop.send(placed)


def test_a_dataset_on_the_volume_must_be_there_with_pictures(desktop: Desktop) -> None:
    with pytest.raises(NotFoundError, match="there is no datasets:/people on the volume") as caught:
        desktop.require_there("volume:/people")
    assert caught.value.hint == "send it: comfymodal datasets push FOLDER people"

    open_volume("datasets", desktop.context)
    for path in sorted(fill(desktop.folder / "some", 3).iterdir()):
        desktop.put("datasets", path.read_bytes(), f"people/{path.name}")
    desktop.require_there("volume:/people")
    assert desktop.clerk.warnings == ["datasets:/people has 3 to learn from; 15 to 50 different pictures are usual"]

    with pytest.raises(NotFoundError) as caught:
        desktop.require_there("volume:/peopel")
    assert str(caught.value.hint).startswith("did you mean people? ")
    desktop.put("datasets", b"no picture", "captions/000.txt")
    with pytest.raises(NotFoundError, match="nothing to learn in datasets:/captions"):
        desktop.require_there("volume:/captions")


def test_a_model_on_the_volume_must_be_there(desktop: Desktop) -> None:
    open_volume("models", desktop.context)
    desktop.put("models", b"weights", "checkpoints/base.safetensors")

    def model(name: str) -> dict[str, Any]:
        return {"name_or_path": f"volume:/checkpoints/{name}", "arch": "sdxl"}

    desktop.require_there("./pictures", model=model("base.safetensors"))
    with pytest.raises(NotFoundError, match=r"there is no models:/checkpoints/bass\.safetensors") as caught:
        desktop.require_there("./pictures", model=model("bass.safetensors"))
    assert "comfymodal models add" in str(caught.value.hint)


def test_a_gated_model_needs_the_secret_with_its_token(desktop: Desktop) -> None:
    context = desktop.context
    secret = context.project.training.secret

    def require(repository: str) -> Keys:
        model = {"name_or_path": repository, "arch": "flux"}
        return require_model(desktop.look(desktop.subject("./pictures", model=model)), context, desktop.clerk)

    with pytest.raises(NotReadyError, match=f"is gated, and there is no Modal secret {secret}") as caught:
        require("black-forest-labs/FLUX.1-dev")
    assert "comfymodal setup" in str(caught.value.hint)
    create_secret(KnownSecret(secret, ("OTHER",)), {"OTHER": "x"}, None)
    with pytest.raises(NotReadyError, match=f"the Modal secret {secret} has no HF_TOKEN"):
        require("black-forest-labs/FLUX.1-dev")
    modal.Secret.objects.delete(secret)
    create_secret(KnownSecret(secret, ("HF_TOKEN",)), {"HF_TOKEN": TOKEN}, None)
    assert require("black-forest-labs/FLUX.1-dev") == Keys(secrets=(secret,))
    assert require("black-forest-labs/FLUX.1-schnell") == Keys(optional_secrets=(secret,))
    assert desktop.clerk.warnings == []
