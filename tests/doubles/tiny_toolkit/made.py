"""What the tiny trainer needs, made once per machine: an environment of its own, and a model."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from comfymodal.comfyui.engines import EngineInstall
from comfymodal.comfyui.install.plan import TORCH_VERSION, choose_torch
from tests.once import PYTHON_TAG, fill_environment, made_once

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONVERT = Path(__file__).parents[2] / "data" / "tiny_diffusers.py"


def trainer_python(cache: Path) -> Path:
    """Not the engine's: their pins clash. Two minutes and 1.2 GB the first time. Raises `CalledProcessError`."""

    def make(folder: Path) -> None:
        torch = choose_torch()
        index = ["--index-url", torch.index] if torch.index else []
        fill_environment(folder, [*index, f"torch=={TORCH_VERSION}"], ["-r", REQUIREMENTS])

    name = f"trainer-torch-{TORCH_VERSION}-{_digest(REQUIREMENTS.read_bytes())}-{PYTHON_TAG}"
    return made_once(cache, name, make) / "bin" / "python"


def tiny_diffusers(cache: Path, *, python: Path, engine: EngineInstall, checkpoint: Path) -> Path:
    """The model of *checkpoint* as a folder of diffusers. Raises `CalledProcessError`."""

    def make(folder: Path) -> None:
        subprocess.run([python, CONVERT, checkpoint, engine.comfyui_path, folder], check=True)

    about = _digest(CONVERT.read_bytes(), REQUIREMENTS.read_bytes(), checkpoint.read_bytes())
    return made_once(cache, f"tiny-diffusers-{about}", make)


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]
