"""What makes an engine's kept answers out of date, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from comfymodal.comfyui.catalog import Catalog, is_current
from comfymodal.comfyui.fingerprint import engine_signature, files_digest, input_folder
from comfymodal.comfyui.server import Launch


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """An installation with one custom node and one checkpoint."""
    comfyui = tmp_path / "ComfyUI"
    for folder in ("custom_nodes/pack/.git/logs", "comfy_extras", "input/comfymodal", "models/checkpoints"):
        (comfyui / folder).mkdir(parents=True)
    for file in ("nodes.py", "comfyui_version.py", "comfy_extras/nodes_mask.py", "custom_nodes/pack/.git/logs/HEAD"):
        (comfyui / file).touch()
    volume = tmp_path / "volume"
    (volume / "checkpoints").mkdir(parents=True)
    (volume / "checkpoints" / "a.ckpt").touch()
    return Launch("comfyui-1", ("python", "main.py"), (), str(comfyui), False, str(volume), None, 60)


def kept(launch: Launch, folder: Path) -> Catalog:
    folders = [f"{launch.models}/checkpoints", f"{launch.models}/loras", f"{launch.cwd}/models/checkpoints"]
    return Catalog(
        comfyui_version="1",
        device="cpu",
        object_info={},
        models={},
        model_folders=folders,
        fetched_at=0,
        signature=engine_signature(launch, folder).digest,
        files=files_digest(folders, flat=[input_folder(launch, folder)]),
    )


def later(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (4e9, 4e9))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda own, volume: later(volume / "checkpoints" / "b.ckpt"), id="model-added"),
        pytest.param(lambda own, volume: later(volume / "checkpoints" / "sub" / "b.ckpt"), id="model-in-subfolder"),
        pytest.param(lambda own, volume: later(volume / "loras" / "b.ckpt"), id="model-in-a-new-folder"),
        pytest.param(lambda own, volume: (volume / "checkpoints" / "a.ckpt").unlink(), id="model-removed"),
        pytest.param(lambda own, volume: later(own / "models" / "checkpoints" / "c.ckpt"), id="model-of-the-install"),
        pytest.param(lambda own, volume: later(own / "input" / "photo.png"), id="input-added"),
        pytest.param(lambda own, volume: (own / "custom_nodes" / "other").mkdir(), id="custom-node-added"),
        pytest.param(lambda own, volume: later(own / "custom_nodes" / "pack" / ".git" / "logs" / "HEAD"), id="pulled"),
        pytest.param(lambda own, volume: later(own / "nodes.py"), id="comfyui-updated"),
        pytest.param(lambda own, volume: later(own / "comfy_extras" / "nodes_new.py"), id="comfyui-has-new-nodes"),
        pytest.param(lambda own, volume: (volume / "yolo").mkdir(), id="model-kind-of-a-custom-node"),
    ],
)
def test_a_change_makes_what_was_kept_out_of_date(
    launch: Launch, tmp_path: Path, change: Callable[[Path, Path], object]
) -> None:
    catalog = kept(launch, tmp_path)
    assert is_current(catalog, launch, tmp_path)

    change(Path(launch.cwd), Path(str(launch.models)))

    assert not is_current(catalog, launch, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda own, volume: later(own / "input" / "comfymodal" / "up.png"), id="upload-of-ours"),
        pytest.param(lambda own, volume: later(own / "output" / "image_1.png"), id="output"),
        pytest.param(lambda own, volume: later(own / "custom_nodes" / "__pycache__" / "x.pyc"), id="bytecode"),
        pytest.param(lambda own, volume: (volume / "loras").mkdir(), id="empty-folder-of-a-known-kind"),
    ],
)
def test_what_an_engine_does_not_list_changes_nothing(
    launch: Launch, tmp_path: Path, change: Callable[[Path, Path], object]
) -> None:
    catalog = kept(launch, tmp_path)

    change(Path(launch.cwd), Path(str(launch.models)))

    assert is_current(catalog, launch, tmp_path)


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.ckpt").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)

    assert files_digest([str(tmp_path / "a")]) is not None


def test_the_newest_change_is_told_for_engines_that_started_before_it(launch: Launch, tmp_path: Path) -> None:
    later(Path(launch.cwd) / "custom_nodes" / "new.py")

    assert engine_signature(launch, tmp_path).changed_at == 4e9
