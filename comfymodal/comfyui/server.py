"""A ComfyUI process: what it is started with, where it finds models, when it answers, what its log says."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfymodal.comfyui.client import UnreachableError, get_json
from comfymodal.errors import ServiceError
from comfymodal.files import write_text

MODEL_FOLDERS = (
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "latent_upscale_models",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
    "background_removal",
    "frame_interpolation",
    "geometry_estimation",
    "optical_flow",
    "detection",
)
"""`folder_paths` of 0.3.75, then what later releases added. Folders that do not exist do no harm."""

LEGACY_MODEL_FOLDERS = {
    "text_encoders": ("clip",),
    "diffusion_models": ("unet",),
    "controlnet": ("t2i_adapter",),
}
"""Older names of the same folder; people's volumes still use them."""

MAX_UPLOAD_MB = 16384
"""ComfyUI's default of 100 MB refuses ordinary videos."""

_DEVICE_PROBE = (
    "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available() or "
    "(hasattr(torch, 'xpu') and torch.xpu.is_available()))"
)
_FOREIGN_PYTHON = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one ComfyUI: `argv` up to and including main.py, then `arguments`.

    `{folder}` in an argument stands for the engine's own folder, which has an empty `web` in it. `probes_device`
    asks the Python for a GPU before each start: without one ComfyUI must be told `--cpu`, or it dies while starting.
    """

    name: str
    argv: tuple[str, ...]
    arguments: tuple[str, ...]
    cwd: str
    probes_device: bool
    models: str | None
    idle_stop_s: float | None
    boot_timeout_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Launch:
        lists = {key: tuple(data[key]) for key in ("argv", "arguments")}
        return cls(**{**data, **lists})


def needs_cpu_flag(python: str) -> bool:
    """Whether this Python's PyTorch finds no accelerator. False when it cannot be asked: ComfyUI's log says why."""
    try:
        done = subprocess.run([python, "-c", _DEVICE_PROBE], capture_output=True, timeout=120, check=False, cwd=os.sep)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.split()[-1:] == [b"False"]


def build_argv(launch: Launch, *, folder: Path, port: int) -> list[str]:
    """The whole command line; `folder` is where this engine keeps outputs, temporary files and settings."""
    (folder / "web").mkdir(exist_ok=True)
    model_paths = (
        ["--extra-model-paths-config", str(write_model_paths(Path(launch.models), folder))] if launch.models else []
    )
    return [
        *launch.argv,
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--output-directory", str(folder / "output"), "--temp-directory", str(folder)),
        *("--max-upload-size", str(MAX_UPLOAD_MB), "--dont-print-server"),
        *model_paths,
        *(["--cpu"] if launch.probes_device and needs_cpu_flag(launch.argv[0]) else []),
        *(argument.replace("{folder}", str(folder)) for argument in launch.arguments),
    ]


def write_model_paths(models: Path, folder: Path) -> Path:
    """Write the YAML that makes ComfyUI look for models under `models` first; return its path.

    Symlinks into ComfyUI's own models folder do not work: it ships every type's folder already.
    """
    try:
        found = {entry.name for entry in models.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        found = set()
    legacy = {name for names in LEGACY_MODEL_FOLDERS.values() for name in names}
    names = [*MODEL_FOLDERS, *sorted(found - set(MODEL_FOLDERS) - legacy - {"custom_nodes"})]
    section: dict[str, Any] = {"base_path": str(models), "is_default": True}
    for name in names:
        section[name] = "\n".join([name, *LEGACY_MODEL_FOLDERS.get(name, ())])
    path = folder / "extra_model_paths.yaml"
    # JSON is YAML, and quotes every name.
    write_text(path, json.dumps({"comfymodal": section}, indent=1))
    return path


def start(argv: Sequence[str], *, cwd: str, log: Path) -> subprocess.Popen[bytes]:
    """Start ComfyUI with its output in `log`: a pipe nobody reads would freeze it after 64 KiB."""
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN_PYTHON}
    environment["PYTHONUNBUFFERED"] = "1"
    with log.open("ab") as stream:
        return subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )


def free_port() -> int:
    """A port nobody listens on now. Somebody may take it before ComfyUI does: the caller must try again then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether a ComfyUI answers there; any other server does not count."""
    try:
        return "comfyui_version" in get_json(url, "/system_stats", timeout_s=timeout_s).get("system", {})
    except (UnreachableError, ServiceError, AttributeError, TypeError):
        return False


def last_lines(log: Path, *, count: int = 12) -> str:
    """The end of a log as a person would read it; empty when there is none."""
    lines = [line for line in read_from(log, max(0, _size(log) - 16384)).splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def read_from(log: Path, position: int) -> str:
    """What a log holds from byte `position` on, without colours and with progress bars on lines of their own."""
    try:
        with log.open("rb") as stream:
            stream.seek(position)
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
