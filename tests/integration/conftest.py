"""A package index of tiny wheels, so that real pip makes real environments in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfymodal.comfyui.install.package import ENGINE
from tests.doubles.wheels import fill_shelf


@pytest.fixture(scope="session")
def pip_wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned pip, once: the only thing here that comes from the package index."""
    folder = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", str(folder)]
    got = subprocess.run([*command, "-r", str(ENGINE.pip)], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"the package index cannot be reached: {got.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def shelf(tmp_path: Path, pip_wheel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip finds in this test; what would lead it astray is set, and must not reach the environment."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    fill_shelf(shelf)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{shelf} {pip_wheel_folder}")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return shelf
