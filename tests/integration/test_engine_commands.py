"""`engine` on a machine whose engines are stand-ins: what is listed, chosen, refused, removed. Nothing is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WORKFLOWS, Cli
from tests.unit.comfyui.test_engines import write_engine


@pytest.fixture
def engines(engineless_cli: Cli) -> Path:
    return Path(engineless_cli.environ["COMFYMODAL_DATA_DIR"]) / "engines"


def test_nothing_installed_nothing_running(engineless_cli: Cli) -> None:
    status = engineless_cli("engine", "status", "--json")
    stopped = engineless_cli("engine", "stop")
    logs = engineless_cli("engine", "logs", "--json")
    start = engineless_cli("engine", "start", "--json")

    assert status.json["data"] == {"chosen": None, "problem": None, "installed": [], "running": []}
    assert (stopped.code, stopped.stdout) == (0, "no engine is running\n")
    assert (logs.code, logs.error["hint"]) == (4, "comfymodal engine start")
    assert (start.code, start.error["hint"]) == (4, "run the same command with --yes to do so")
    assert engineless_cli("engine", "remove", "--all").stdout == "no engine is installed\n"
    assert engineless_cli("engine", "status").stdout == (
        "used here\t\tnone\t\t\tno ComfyUI here yet; comfymodal engine install\n"
    )


def test_status_tells_what_is_installed_and_what_a_render_would_use(engineless_cli: Cli, engines: Path) -> None:
    write_engine(engines, "0.3.75", size_bytes=1_500_000_000)
    root = write_engine(engines, "0.3.76", source="git", size_bytes=6_400_000_000)
    (engines / ".comfyui-0.3.80.partial").mkdir()
    shown = engineless_cli("engine", "status")
    named = Cli(engineless_cli.cwd, {**engineless_cli.environ, "COMFYMODAL_COMFYUI_VERSION": "0.3.76"})
    chosen = named("engine", "status", "--json").json["data"]["chosen"]
    unknown = Cli(engineless_cli.cwd, {**engineless_cli.environ, "COMFYMODAL_COMFYUI_VERSION": "0.3.77"})
    problem = unknown("engine", "status", "--json")

    assert [line.split("\t")[:5] for line in shown.stdout.splitlines()] == [
        ["installed", "0.3.76", "git", "6.4 GB", "cpu"],
        ["installed", "0.3.75", "package", "1.5 GB", "cpu"],
        ["installed", "0.3.80", "unfinished", "0 B", ""],
        ["used here", "0.3.75", "embedded", "", ""],
    ]
    assert chosen == {"how": "comfyui.version", "version": "0.3.76", "url": None, "path": str(root / "ComfyUI")}
    assert problem.code == 0
    assert problem.json["data"]["problem"]["message"] == (
        "ComfyUI 0.3.77 (comfyui.version) is not installed; installed: 0.3.76, 0.3.75"
    )


def test_a_named_version_that_is_the_embedded_one_is_offered(engineless_cli: Cli, engines: Path) -> None:
    write_engine(engines, "0.3.76", source="git")
    named = Cli(engineless_cli.cwd, {**engineless_cli.environ, "COMFYMODAL_COMFYUI_VERSION": "0.3.75"})
    done = named("render", WORKFLOWS / "image.json", "--json")
    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "install ComfyUI 0.3.75" in done.error["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("--version", "0.3.76"), 4, "as a package there is only ComfyUI 0.3.75", "--source git --version 0.3.76"),
        (("--version", "../evil"), 2, "'../evil' is no version", "for example --version 0.3.75"),
        (("--source", "package", "--from", "x"), 2, "--from names a git repository", "--source git"),
        (("--source", "svn"), 2, "Invalid value for '--source'", "--help"),
        (("--source", "git", "--version", "0.3.75"), 4, "installed already, from the other source", "engine remove"),
    ],
)
def test_installs_that_make_no_sense(
    engineless_cli: Cli, engines: Path, arguments: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    write_engine(engines, "0.3.75")
    done = engineless_cli("engine", "install", *arguments, "--json")
    assert done.code == code
    assert message in done.error["message"]
    assert hint in done.error["hint"]


def test_a_dry_run_says_what_would_be_installed(engineless_cli: Cli, engines: Path) -> None:
    planned = engineless_cli("engine", "install", "--dry-run", "--json").json["data"]
    assert {key: planned[key] for key in ("version", "source", "repository", "path")} == {
        "version": "0.3.75",
        "source": "package",
        "repository": None,
        "path": str(engines / "comfyui-0.3.75"),
    }
    assert planned["disk_bytes"] > planned["download_bytes"] > 0
    assert not engines.exists()


def test_remove_asks_names_and_deletes(engineless_cli: Cli, engines: Path) -> None:
    keep, doomed = write_engine(engines, "0.3.75"), write_engine(engines, "0.3.76", size_bytes=1000)
    (engines / ".comfyui-0.3.76.partial").mkdir()
    dry = engineless_cli("engine", "remove", "0.3.76", "--dry-run", "--json").json["data"]
    unasked = engineless_cli("engine", "remove", "0.3.76", "--json")
    assert doomed.is_dir()
    removed = engineless_cli("engine", "remove", "v0.3.76", "--yes", "--json").json["data"]
    unknown = engineless_cli("engine", "remove", "0.3.76", "--json")
    neither = engineless_cli("engine", "remove", "--json")

    assert dry["is_dry_run"] is True
    assert [view["state"] for view in dry["removed"]] == ["installed", "unfinished"]
    assert (unasked.code, unasked.error["hint"]) == (4, "run the same command with --yes")
    assert (removed["freed_bytes"], removed["is_dry_run"]) == (1000, False)
    assert sorted(path.name for path in engines.iterdir()) == [".install.lock", keep.name]
    assert (unknown.code, unknown.error["message"]) == (4, "ComfyUI 0.3.76 is not installed; installed: 0.3.75")
    assert (neither.code, neither.error["code"]) == (2, "usage")


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_an_engine_whose_python_runs_is_not_removed(engineless_cli: Cli, engines: Path) -> None:
    root = write_engine(engines, "0.3.75")
    python = root / "venv/bin/python"
    python.unlink()
    python.symlink_to(sys.executable)
    with subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE) as process:
        refused = engineless_cli("engine", "remove", "--all", "--yes", "--json")
        process.kill()
    assert refused.code == 4
    assert refused.error["message"] == f"ComfyUI 0.3.75 is running (pid {process.pid})"
    assert "engine stop --all" in refused.error["hint"]
    assert json.loads((root / "engine.json").read_text())["version"] == "0.3.75"


def test_the_log_of_another_engine_is_shown_with_a_word(engineless_cli: Cli) -> None:
    folder = engineless_cli.state / "engines" / "comfyui-0.3.70-0123abcd"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("one\ntwo\nthree\n")
    (folder / "log.previous.txt").write_text("before\n")
    shown = engineless_cli("engine", "logs", "--lines", "2")
    previous = engineless_cli("engine", "logs", "--previous", "--json").json["data"]
    followed = engineless_cli("engine", "logs", "--follow", "--json")

    assert shown.stdout == "two\nthree\n"
    assert "this is the newest one, of comfyui-0.3.70" in shown.stderr
    assert (previous["lines"], previous["is_running"]) == (["before"], False)
    assert followed.code == 2
