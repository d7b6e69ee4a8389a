"""Which ComfyUI to use on this machine: a running server, an installation, or the embedded engine."""

from __future__ import annotations

import configparser
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.ask import get_json
from comfymodal.comfyui.engines import ENGINE_VERSION, EngineInstall, choose_install, launch_argv, list_installs
from comfymodal.comfyui.server import Launch, answers
from comfymodal.errors import NotReadyError, ServiceError

DEFAULT_URL = "http://127.0.0.1:8188"
PROBE_TIMEOUT_S = 2.0
COMFY_CLI = "comfy-cli's workspace"


@dataclass(frozen=True, slots=True)
class EngineWish:
    """What the project says about the engine on this machine."""

    url: str | None
    path: str | None
    python: str | None
    arguments: tuple[str, ...]
    discover: bool
    idle_stop_s: float | None
    boot_timeout_s: float
    models: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class FoundEngine:
    """`url` of a server that is not ours, or `launch` of one that we start; `how` says why this one."""

    how: str
    url: str | None = None
    launch: Launch | None = None


def find_engine(wish: EngineWish, *, engines: Path, environ: Mapping[str, str]) -> FoundEngine | None:
    """The first that applies: the named server, the named installation, the named version, a server on the usual port,
    comfy-cli's workspace, an installed engine. None when the embedded engine must be installed first.

    Raises `NotReadyError` when something is named and is not there: nothing else is used instead.
    """
    if wish.url:
        _require_server(wish.url)
        return FoundEngine("comfyui.url", url=wish.url)
    if named := wish.path or environ.get("COMFYUI_PATH"):
        how = "comfyui.path" if wish.path else "COMFYUI_PATH"
        return FoundEngine(how, launch=_installation(_expanded(named), wish, environ, how))
    if wish.version is not None:
        return _named_version(wish.version, wish, engines)
    return (_discovered(wish, environ) if wish.discover else None) or _any_installed(wish, engines)


def _discovered(wish: EngineWish, environ: Mapping[str, str]) -> FoundEngine | None:
    if answers(DEFAULT_URL, timeout_s=PROBE_TIMEOUT_S):
        return FoundEngine(f"it answers on {DEFAULT_URL}", url=DEFAULT_URL)
    if (workspace := _comfy_cli_workspace()) is not None:
        return FoundEngine(COMFY_CLI, launch=_installation(workspace, wish, environ, COMFY_CLI))
    return None


def _any_installed(wish: EngineWish, engines: Path) -> FoundEngine | None:
    if (install := choose_install(engines, None)) is not None:
        how = "embedded" if install.source == "package" else "installed"
        return FoundEngine(how, launch=_installed(install, wish))
    return None


def _named_version(version: str, wish: EngineWish, engines: Path) -> FoundEngine | None:
    if (install := choose_install(engines, version)) is not None:
        return FoundEngine("comfyui.version", launch=_installed(install, wish))
    if version == ENGINE_VERSION:
        # Named and installable in a minute: offered as if nothing had been named.
        return None
    there = ", ".join(install.version for install in list_installs(engines)) or "none"
    raise NotReadyError(
        f"ComfyUI {version} (comfyui.version) is not installed; installed: {there}",
        hint=f"comfymodal engine install --source git --version {version}",
    )


def _require_server(url: str) -> None:
    hint = "start ComfyUI there, or leave comfyui.url out to use the embedded engine"
    try:
        stats = get_json(url, "/system_stats", timeout_s=PROBE_TIMEOUT_S * 5)
    except ServiceError as exc:
        raise NotReadyError(f"no ComfyUI answers at {url}: {exc.message}", hint=hint) from exc
    system = stats.get("system")
    if not isinstance(system, dict) or "comfyui_version" not in system:
        raise NotReadyError(f"what answers at {url} is not ComfyUI", hint=hint)


def _installation(path: Path, wish: EngineWish, environ: Mapping[str, str], how: str) -> Launch:
    if not (path / "main.py").is_file() or not (path / "nodes.py").is_file():
        raise NotReadyError(
            f"{path} ({how}) is not a ComfyUI folder: it has no main.py and nodes.py",
            hint="name the folder that holds ComfyUI's main.py",
        )
    python = _python_of(path, wish.python or environ.get("COMFYUI_PYTHON"), how)
    return Launch(
        name=f"comfyui-{_version_of(path)}",
        argv=(str(python), str(path / "main.py")),
        arguments=wish.arguments,
        probes_device="--cpu" not in wish.arguments,
        cwd=str(path),
        models=wish.models,
        idle_stop_s=wish.idle_stop_s,
        boot_timeout_s=wish.boot_timeout_s,
    )


def _installed(install: EngineInstall, wish: EngineWish) -> Launch:
    own = ["--base-directory", "{folder}", "--disable-all-custom-nodes"]
    if install.source == "package":
        # The embedded environment has neither the frontend nor what API nodes need.
        own += ["--front-end-root", "{folder}/web", "--disable-api-nodes"]
    if install.device == "cpu":
        own.append("--cpu")
    return Launch(
        name=f"comfyui-{install.version}",
        argv=tuple(launch_argv(install)),
        arguments=(*own, *wish.arguments),
        probes_device=False,
        cwd=str(install.comfyui_path),
        models=wish.models,
        idle_stop_s=wish.idle_stop_s,
        boot_timeout_s=wish.boot_timeout_s,
    )


def _python_of(path: Path, named: str | None, how: str) -> Path:
    if named:
        python = _expanded(named)
        if not python.is_file():
            raise NotReadyError(f"there is no Python at {python}", hint="set comfyui.python to ComfyUI's interpreter")
        return python
    inner = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    for candidate in (path / "venv" / inner, path / ".venv" / inner, path.parent / "python_embeded" / "python.exe"):
        if candidate.is_file():
            return candidate
    if how == COMFY_CLI and (own := _comfy_cli_python()) is not None:
        return own
    raise NotReadyError(
        f"cannot tell which Python runs the ComfyUI in {path}: it has no venv or .venv",
        hint="set comfyui.python (or COMFYUI_PYTHON) to that interpreter; comfyui.discover: false looks for none",
    )


def _expanded(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:  # `~someone` without such a user is no more than a name
        return Path(named)


def _version_of(path: Path) -> str:
    try:
        text = (path / "comfyui_version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "unknown"
    return text.partition('__version__ = "')[2].partition('"')[0] or "unknown"


def _comfy_cli_workspace() -> Path | None:
    """comfy-cli keeps its default workspace in an INI file (comfy_cli/constants.py, DEFAULT_CONFIG)."""
    folders = {"win32": "AppData/Local/comfy-cli", "darwin": "Library/Application Support/comfy-cli"}
    ini = configparser.ConfigParser(interpolation=None)
    try:
        ini.read(Path.home() / folders.get(sys.platform, ".config/comfy-cli") / "config.ini", encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
        return None
    for key in ("default_workspace", "recent_workspace"):
        named = ini["DEFAULT"].get(key)
        if named and (Path(named) / "main.py").is_file():
            return Path(named)
    return None


def _comfy_cli_python() -> Path | None:
    """Without a venv in the workspace comfy-cli runs ComfyUI with its own Python: its script's first line names it."""
    script = shutil.which("comfy")
    try:
        first_line = Path(script).read_bytes().split(b"\n", 1)[0].decode() if script else ""
    except (OSError, UnicodeDecodeError):
        return None
    python = Path(first_line.removeprefix("#!").strip())
    return python if first_line.startswith("#!") and python.is_file() else None
