"""An engine from ComfyUI's git repository: a tag, its own requirements.txt, whatever the package index gives today."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.boot_failure import reason_in
from comfymodal.comfyui.engines import folder_of, version_key
from comfymodal.comfyui.install.package import ENGINE
from comfymodal.comfyui.install.pip import clean_environment, disk_full, run_pip, run_python
from comfymodal.comfyui.install.plan import InstallPlan, choose_torch, estimate_bytes
from comfymodal.comfyui.install.steps import Site, install_torch, require_python
from comfymodal.errors import NotFoundError, NotReadyError, ServiceError

OFFICIAL = "https://github.com/comfyanonymous/ComfyUI.git"
LICENCE = "GPL-3.0 (ComfyUI)"
LIST_TIMEOUT_S = 60.0

_TORCH = ("torch", "torchvision", "torchaudio")
# 0.3.75 imports it and does not list it; the transformers of that time brought it along.
_UNLISTED = ("requests",)
_BOOT = Path(__file__).parent.parent / "boot.py"


@dataclass(frozen=True, slots=True)
class Tag:
    """One released version of a repository."""

    name: str
    commit: str


def plan_git_install(engines_dir: Path, *, version: str | None, repository: str) -> InstallPlan:
    """Find out what `version` (None: the newest) of a repository is; asks it, changes nothing.

    Raises `NotReadyError` without git, `NotFoundError` for an unknown version, `ServiceError` when it cannot be read.
    """
    require_python()
    address = _address(repository)
    tags = list_tags(address)
    version = version or _newest(tags, repository)
    tag = tags.get(version)
    if tag is None:
        raise _unknown(version, tags, repository)
    torch = choose_torch(None)
    download_bytes, disk_bytes = estimate_bytes(torch.build, source="git")
    return InstallPlan(
        version=version,
        licence=LICENCE,
        folder=folder_of(engines_dir, version),
        torch_build=torch.build,
        download_bytes=download_bytes,
        disk_bytes=disk_bytes,
        torch_index=torch.index,
        source="git",
        repository=address,
        tag=tag.name,
        commit=tag.commit,
    )


def list_tags(address: str) -> dict[str, Tag]:
    """The released versions of a repository, by version without its `v`."""
    command = [_git(), "ls-remote", "--tags", "--", address]
    environment = clean_environment(os.environ, scratch=Path(tempfile.gettempdir()))
    try:
        asked = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIST_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise _unreadable(address, f"no answer within {LIST_TIMEOUT_S:.0f} s") from exc
    if asked.returncode != 0:
        raise _unreadable(address, _last_words(asked.stderr.splitlines()))
    tags: dict[str, Tag] = {}
    for line in asked.stdout.splitlines():
        # An annotated tag is listed twice; the second line, with ^{}, names its commit.
        if found := re.match(r"([0-9a-f]+)\trefs/tags/((v?)([0-9][^^\s/]*))", line):
            tags[found[4]] = Tag(found[2], found[1])
    return tags


@dataclass(frozen=True, slots=True)
class GitRecipe:
    """Fulfils `install_steps.Recipe`. Only pip itself is locked by hash."""

    repository: str
    tag: str
    commit: str
    pip: Path = ENGINE.pip

    def steps(self) -> tuple[tuple[str, Callable[[Site], None]], ...]:
        # The checkout first: it says what is needed.
        return (("engine", self._clone), ("torch", self._install_torch), ("packages", self._install_packages))

    def stamp(self) -> bytes:
        return f"{self.repository} {self.tag} {self.commit}".encode() + self.pip.read_bytes()

    def imports(self, site: Site) -> tuple[str, ...]:
        named = {name for name, _ in _requirements(site)}
        return ("torch", *(name for name in _TORCH[1:] if name in named))

    def check(self, site: Site, shims: tuple[str, ...]) -> None:
        """Start it once without a server: a package that its requirements forgot is found here."""
        meter = site.meter("probe", "checking that ComfyUI starts")
        base = site.scratch / "base"
        base.mkdir(parents=True, exist_ok=True)
        flags = [part for name in shims for part in ("--shim", name)]
        command: list[str | Path] = [site.python, _BOOT, *flags, site.comfyui / "main.py", "--quick-test-for-ci"]
        command += ["--cpu", "--base-directory", base, "--disable-all-custom-nodes"]
        finished = run_python(command, scratch=site.scratch, on_tick=meter.tick)
        if finished.code != 0:
            text = "\n".join(finished.lines)
            raise disk_full(finished) or ServiceError(
                f"ComfyUI {self.tag} was installed, but does not start: "
                f"{reason_in(text) or f'it ended with code {finished.code}'}",
                hint=f"another version may fit this Python better; `{sys.executable}` made its environment",
                log=list(finished.lines[-12:]),
            )

    def _clone(self, site: Site) -> None:
        meter = site.meter("engine", f"fetching ComfyUI {self.tag}")
        shutil.rmtree(site.comfyui, ignore_errors=True)
        # An empty --template: no hooks of the operator's run in it.
        command: list[str | Path] = [sys.executable, "--", _git(), "-c", "advice.detachedHead=false", "clone"]
        command += ["--quiet", "--template=", "--depth", "1", "--single-branch", "--branch", self.tag]
        command += ["--", self.repository, site.comfyui]
        finished = run_python(command, scratch=site.scratch, on_tick=meter.tick)
        if finished.code != 0:
            raise disk_full(finished) or _unreadable(self.repository, _last_words(finished.lines))
        for needed in ("main.py", "requirements.txt"):
            if not (site.comfyui / needed).is_file():
                raise NotFoundError(
                    f"{self.repository} at {self.tag} is not ComfyUI: it has no {needed}",
                    hint=f"the official repository is {OFFICIAL}",
                )
        run_python([site.python, "-m", "compileall", "-q", site.comfyui], scratch=site.scratch, on_tick=meter.tick)

    def _install_torch(self, site: Site) -> None:
        wanted = dict(_requirements(site))
        companions = [wanted[name] for name in _TORCH[1:] if name in wanted]
        install_torch(site, wanted.get("torch", "torch"), companions, constraints=())

    def _install_packages(self, site: Site) -> None:
        meter = site.meter("packages", "collecting the packages of its requirements.txt")
        rest = [line for name, line in _requirements(site) if name not in _TORCH]
        wanted = site.folder / "requirements.txt"
        wanted.write_text("\n".join([*rest, *_UNLISTED]), encoding="utf-8")
        # What asks for another torch must not replace the one that fits this machine.
        constraints = site.folder / "constraints.txt"
        constraints.write_text(f"torch=={_installed_version(site, 'torch')}", encoding="utf-8")
        arguments: list[str | Path] = ["install", "--no-user", "-c", constraints, "-r", wanted]
        run_pip(site.python, arguments, scratch=site.scratch, meter=meter)


def _requirements(site: Site) -> list[tuple[str, str]]:
    """(name, whole line) of each line of the checkout's requirements.txt; options of pip have no name."""
    text = (site.comfyui / "requirements.txt").read_text(encoding="utf-8")
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    named = [(re.match(r"[A-Za-z0-9._-]*", line), line) for line in lines if line and not line.startswith("#")]
    return [("" if line.startswith("-") or not name else name[0].lower(), line) for name, line in named]


def _installed_version(site: Site, name: str) -> str:
    info = next(site.site_packages.glob(f"{name}-*.dist-info"))
    return info.name.removeprefix(f"{name}-").removesuffix(".dist-info")


def _address(repository: str) -> str:
    if "://" in repository or re.match(r"[^/\\]{2,}:", repository):
        return repository
    folder = Path(repository).expanduser()
    if not folder.exists():
        raise NotFoundError(f"there is no repository at {folder.absolute()}", hint="--from takes a URL or a folder")
    # As a URL: a shallow clone of a bare path would copy everything.
    return folder.resolve().as_uri()


def _git() -> str:
    found = shutil.which("git")
    if found is None:
        raise NotReadyError(
            "git is not installed (not on PATH)",
            hint="install git, or take the embedded engine: comfymodal engine install",
        )
    return found


def _newest(tags: dict[str, Tag], repository: str) -> str:
    released = [version for version in tags if re.fullmatch(r"[0-9]+(\.[0-9]+)+", version)]
    if not released:
        raise NotFoundError(f"{repository} has no tag that is a version", hint=f"the official one: {OFFICIAL}")
    return max(released, key=version_key)


def _unknown(version: str, tags: dict[str, Tag], repository: str) -> NotFoundError:
    near = difflib.get_close_matches(version, tags, n=3, cutoff=0.6)
    newest = sorted(tags, key=version_key, reverse=True)[:3]
    hint = f"near: {', '.join(near)}; " if near else ""
    hint += f"newest: {', '.join(newest)}" if newest else "it has no tags at all"
    return NotFoundError(f"{repository} has no version {version}", hint=hint, near=near)


def _unreadable(address: str, reason: str) -> ServiceError:
    return ServiceError(
        f"cannot fetch from {address}: {reason}",
        hint="check the network, or name a mirror or a local repository with --from; what is done is kept",
    )


def _last_words(lines: list[str] | tuple[str, ...]) -> str:
    told = [line.strip() for line in lines if line.strip()]
    fatal = [line for line in told if line.startswith(("fatal:", "error:"))]
    return (fatal or told or ["git said nothing"])[0].removeprefix("fatal:").removeprefix("error:").strip()
