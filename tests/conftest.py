"""What every test stands on: an installed command line, an empty home, and one real ComfyUI for the session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import EngineInstall, find_install
from comfymodal.comfyui.install.engine import install, plan_install
from comfymodal.comfyui.supervisor import USED_FILE
from comfymodal.comfyui.warm import stop_warm
from comfymodal.project.folders import data_folder
from tests.doubles.tiny_toolkit import made

DATA = Path(__file__).parent / "data"
WORKFLOWS = DATA / "workflows"
HELLO = Path(__file__).parent.parent / "configs" / "hello" / "workflow.json"

# Found before any test has a home of its own: the engine is large and survives them all.
ENGINE_DATA = data_folder(os.environ)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def run(self) -> dict[str, Any]:
        found = self.json["data"]["run"]
        assert isinstance(found, dict)
        return found

    @property
    def outputs(self) -> list[dict[str, Any]]:
        found = self.json["data"]["outputs"]
        assert isinstance(found, list)
        return found

    @property
    def error(self) -> dict[str, Any]:
        found = self.json["errors"][0]
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, slots=True)
class Cli:
    """The command line as an operator has it: a process, in `cwd`, with `environ` and nothing else."""

    cwd: Path
    environ: Mapping[str, str]

    def __call__(self, *arguments: str | Path, timeout_s: float = 120) -> Done:
        done = subprocess.run(
            self.argv(*arguments),
            cwd=self.cwd,
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=self.cwd,
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def argv(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "comfymodal", *map(str, arguments)]

    @property
    def state(self) -> Path:
        return Path(self.environ["COMFYMODAL_STATE_DIR"])

    @property
    def engine_file(self) -> Path:
        """The note of the warm engine of this state folder that was used last; another command line is another."""
        notes = (self.state / "engines").glob("*/engine.json")
        return max(notes, key=lambda note: note.with_name(USED_FILE).stat().st_mtime)


@pytest.fixture(scope="session")
def engine_install() -> EngineInstall:
    """The embedded engine, installed once per machine; the first session waits for it."""
    engines = ENGINE_DATA / "engines"
    return find_install(engines) or install(plan_install(engines), on_event=lambda event: None)


@pytest.fixture(scope="session")
def tiny_checkpoint(engine_install: EngineInstall, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Stable Diffusion 1.5 checkpoint of 330 kB: random weights, real shapes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.ckpt"
    script = DATA / "tiny_checkpoint.py"
    subprocess.run([engine_install.python, script, engine_install.comfyui_path, path], check=True)
    return path


@pytest.fixture(scope="session")
def trainer_python() -> Path:
    """A Python with torch, diffusers, transformers and peft, installed once per machine."""
    return made.trainer_python(ENGINE_DATA / "test-cache")


@pytest.fixture(scope="session")
def tiny_diffusers(trainer_python: Path, engine_install: EngineInstall, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint as trainers want it: a folder of diffusers, 2 MB, the same weights."""
    cache = ENGINE_DATA / "test-cache"
    return made.tiny_diffusers(cache, python=trainer_python, engine=engine_install, checkpoint=tiny_checkpoint)


@pytest.fixture(scope="session")
def session_state(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a models volume; its warm engine serves the whole session and ends with it."""
    state = tmp_path_factory.mktemp("state")
    checkpoints = state / "volumes" / "comfy-models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(tiny_checkpoint, checkpoints)
    yield state
    stop_engines(state)


@pytest.fixture
def make_cli(tmp_path: Path) -> Callable[[Path], Cli]:
    """Build a command line with a state folder of the test's choice."""
    home = tmp_path / "home"
    home.mkdir()

    def make(state: Path) -> Cli:
        cwd = tmp_path / "work"
        cwd.mkdir(exist_ok=True)
        return Cli(cwd, clean_environ(home, state))

    return make


@pytest.fixture
def cli(session_state: Path, make_cli: Callable[[Path], Cli]) -> Cli:
    """The command line on the session's engine; each test has a project, and so a ledger, of its own."""
    made = make_cli(session_state)
    project = f"t{abs(hash(str(made.cwd))) % 10**10}"
    return Cli(made.cwd, {**made.environ, "COMFYMODAL_PROJECT": project})


@pytest.fixture
def lonely_cli(tmp_path: Path, engine_install: EngineInstall, make_cli: Callable[[Path], Cli]) -> Iterator[Cli]:
    """The command line on an engine of its own, for tests that kill it."""
    state = tmp_path / "state"
    yield make_cli(state)
    stop_engines(state)


@pytest.fixture
def engineless_cli(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> Cli:
    """The command line on a machine without any ComfyUI."""
    made = make_cli(tmp_path / "state")
    return Cli(made.cwd, {**made.environ, "COMFYMODAL_DATA_DIR": str(tmp_path / "data")})


@pytest.fixture
def engine_url(cli: Cli) -> str:
    """The address of the session's engine, started if need be."""
    done = cli("render", WORKFLOWS / "image.json", "--json")
    assert done.code == 0, done.stderr
    return str(json.loads(cli.engine_file.read_text())["url"])


def clean_environ(home: Path, state: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR") if key in os.environ}
    pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    return {
        **kept,
        **pip,
        "HOME": str(home),
        "COLUMNS": "80",
        # Tests run side by side: threads that wait for each other keep the processors from the others.
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COMFYMODAL_DATA_DIR": str(ENGINE_DATA),
        "COMFYMODAL_STATE_DIR": str(state),
        # Somebody's ComfyUI on the usual port must not take part in a test.
        "COMFYMODAL_COMFYUI_DISCOVER": "false",
    }


def stop_engines(state: Path) -> None:
    """Stop exactly the engines that were started under this state folder."""
    for folder in (state / "engines").glob("*"):
        if folder.is_dir():
            stop_warm(folder)
