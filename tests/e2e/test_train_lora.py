"""A true LoRA by `comfymodal train`, on this machine and on Modal: ComfyUI paints with what either of them learned."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfymodal.comfyui.child import LOG_FILE
from comfymodal.training.ai_toolkit.layout import LOSS_FILE
from comfymodal.training.ai_toolkit.losses import read_losses
from comfymodal.training.weights import read_weights
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.e2e.modal_world import REPOSITORY
from tests.tiny_lora import (
    copy_toolkit,
    native_config,
    pixels,
    read_numbers,
    require_learned,
    toolkit_environ,
    write_dataset,
)

# The first time on a machine the trainer's environment is made, beside the engine's.
pytestmark = pytest.mark.timeout(900)

NAME, STEPS, SAVE_EVERY, KILLED_AT = "lighthouse", 20, 8, 12
UNKNOWN = "lora key not loaded"


@pytest.fixture
def loras(session_state: Path) -> Iterator[Path]:
    """Those of the session's engine; what a test puts there is gone after it."""
    folder = session_state / "volumes" / "comfy-models" / "loras"
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


@pytest.fixture(scope="module")
def painted() -> dict[str, bytes]:
    return {}


@pytest.fixture
def plain(cli: Cli, loras: Path, painted: dict[str, bytes]) -> bytes:
    """What ComfyUI paints with a LoRA that fits nowhere, and so with none; it says that it did not fit."""
    if not painted:
        write_stranger(loras / "stranger.safetensors")
        painted["plain"] = pixels(cli, "stranger.safetensors")
        # Without this nobody knew that the words are still those.
        assert any(UNKNOWN in text for text in logs_of(cli).values())
    return painted["plain"]


@pytest.fixture(scope="module")
def cloud(trainer_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    """A control plane whose training images hold the tiny trainer."""
    folder = tmp_path_factory.mktemp("lora")
    made = ModalCloud.start(
        folder / "cloud",
        container_python=container_python(ENGINE_DATA / "test-cache"),
        image_env=toolkit_environ(trainer_python, toolkit=copy_toolkit(folder / "toolkit")),
        hide=[REPOSITORY],
    )
    yield made
    made.stop()


def test_on_this_machine_it_is_killed_and_learned_to_its_end(
    cli: Cli, loras: Path, plain: bytes, trainer_python: Path, tiny_diffusers: Path
) -> None:
    write_dataset(cli.cwd / "pictures")
    write_config(cli, model=str(tiny_diffusers), dataset="./pictures")
    killed = with_trainer(cli, trainer_python, f"kill_at={KILLED_AT}")("train", "train.json", "--json")
    assert (killed.code, killed.error["cause"]) == (1, "host_memory"), killed.stderr
    done = with_trainer(cli, trainer_python)("runs", "resume", killed.run["id"], "--json")

    assert done.code == 0, done.stderr
    training = done.json["data"]["training"]
    assert (training["resumed_from"], training["step"]) == (SAVE_EVERY, STEPS)
    lora, store = loras / f"{NAME}.safetensors", cli.state / "volumes" / "training-data" / "runs" / killed.run["id"]
    require_trained(lora, store)
    require_falling(store / LOSS_FILE)
    require_fitting(cli, lora, plain)


def test_on_modal_the_same_is_learned(
    cloud: ModalCloud, cli: Cli, loras: Path, plain: bytes, tiny_diffusers: Path, tmp_path: Path
) -> None:
    made = modal_cli(cloud, cli, tmp_path / "modal")
    write_dataset(tmp_path / "pictures")
    put(made, "comfy-datasets", tmp_path / "pictures", "/noise")
    put(made, "comfy-models", tiny_diffusers, "/diffusers/tiny")
    write_config(made, model="models:/diffusers/tiny", dataset="volume:/noise")
    done = made("train", "train.json", "--yes", "--json", timeout_s=300)

    assert done.code == 0, done.stderr
    published = cloud.volume_folder("comfy-models") / "loras" / f"{NAME}.safetensors"
    (fetched,) = (Path(each["path"]) for each in done.outputs if each["kind"] == "lora")
    assert fetched.read_bytes() == published.read_bytes()
    require_trained(published, cloud.volume_folder("training-data") / "runs" / done.run["id"])
    lora = loras / "of-modal.safetensors"
    shutil.copy(published, lora)
    require_fitting(cli, lora, plain)


def modal_cli(cloud: ModalCloud, cli: Cli, folder: Path) -> Cli:
    """A command line that trains on Modal, with nothing of the other's."""
    folder.mkdir()
    (folder / "comfymodal.yaml").write_text("version: 1\nproject: lora\ntarget: modal\n")
    return Cli(folder, {**cli.environ, **cloud.environ, "COMFYMODAL_STATE_DIR": str(folder / "state")})


def put(cli: Cli, volume: str, source: Path, path: str) -> None:
    """As the guides do it."""
    for arguments in (("create", volume), ("put", volume, source, path)):
        command = [sys.executable, "-m", "modal", "volume", *map(str, arguments)]
        subprocess.run(command, env=dict(cli.environ), capture_output=True, check=True)


def write_config(cli: Cli, *, model: str, dataset: str) -> None:
    config = native_config(NAME, model=model, dataset=dataset, steps=STEPS, save_every=SAVE_EVERY)
    (cli.cwd / "train.json").write_text(json.dumps(config))


def with_trainer(cli: Cli, python: Path, faults: str = "") -> Cli:
    return replace(cli, environ={**cli.environ, **toolkit_environ(python, faults=faults)})


def require_trained(lora: Path, store: Path) -> None:
    """To its last step, and beyond what its run kept first."""
    found = read_weights(lora)
    assert (found.step, found.not_finite, found.tensors) == (STEPS, (), 36)
    (early,) = store.glob(f"checkpoints/*/{NAME}_{SAVE_EVERY:09d}.safetensors")
    require_learned(read_numbers(lora), read_numbers(early))


def require_falling(log: Path) -> None:
    losses = read_losses(log)
    values = [loss.value for loss in losses]
    # The last ones before the kill were not written yet.
    assert losses[0].step < SAVE_EVERY < losses[-1].step == STEPS - 1
    assert all(math.isfinite(value) for value in values)
    assert statistics.mean(values[-5:]) < 0.6 * statistics.mean(values[:3])


def require_fitting(cli: Cli, lora: Path, plain: bytes) -> None:
    """ComfyUI takes all of it, and paints something else."""
    before = logs_of(cli)
    assert pixels(cli, lora.name) != plain
    said = "".join(text.removeprefix(before.get(path, "")) for path, text in logs_of(cli).items())
    assert "Prompt executed" in said
    assert UNKNOWN not in said


def logs_of(cli: Cli) -> dict[Path, str]:
    """Of every engine of the session: other tests have theirs with other settings."""
    return {path: path.read_text() for path in (cli.state / "engines").glob(f"*/{LOG_FILE}")}


def write_stranger(path: Path) -> None:
    """A LoRA of a model with more transformers than ours."""
    key = "lora_unet_up_blocks_3_attentions_2_proj_in"
    header = {
        f"{key}.{part}.weight": {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 64]}
        for part, shape, at in (("lora_down", [1, 32], 0), ("lora_up", [32, 1], 64))
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(128))
