"""A true LoRA in tests: what it is trained with, whether it was learned, whether ComfyUI paints with it."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from comfymodal.training.ai_toolkit.command import PATH_VARIABLE, PYTHON_VARIABLE
from tests.conftest import WORKFLOWS, Cli

TOOLKIT = Path(__file__).parent / "doubles" / "tiny_toolkit"
MODULES = 12
"""In the one transformer of the tiny UNet."""

PICTURES = 5


def toolkit_environ(python: Path, *, faults: str = "", toolkit: Path = TOOLKIT) -> dict[str, str]:
    return {
        PATH_VARIABLE: str(toolkit),
        PYTHON_VARIABLE: str(python),
        "STANDIN_FAULTS": faults,
        "STANDIN_STEP_S": "0",
    }


def write_dataset(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        # Noise: pictures that look alike are a warning. One caption: each is a third of a second.
        Image.frombytes("RGB", (64, 64), random.Random(number).randbytes(64 * 64 * 3)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("[trigger] at dusk")


def native_config(name: str, *, model: str, dataset: str, steps: int = 20, save_every: int = 8) -> dict[str, Any]:
    process = {
        "type": "diffusion_trainer",
        "training_folder": "/tmp/run",
        "device": "cpu",
        "trigger_word": "p3rson",
        "model": {"name_or_path": model, "arch": "sd1"},
        "network": {"type": "lora", "linear": 4, "linear_alpha": 4},
        # Of a real one it is a hundredth; twenty steps shall be seen.
        "train": {"steps": steps, "lr": 0.01, "dtype": "fp32", "optimizer": "adamw", "noise_scheduler": "ddpm"},
        "save": {"save_every": save_every, "max_step_saves_to_keep": 4, "dtype": "float16"},
        "datasets": [{"folder_path": dataset, "caption_ext": ".txt", "resolution": [64]}],
        "sample": {
            "prompts": ["[trigger] at dusk"],
            "sample_every": steps,
            "width": 64,
            "height": 64,
            "sampler": "ddpm",
        },
    }
    return {"job": "extension", "config": {"name": name, "process": [process]}}


def read_numbers(path: Path) -> dict[str, tuple[float, ...]]:
    """Every tensor of a file in half precision, flat."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F16"
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = struct.unpack(f"<{(end - begin) // 2}e", content[begin:end])
    return found


def require_learned(final: Mapping[str, tuple[float, ...]], before: Mapping[str, tuple[float, ...]]) -> None:
    """Every part of every module: what begins at zero is zero no longer, and all of it moved after *before*."""
    ups = [name for name in final if name.endswith(".lora_up.weight")]
    downs = [name for name in final if name.endswith(".lora_down.weight")]
    assert len(ups) == len(downs) == MODULES
    assert all(any(final[name]) for name in ups)
    assert all(final[name] != before[name] for name in ups + downs)


def pixels(cli: Cli, lora: str, *, strength: float = 1.0) -> bytes:
    """What ComfyUI paints of one seed with a LoRA of its library."""
    wanted = ("--set", f"Lora.lora_name={lora}", "--set", f"Lora.strength_model={strength}")
    done = cli("render", WORKFLOWS / "tiny_lora.json", *wanted, "--json", timeout_s=300)
    assert done.code == 0, done.stderr
    (output,) = done.outputs
    with Image.open(output["path"]) as picture:
        # Not the file: it holds the workflow too.
        return picture.tobytes()


def copy_toolkit(folder: Path) -> Path:
    """Where containers see it, which do not see this checkout. Returns what `toolkit_environ` takes."""
    for package in ("tests", "tests/doubles"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    for package in (TOOLKIT.name, "trainer"):
        shutil.copytree(TOOLKIT.parent / package, folder / "tests" / "doubles" / package)
    return folder / "tests" / "doubles" / TOOLKIT.name
