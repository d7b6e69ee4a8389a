"""Find out, without installing anything, which torch build this machine gets and how large the engine will be."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import NotReadyError

TORCH_VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu/"
# The package index has only CPU builds for Windows.
WINDOWS_CUDA_INDEX = "https://download.pytorch.org/whl/cu130/"
INDEX_TIMEOUT_S = 4.0
PIP_TIMEOUT_S = 20.0


# Bytes of the wheels and of what they unpack to. cpu: measured on Linux x86_64. cuda: the same, with every nvidia
# package that torch 2.13.0 asks for. mps: estimates.
_TORCH_BYTES = {
    "cpu": (201_000_000, 800_000_000),
    "cuda": (2_750_000_000, 4_850_000_000),
    "mps": (110_000_000, 500_000_000),
}
_PACKAGES_BYTES = (148_000_000, 700_000_000)
_REST_BYTES = (11_000_000, 60_000_000)
# What ComfyUI's own requirements bring beyond the locked packages: frontend, templates, documentation, database.
_GIT_EXTRA_BYTES = (170_000_000, 500_000_000)


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What an install would do: shown to the operator before it is asked for. `torch_index` None: pip's own.

    `repository`, `tag` and `commit` say where a `git` install comes from.
    """

    version: str
    licence: str
    folder: Path
    torch_build: str
    download_bytes: int
    disk_bytes: int
    torch_index: str | None = None
    source: str = "package"
    repository: str | None = None
    tag: str | None = None
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class TorchSource:
    """Which build, and from which index; `index` None is the operator's package index."""

    build: str
    index: str | None = None


def choose_torch(version: str | None = TORCH_VERSION) -> TorchSource:
    """Look for an NVIDIA driver, then for an index that has the build that fits; `version` None is the newest.

    Takes up to a few seconds. Raises `NotReadyError` when the package index answers and has no such torch for this
    Python and platform.
    """
    nvidia = has_nvidia_driver()
    if sys.platform == "win32" and nvidia:
        return TorchSource("cuda", WINDOWS_CUDA_INDEX)
    if sys.platform == "linux" and not nvidia and _answers(CPU_INDEX):
        return TorchSource("cpu", CPU_INDEX)
    return TorchSource(_build_on_package_index(_listed_versions(), version))


def estimate_bytes(build: str, *, source: str = "package") -> tuple[int, int]:
    """What is downloaded and what stays on disk, for the whole engine; an unknown build counts as the largest."""
    parts = [_TORCH_BYTES.get(build, _TORCH_BYTES["cuda"]), _PACKAGES_BYTES, _REST_BYTES]
    if source == "git":
        parts.append(_GIT_EXTRA_BYTES)
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def step_bytes(build: str) -> dict[str, int]:
    """What the two large steps download."""
    return {"packages": _PACKAGES_BYTES[0], "torch": _TORCH_BYTES.get(build, _TORCH_BYTES["cuda"])[0]}


def has_nvidia_driver() -> bool:
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        return True
    return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll").is_file()


def _answers(url: str) -> bool:
    """Whether a GET of `url` begins within a few seconds; a thread, because resolving a name knows no timeout."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=INDEX_TIMEOUT_S):
                answered.set()
        except (OSError, ValueError):
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(INDEX_TIMEOUT_S)
    return answered.is_set()


def _build_on_package_index(listed: list[str], version: str | None) -> str:
    """What pip will take: the first listed of that version, newest first; `2.13.0+cpu` sorts above `2.13.0`."""
    ours = [each for each in listed if version in (None, each.partition("+")[0])]
    if listed and not ours:
        raise NotReadyError(
            f"your package index has no torch {version} for Python {platform.python_version()} "
            f"on {platform.system()} {platform.machine()}",
            hint="use another machine or Python, or name your own ComfyUI with comfyui.path",
        )
    local = ours[0].partition("+")[2] if ours else ""
    if local:
        return "cuda" if local.startswith("cu") else local
    # The package index's own build: with CUDA on Linux, with MPS on a Mac, for the CPU on Windows.
    return {"linux": "cuda", "darwin": "mps"}.get(sys.platform, "cpu")


def _listed_versions() -> list[str]:
    """The torch versions pip could install here, newest first; empty when it cannot be asked."""
    pip = _any_pip()
    if pip is None:
        return []
    try:
        asked = subprocess.run(
            [sys.executable, *pip, "index", "versions", "torch", "--no-input", "--disable-pip-version-check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = re.search(r"^Available versions: (.*)$", asked.stdout, re.MULTILINE)
    return found[1].split(", ") if found else []


def _any_pip() -> list[str] | None:
    """How to run a pip beside this Python: its own, or the wheel that ensurepip carries (a wheel can be run)."""
    if importlib.util.find_spec("pip"):
        return ["-m", "pip"]
    spec = importlib.util.find_spec("ensurepip")
    bundled = sorted((Path(spec.origin).parent / "_bundled").glob("pip-*.whl")) if spec and spec.origin else []
    return [str(bundled[-1] / "pip")] if bundled else None
