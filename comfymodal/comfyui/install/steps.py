"""An engine install inside its partial folder: each step is skipped when its marker says that it is done."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from comfymodal.comfyui.install.pip import Meter, disk_full, pip_error, run_pip, run_python
from comfymodal.comfyui.install.plan import TorchSource
from comfymodal.errors import ComfymodalError, NotReadyError


class Recipe(Protocol):
    """What an engine is made of and in which order; the private environment comes before all of it."""

    @property
    def pip(self) -> Path:
        """The lock of the pip that installs everything else."""

    def steps(self) -> tuple[tuple[str, Callable[[Site], None]], ...]:
        """Names and steps; a step is skipped when it was done, and done again whole when it was not."""

    def stamp(self) -> bytes:
        """Changes when anything that would be installed does."""

    def imports(self, site: Site) -> tuple[str, ...]:
        """What must import in the finished environment."""

    def check(self, site: Site, shims: tuple[str, ...]) -> None:
        """Called after everything imports. Raises `ServiceError` when the engine is no good all the same."""


@dataclass(frozen=True, slots=True)
class Site:
    """One install under way: everything lives in `folder` until it is renamed."""

    folder: Path
    recipe: Recipe
    torch: TorchSource
    on_event: Callable[[dict[str, Any]], None]
    expected_bytes: Mapping[str, int]

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return self.venv / ("Lib" if sys.platform == "win32" else f"lib/{version}") / "site-packages"

    @property
    def comfyui(self) -> Path:
        return self.folder / "ComfyUI"

    @property
    def scratch(self) -> Path:
        return self.folder / "tmp"

    def meter(self, step: str, message: str) -> Meter:
        meter = Meter(step, self.on_event, message, self.expected_bytes.get(step))
        meter.announce(message)
        return meter


def run_steps(site: Site) -> None:
    """Do what is not done yet. Raises `NotReadyError`, `ServiceError`, or OSError (a full disk among them)."""
    _clear_leftovers(site)
    for name, step in (("environment", make_environment), *site.recipe.steps()):
        marker = site.folder / f"{name}.done"
        if not marker.exists():
            step(site)
            marker.write_text(_stamp(site), encoding="utf-8")


def _clear_leftovers(site: Site) -> None:
    """Keep of an interrupted install only what fits this one and is whole."""
    environment = site.folder / "environment.done"
    if not environment.exists() or environment.read_text(encoding="utf-8") != _stamp(site):
        if site.folder.exists():
            shutil.rmtree(site.folder)
        site.folder.mkdir(parents=True)
        return
    shutil.rmtree(site.scratch, ignore_errors=True)
    if forget_damaged(site.site_packages):
        for name in ("packages", "torch"):
            (site.folder / f"{name}.done").unlink(missing_ok=True)


def _stamp(site: Site) -> str:
    machine = f"{platform.python_version()} {sys.platform} {sys.base_prefix} {platform.machine()}"
    return hashlib.sha256(b"\0".join([site.recipe.stamp(), site.torch.build.encode(), machine.encode()])).hexdigest()


def forget_damaged(site_packages: Path) -> int:
    """Remove the dist-info of every package that lacks files, so that pip installs it anew; say how many.

    A killed pip leaves such packages: it would take them for installed, and cannot uninstall them either.
    """
    damaged = [info for info in site_packages.glob("*.dist-info") if not _is_whole(info)]
    for info in damaged:
        shutil.rmtree(info)
    return len(damaged)


def _is_whole(info: Path) -> bool:
    try:
        with (info / "RECORD").open(encoding="utf-8", newline="") as lines:
            files = [(row[0], row[2]) for row in csv.reader(lines) if len(row) == 3]
        # Compiled files have no size in a RECORD, and do without.
        return all(not size or (info.parent / name).stat().st_size == int(size) for name, size in files)
    except (OSError, ValueError):
        return False


def make_environment(site: Site) -> None:
    """Make the private environment and bring its pip to the pinned one."""
    meter = site.meter("environment", "creating a private Python environment")
    finished = run_python(
        [sys.executable, "-m", "venv", site.venv], scratch=site.scratch, on_line=meter.line, on_tick=meter.tick
    )
    if finished.code != 0:
        raise disk_full(finished) or NotReadyError(
            f"cannot create a Python environment: {(finished.lines or ('no output',))[-1]}",
            hint=f"find out why `{sys.executable} -m venv` fails, or install comfymodal under another Python",
            log=list(finished.lines[-12:]),
        )
    meter.announce("updating its pip")
    # Not run_pip: ensurepip's pip may be too old for the progress it asks for.
    command: list[str | Path] = [site.python, "-m", "pip", "install", "-q", "--no-input", "--no-user", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", "-r", site.recipe.pip]
    finished = run_python(command, scratch=site.scratch, on_tick=meter.tick)
    if finished.code != 0:
        raise disk_full(finished) or pip_error(finished.lines, doing=meter.message)


def install_torch(site: Site, torch: str, companions: Sequence[str], *, constraints: Sequence[str]) -> None:
    """Install torch and its companions, from the index that was chosen, else from the package index."""
    meter = site.meter("torch", f"collecting torch ({site.torch.build} build)")
    constraints_file = site.folder / "constraints.txt"
    constraints_file.write_text("\n".join(constraints), encoding="utf-8")
    _install_from(site, meter, ["-c", str(constraints_file), torch])
    if companions:
        # They may ask for another torch; whether they work with this one is what the probe finds out.
        _install_from(site, meter, ["--no-deps", *companions])


def _install_from(site: Site, meter: Meter, arguments: list[str]) -> None:
    if site.torch.index is not None:
        try:
            chosen = ["install", "--no-user", "--index-url", site.torch.index, *arguments]
            return run_pip(site.python, chosen, scratch=site.scratch, meter=meter)
        except ComfymodalError:
            meter.announce(f"{site.torch.index} failed; using the package index")
    return run_pip(site.python, ["install", "--no-user", *arguments], scratch=site.scratch, meter=meter)


def require_python() -> None:
    """Raises `NotReadyError` when this Python cannot make the engine's environment."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        raise NotReadyError(
            f"the engine needs Python 3.11 to 3.14; this is {platform.python_version()}",
            hint="install comfymodal under one of those, or name your own ComfyUI with comfyui.path",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise NotReadyError("this Python cannot make environments: venv is missing", hint="apt install python3-venv")
