"""boot.py and probe_script.py as the engine's Python runs them, beside a torch whose companions do not match it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfymodal.comfyui import boot
from comfymodal.comfyui.install import probe_script

TORCH = """
from types import SimpleNamespace
class Library:
    defined = []
    def __init__(self, namespace, kind): self.namespace = namespace
    def define(self, schema): Library.defined.append(f"{self.namespace}::{schema.partition('(')[0]}")
library = SimpleNamespace(Library=Library)
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
__version__ = "2.13.0+stand.in"
"""
TORCHVISION = """
import torch
for name in ("nms", "qnms"):
    if f"torchvision::{name}" not in torch.library.Library.defined:
        raise RuntimeError(f"operator torchvision::{name} does not exist")
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "torch.py").write_text(TORCH)
    (folder / "torchvision.py").write_text(TORCHVISION)
    return folder


def run(packages: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_boot_does_nothing() -> None:
    before = list(sys.meta_path)
    importlib.reload(boot)
    assert sys.meta_path == before


def test_a_script_runs_as_python_would_run_it(tmp_path: Path, packages: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import json, sys; print(json.dumps([__name__, __file__, sys.argv, sys.path[0], 'torch' in sys.modules]))"
    )
    through_boot = run(packages, boot.__file__, "--shim", "torchvision-ops", script, "--port", "1")
    assert json.loads(through_boot.stdout) == json.loads(run(packages, script, "--port", "1").stdout)


def test_an_unknown_shim_is_refused(tmp_path: Path, packages: Path) -> None:
    ended = run(packages, boot.__file__, "--shim", "other", tmp_path / "main.py")
    assert ended.returncode == 1
    assert "does not know the shim 'other'" in ended.stderr


def test_the_probe_names_what_does_not_import(packages: Path) -> None:
    ended = run(packages, boot.__file__, probe_script.__file__, "torch", "torchvision", "json", "comfymodal_nothing")
    assert json.loads(ended.stdout) == {
        "device": "cpu",
        "torch": "2.13.0+stand.in",
        "failures": {
            "torchvision": "RuntimeError: operator torchvision::nms does not exist",
            "comfymodal_nothing": "ModuleNotFoundError: No module named 'comfymodal_nothing'",
        },
    }


def test_the_shim_lets_torchvision_import(packages: Path) -> None:
    ended = run(packages, boot.__file__, "--shim", "torchvision-ops", probe_script.__file__, "torchvision")
    assert json.loads(ended.stdout)["failures"] == {}
