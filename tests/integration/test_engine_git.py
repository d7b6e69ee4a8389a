"""An engine from a git repository that lies in a folder: real git, real pip, real environments, tiny wheels."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import find_install, launch_argv, list_installs, partial_of
from comfymodal.comfyui.install.engine import install
from comfymodal.comfyui.install.git import plan_git_install
from comfymodal.errors import NotFoundError, NotReadyError, ServiceError
from tests.conftest import WORKFLOWS, Cli
from tests.doubles.wheels import MAIN

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

REQUIREMENTS = """\
# what ComfyUI needs
torch
torchvision
torchaudio # for sound
tinydep>=1.0
"""


class Repository:
    """A git repository with a commit and a tag for each version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._git("init", "-q")

    def release(self, version: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.commit(version)

    def commit(self, version: str) -> None:
        self._git("add", "--all")
        self._git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", version)
        self._git("-c", "user.name=t", "-c", "user.email=t@example.org", "tag", "-a", "-m", version, f"v{version}")

    @property
    def head(self) -> str:
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, shelf: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    made.release("0.3.70", {"main.py": "raise SystemExit('old')", "requirements.txt": REQUIREMENTS})
    made.release("0.3.76", {"main.py": MAIN})
    return made


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "data" / "engines"


@pytest.fixture
def git_cli(make_cli: Callable[[Path], Cli], engines: Path, tmp_path: Path) -> Cli:
    """The command line with engines of its own and the tiny wheels as its package index."""
    made = make_cli(tmp_path / "state")
    return Cli(made.cwd, {**made.environ, "COMFYMODAL_DATA_DIR": str(engines.parent)})


def quietly(event: dict[str, Any]) -> None:
    """Nobody watches."""


def test_the_newest_tag_is_cloned_and_gets_what_its_requirements_say(
    repository: Repository, engines: Path, tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    plan = plan_git_install(engines, version=None, repository=str(repository.folder))
    engine = install(plan, on_event=events.append)
    described = json.loads((engine.root / "engine.json").read_text())
    ran = subprocess.run([*launch_argv(engine), "--port", "1"], capture_output=True, text=True, check=True)

    assert (plan.version, plan.tag, plan.commit) == ("0.3.76", "v0.3.76", repository.head)
    assert [described[key] for key in ("source", "tag", "commit")] == ["git", "v0.3.76", repository.head]
    assert engine.size_bytes is not None
    assert engine.size_bytes > 1_000_000
    assert list(dict.fromkeys(event["step"] for event in events)) == [
        *("environment", "engine", "torch", "packages", "probe")
    ]
    assert json.loads(ran.stdout) == [["--port", "1"], str(engine.root / "venv")]
    assert list((engine.root / "venv").rglob("requests/__init__.py"))
    assert sorted(path.name for path in engines.iterdir()) == [".install.lock", "comfyui-0.3.76"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.soak
def test_versions_lie_side_by_side_and_the_project_chooses(repository: Repository, engines: Path, git_cli: Cli) -> None:
    repository.release("0.3.80", {"later.py": ""})
    for version in ("0.3.76", "v0.3.80"):
        done = git_cli("engine", "install", "--version", version, "--from", repository.folder, "--yes", "--json")
        assert done.code == 0, done.stderr
    again = git_cli("engine", "install", "--source", "git", "--version", "0.3.80", "--json")
    newest = git_cli("engine", "status", "--json").json["data"]["chosen"]
    (git_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {version: 0.3.76}\n")
    named = git_cli("engine", "status", "--json").json["data"]["chosen"]
    (git_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {version: 0.3.77}\n")
    absent = git_cli("render", WORKFLOWS / "image.json", "--yes", "--json")

    assert [each.version for each in list_installs(engines)] == ["0.3.80", "0.3.76"]
    assert not (engines / "comfyui-0.3.76/ComfyUI/later.py").exists()
    assert again.json["data"]["was_there"] is True
    assert (newest["version"], newest["how"]) == ("0.3.80", "installed")
    assert (named["version"], named["how"]) == ("0.3.76", "comfyui.version")
    assert (absent.code, absent.error["code"]) == (4, "not_ready")
    assert absent.error["hint"] == "comfymodal engine install --source git --version 0.3.77"


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_install_goes_on_at_every_point(repository: Repository, engines: Path, git_cli: Cli) -> None:
    arguments = ("engine", "install", "--from", repository.folder, "--yes", "--json-events")
    for point in ("updating its pip", "fetching ComfyUI v0.3.76", "installing 2 packages", "checking that everything"):
        with git_cli.start(*arguments) as process:
            assert process.stdout is not None
            assert any(point in line for line in process.stdout), point
            process.send_signal(signal.SIGKILL)
        assert find_install(engines, "0.3.76") is None
    unfinished = git_cli("engine", "status", "--json").json["data"]["installed"]
    done = git_cli(*arguments)
    steps = {json.loads(line).get("step") for line in done.stdout.splitlines()}

    assert [(view["version"], view["state"]) for view in unfinished] == [("0.3.76", "unfinished")]
    assert done.code == 0, done.stdout
    assert steps & {"environment", "engine", "torch", "packages", "probe"} == {"probe"}
    assert find_install(engines, "0.3.76") is not None


@pytest.mark.soak
def test_two_at_once_make_one(repository: Repository, engines: Path, git_cli: Cli) -> None:
    arguments = ("engine", "install", "--from", repository.folder, "--yes", "--json")
    both = [git_cli.start(*arguments) for _ in range(2)]
    written = [process.communicate()[0] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert {json.loads(text)["data"]["engine"]["version"] for text in written} == {"0.3.76"}
    assert sorted(path.name for path in engines.iterdir()) == [".install.lock", "comfyui-0.3.76"]


def test_a_full_disk_leaves_nothing_behind(repository: Repository, engines: Path) -> None:
    def fill_up(event: dict[str, Any]) -> None:
        if event["step"] == "torch":
            raise OSError(errno.ENOSPC, "No space left on device")

    plan = plan_git_install(engines, version="0.3.76", repository=str(repository.folder))
    with pytest.raises(NotReadyError, match="disk became full"):
        install(plan, on_event=fill_up)
    assert [path.name for path in engines.iterdir()] == [".install.lock"]


def test_a_package_its_requirements_forgot_is_named_and_nothing_appears(repository: Repository, engines: Path) -> None:
    repository.release("0.3.81", {"main.py": "import forgotten"})
    plan = plan_git_install(engines, version=None, repository=str(repository.folder))
    with pytest.raises(ServiceError, match="does not start: ModuleNotFoundError: No module named 'forgotten'"):
        install(plan, on_event=quietly)
    assert list_installs(engines) == ()
    assert partial_of(plan.folder).is_dir()


def test_what_is_no_comfyui_is_refused(repository: Repository, engines: Path) -> None:
    (repository.folder / "main.py").unlink()
    repository.commit("0.3.82")
    plan = plan_git_install(engines, version=None, repository=str(repository.folder))
    with pytest.raises(NotFoundError, match=r"is not ComfyUI: it has no main\.py"):
        install(plan, on_event=quietly)


def test_an_unknown_version_names_the_near_ones(repository: Repository, engines: Path) -> None:
    with pytest.raises(NotFoundError, match=r"has no version 0\.3\.67") as refused:
        plan_git_install(engines, version="0.3.67", repository=str(repository.folder))
    assert refused.value.hint == "near: 0.3.76, 0.3.70; newest: 0.3.76, 0.3.70"
    assert not engines.exists()


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("http://127.0.0.1:9/ComfyUI.git", 5, "cannot fetch from http://127.0.0.1:9/ComfyUI.git: "),
        ("nowhere", 4, "there is no repository at "),
        (".", 5, "cannot fetch from file://"),
        ("--upload-pack=touch evil", 4, "there is no repository at "),
        ("ext::touch evil", 5, "cannot fetch from ext::touch evil: "),
    ],
)
def test_a_repository_that_cannot_be_read_is_refused(
    git_cli: Cli, shelf: Path, address: str, code: int, message: str
) -> None:
    done = git_cli("engine", "install", f"--from={address}", "--yes", "--json")
    assert (done.code, done.error["hint"] is not None) == (code, True)
    assert done.error["message"].startswith(message)
    assert not (git_cli.cwd / "evil").exists()


def test_without_git_the_embedded_one_is_offered(git_cli: Cli, repository: Repository) -> None:
    gitless = Cli(git_cli.cwd, {**git_cli.environ, "PATH": os.devnull})
    done = gitless("engine", "install", "--from", repository.folder, "--json")
    assert (done.code, done.error["message"]) == (4, "git is not installed (not on PATH)")
    assert "comfymodal engine install" in done.error["hint"]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_comfyui_itself_from_a_repository_renders(lonely_cli: Cli, engine_install: Any, tmp_path: Path) -> None:
    """The embedded engine's ComfyUI as a repository, with everything its requirements ask for: minutes, 2 GB."""
    shutil.copytree(engine_install.comfyui_path, tmp_path / "repository", ignore=shutil.ignore_patterns("__pycache__"))
    made = Repository(tmp_path / "repository")
    # The torch that the tests have anyway, instead of the newest with CUDA.
    requirements = made.folder / "requirements.txt"
    lines = {"torch": "torch==2.13.0", "torchvision": "torchvision==0.28.0", "torchaudio": "torchaudio==2.11.0"}
    requirements.write_text("\n".join(lines.get(line, line) for line in requirements.read_text().splitlines()))
    made.commit("0.3.99")
    cli = Cli(lonely_cli.cwd, {**lonely_cli.environ, "COMFYMODAL_DATA_DIR": str(tmp_path / "data")})
    installed = cli("engine", "install", "--from", made.folder, "--yes", timeout_s=800)
    done = cli("render", WORKFLOWS / "image.json", "--json")

    assert installed.code == 0, installed.stderr
    assert (done.code, done.run["status"]) == (0, "succeeded")
