"""What takes minutes to make is made once per machine, in a cache folder that every session finds again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

PYTHON_TAG = f"py{sys.version_info.major}.{sys.version_info.minor}"


def made_once(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name in *cache*. When it is not there *make* fills it: whole or not at all, one at a time."""
    folder = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        if not folder.exists():
            new = cache / f".{name}-{uuid.uuid4().hex}"
            try:
                make(new)
                # Scripts know the old name, but an interpreter finds its environment by where it is.
                new.rename(folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return folder


def fill_environment(folder: Path, *installs: Sequence[str | Path]) -> None:
    """Make a Python environment there; each of *installs* is the arguments of one `pip install`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    for arguments in installs:
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *arguments], check=True)
