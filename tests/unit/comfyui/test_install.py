"""The embedded engine's values: finding it, starting it, planning and refusing an install. No network."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import ENGINE_VERSION, EngineInstall, find_install, launch_argv
from comfymodal.comfyui.install.engine import install, plan_install
from comfymodal.comfyui.install.plan import InstallPlan
from comfymodal.errors import NotReadyError

DESCRIPTION = {
    "version": ENGINE_VERSION,
    "comfyui_path": "ComfyUI",
    "python": "venv/bin/python",
    "device": "cpu",
    "shims": ["torchvision-ops"],
}


def write_engine(engines: Path, description: object = DESCRIPTION) -> Path:
    root = engines / f"comfyui-{ENGINE_VERSION}"
    (root / "ComfyUI").mkdir(parents=True)
    (root / "ComfyUI/main.py").touch()
    (root / "venv/bin").mkdir(parents=True)
    (root / "venv/bin/python").touch()
    text = description if isinstance(description, str) else json.dumps(description)
    (root / "engine.json").write_text(text, encoding="utf-8")
    return root


def a_plan(engines: Path) -> InstallPlan:
    return InstallPlan(ENGINE_VERSION, "GPL-3.0", engines / f"comfyui-{ENGINE_VERSION}", "cpu", 0, 0)


def ignore(event: dict[str, Any]) -> None:
    pass


def test_a_complete_install_is_found(tmp_path: Path) -> None:
    root = write_engine(tmp_path)
    assert find_install(tmp_path) == EngineInstall(
        version=ENGINE_VERSION,
        root=root,
        comfyui_path=root / "ComfyUI",
        python=root / "venv/bin/python",
        device="cpu",
        shims=("torchvision-ops",),
    )


def test_an_install_found_through_a_relative_folder_has_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_engine(tmp_path / "engines")
    monkeypatch.chdir(tmp_path)
    engine = find_install(Path("engines"))
    assert engine is not None
    assert all(Path(part).is_absolute() for part in launch_argv(engine) if "/" in part)


@pytest.mark.parametrize(
    "description",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut off"),
        pytest.param("\x00\x00", id="zeros after a power cut"),
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
        pytest.param({"version": ENGINE_VERSION}, id="keys missing"),
        pytest.param(DESCRIPTION | {"shims": 3}, id="shims of a wrong type"),
        pytest.param(DESCRIPTION | {"python": None}, id="python of a wrong type"),
        pytest.param(DESCRIPTION | {"version": "0.0.1"}, id="another version"),
        pytest.param(DESCRIPTION | {"python": "venv/bin/gone"}, id="python gone"),
        pytest.param(DESCRIPTION | {"comfyui_path": "gone"}, id="ComfyUI gone"),
    ],
)
def test_a_damaged_install_counts_as_none(tmp_path: Path, description: object) -> None:
    write_engine(tmp_path, description)
    assert find_install(tmp_path) is None


def test_no_folder_counts_as_none(tmp_path: Path) -> None:
    assert find_install(tmp_path / "nowhere") is None


def test_a_folder_where_the_description_should_be_counts_as_none(tmp_path: Path) -> None:
    root = write_engine(tmp_path)
    (root / "engine.json").unlink()
    (root / "engine.json").mkdir()
    assert find_install(tmp_path) is None


def test_without_shims_comfyui_starts_directly(tmp_path: Path) -> None:
    root = write_engine(tmp_path, DESCRIPTION | {"shims": []})
    engine = find_install(tmp_path)
    assert engine is not None
    assert launch_argv(engine) == [str(root / "venv/bin/python"), str(root / "ComfyUI/main.py")]


def test_with_shims_comfyui_starts_through_boot(tmp_path: Path) -> None:
    root = write_engine(tmp_path)
    engine = find_install(tmp_path)
    assert engine is not None
    python, boot, *rest = launch_argv(engine)
    assert python == str(root / "venv/bin/python")
    assert Path(boot).name == "boot.py"
    assert Path(boot).is_file()
    assert rest == ["--shim", "torchvision-ops", str(root / "ComfyUI/main.py")]


def test_an_install_that_is_there_is_returned_at_once(tmp_path: Path) -> None:
    write_engine(tmp_path)
    assert install(a_plan(tmp_path), on_event=ignore) == find_install(tmp_path)


def test_too_little_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = dataclasses.replace(a_plan(tmp_path), disk_bytes=10**18)
    with pytest.raises(NotReadyError, match=r"needs 1000000000\.0 GB .* is free") as refused:
        install(plan, on_event=ignore)
    assert refused.value.details["needed_bytes"] == 10**18
    assert refused.value.details["free_bytes"] < 10**18
    assert [path.name for path in tmp_path.iterdir() if path.name != ".install.lock"] == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotReadyError, match="cannot write the engine's folder"):
        install(a_plan(tmp_path / "file" / "engines"), on_event=ignore)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip and urllib reach nothing; wheels put into the returned folder are what pip finds."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


linux = pytest.mark.skipif(sys.platform != "linux", reason="what the package index holds differs by platform")


@linux
def test_a_plan_that_cannot_ask_the_index_assumes_the_large_build(tmp_path: Path, no_network: Path) -> None:
    plan = plan_install(tmp_path / "engines")
    assert (plan.version, plan.torch_build, plan.torch_index) == (ENGINE_VERSION, "cuda", None)
    assert plan.folder == tmp_path / "engines" / f"comfyui-{ENGINE_VERSION}"
    assert plan.licence.startswith("GPL-3.0 (ComfyUI); ")
    assert plan.disk_bytes > plan.download_bytes > 2_000_000_000
    assert not plan.folder.parent.exists()


@linux
def test_a_cpu_build_that_pip_would_take_makes_the_plan_smaller(tmp_path: Path, no_network: Path) -> None:
    (no_network / "torch-2.13.0+cpu-py3-none-any.whl").touch()
    (no_network / "torch-2.13.0-py3-none-any.whl").touch()
    plan = plan_install(tmp_path)
    assert plan.torch_build == "cpu"
    assert plan.download_bytes < 500_000_000


@linux
def test_an_index_without_our_torch_is_refused_before_anything_is_asked(tmp_path: Path, no_network: Path) -> None:
    (no_network / "torch-2.12.0-py3-none-any.whl").touch()
    with pytest.raises(NotReadyError, match=r"has no torch 2\.13\.0 for Python"):
        plan_install(tmp_path)
