"""A ComfyUI process: what it is started with, where it finds models, when it answers, what its log says."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfymodal.comfyui.ask import UnreachableError, get_json
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

FRESH = "fresh"
"""In an engine's folder: empty folders whose only use is that their times change."""

_NO_MODEL_FOLDERS = {"custom_nodes", "base_path", "is_default"}
"""Names that mean something else in ComfyUI's file of model paths."""

MAX_UPLOAD_MB = 16384
"""ComfyUI's default of 100 MB refuses ordinary videos."""

_DEVICE_PROBE = (
    "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available() or "
    "(hasattr(torch, 'xpu') and torch.xpu.is_available()))"
)
_FOREIGN_PYTHON = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
_SURROGATE_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
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
    mounts: tuple[str, ...] = ()
    """Further folders like `models`, looked through after it: buckets. What comes to them needs `renew_lists`."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Launch:
        lists = {key: tuple(data.get(key) or ()) for key in ("argv", "arguments", "mounts")}
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
    model_paths = []
    if launch.models:
        written = write_model_paths(Path(launch.models), folder, [Path(mount) for mount in launch.mounts])
        model_paths = ["--extra-model-paths-config", str(written)]
    return [
        *launch.argv,
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--output-directory", str(folder / "output"), "--temp-directory", str(folder)),
        *("--max-upload-size", str(MAX_UPLOAD_MB), "--dont-print-server"),
        *model_paths,
        *(["--cpu"] if launch.probes_device and needs_cpu_flag(launch.argv[0]) else []),
        *(argument.replace("{folder}", str(folder)) for argument in launch.arguments),
    ]


def write_model_paths(models: Path, folder: Path, mounts: Sequence[Path] = ()) -> Path:
    """Write the YAML that makes ComfyUI look for models under `models` first, then under `mounts`; return its path.

    Symlinks into ComfyUI's own models folder do not work: it ships every type's folder already.
    """
    found = set[str]().union(*(_folders_in(place) for place in (models, *mounts)))
    legacy = {name for names in LEGACY_MODEL_FOLDERS.values() for name in names}
    names = [*MODEL_FOLDERS, *sorted(found - set(MODEL_FOLDERS) - legacy - _NO_MODEL_FOLDERS)]
    places = {name: "\n".join([name, *LEGACY_MODEL_FOLDERS.get(name, ())]) for name in names}
    sections: dict[str, Any] = {"comfymodal": {"base_path": str(models), "is_default": True, **places}}
    for number, mount in enumerate(mounts, 1):
        sections[f"mount{number}"] = {"base_path": str(mount), **places}
    if mounts:
        sections[FRESH] = {"base_path": str(folder / FRESH), **places}
    path = folder / "extra_model_paths.yaml"
    # JSON is YAML, and quotes every name; but YAML writes DEL, and what lies beyond 16 bits, in its own way.
    text = json.dumps(sections, indent=1).replace("\x7f", "\\x7f")
    write_text(path, _SURROGATE_PAIR.sub(lambda pair: f"\\U{_code_point(pair):08x}", text))
    return path


def renew_lists(folder: Path, names: Iterable[str]) -> None:
    """Make the ComfyUI that was started with mounts list these model folders anew; `folder` is the engine's.

    It keeps a list until the time of a folder changes, and in a mounted bucket that of no folder ever does.
    """
    for name in names:
        place = folder / FRESH / name
        place.mkdir(parents=True, exist_ok=True)
        os.utime(place)


def _folders_in(place: Path) -> set[str]:
    try:
        return {entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        return set()


def _code_point(pair: re.Match[str]) -> int:
    return 0x10000 + ((int(pair[1], 16) & 0x3FF) << 10) + (int(pair[2], 16) & 0x3FF)


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
    return tail(read_end(log), count=count)


def tail(text: str, *, count: int = 12) -> str:
    """The last lines that say something."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def read_end(log: Path) -> str:
    """As much of a log's end as says how a start went; empty when there is none."""
    return read_from(log, max(0, _size(log) - 65536))


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
