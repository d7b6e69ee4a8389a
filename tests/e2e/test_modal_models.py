"""`models` and `trash` with the models on Modal: the hub's token is Modal's secret, and no GPU is near."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfymodal.targets.modal.recipe import SYNC_PACKAGES
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub
from tests.e2e.modal_world import REPOSITORY, ModalCli, run_modal

HEADER = json.dumps(
    {
        "__metadata__": {"ss_network_dim": "8", "modelspec.title": "Anna"},
        "w": {"dtype": "U8", "shape": [9_000_000], "data_offsets": [0, 9_000_000]},
    }
).encode()
CONTENT = struct.pack("<Q", len(HEADER)) + HEADER + os.urandom(9_000_000)
SOURCE = "hf:owner/repo/loras/anna.safetensors"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    folder = tmp_path_factory.mktemp("modal")
    python = container_python(ENGINE_DATA / "test-cache", SYNC_PACKAGES)
    made = ModalCloud.start(folder / "cloud", container_python=python, hide=[REPOSITORY])
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    run_modal(made, environ, "secret", "create", "hf-credentials", f"HF_TOKEN={TOKEN}")
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        made.put("owner/repo/loras/anna.safetensors", CONTENT)
        made.gated.add("owner/repo")
        yield made


@pytest.fixture
def models_cli(tmp_path: Path, cloud: ModalCloud, hub: ModelHub, make_cli: Callable[[Path], Cli]) -> ModalCli:
    made = make_cli(tmp_path / "state")
    (made.cwd / "comfymodal.yaml").write_text("version: 1\nproject: library\ntarget: modal\n")
    environ = {**made.environ, **cloud.environ, "HF_ENDPOINT": hub.url}
    return ModalCli(made.cwd, environ, cloud, "library")


@pytest.mark.soak
def test_a_gated_model_goes_straight_to_the_volume_and_is_tidied_there(models_cli: ModalCli, hub: ModelHub) -> None:
    folder = models_cli.cloud.volume_folder
    unasked = models_cli("models", "add", SOURCE, "--json")
    added = models_cli("models", "add", SOURCE, "--yes", "--json")
    listed = models_cli("models", "list", "--json")
    info = models_cli("models", "info", "anna.safetensors", "--json")
    removed = models_cli("models", "rm", "anna.safetensors", "--yes", "--json")
    trash = models_cli("trash", "list", "--json")
    back = models_cli("trash", "restore", "loras/anna.safetensors", "--json")

    assert (unasked.code, unasked.error["code"]) == (4, "not_ready")
    assert added.code == 0, added.stderr
    result = added.json["data"]["result"]
    assert (result["action"], result["sha256"]) == ("downloaded", hashlib.sha256(CONTENT).hexdigest())
    assert (added.run["target"], added.run["cost"] is not None) == ("modal", True)
    assert [(each["path"], each["size_bytes"]) for each in listed.json["data"]["models"]] == [
        ("loras/anna.safetensors", len(CONTENT))
    ]
    assert (info.json["data"]["title"], info.json["data"]["rank"]) == ("Anna", 8)
    assert removed.json["data"]["paths"][0]["result"] == "trashed"
    assert [row["path"] for row in trash.json["data"]["files"]] == ["loras/anna.safetensors"]
    assert back.json["data"]["paths"][0]["result"] == "restored"
    assert (folder("comfy-models") / "loras/anna.safetensors").read_bytes() == CONTENT
    # The token was in Modal's secret alone: nobody here asked the hub with it.
    assert TOKEN not in added.stdout + added.stderr
    # What only takes a moment leaves no run behind.
    assert len(list((folder("comfy-outputs") / "runs").iterdir())) == 1
