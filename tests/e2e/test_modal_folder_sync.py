"""`sync` between a folder of this machine and a Modal volume: no container, Modal's stock client against the double."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Cli
from tests.doubles.modal_cloud.client import ModalCloud
from tests.e2e.modal_runs import wait_until
from tests.e2e.modal_world import ModalCli, run_modal

PROJECT = """\
version: 1
project: {project}
target: modal
volumes:
  models: {{name: models-{project}}}
sync:
  mine: {{from: ./mine, to: "models:/mine", two_way: true}}
"""
MIB = 1 << 20

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    # No container is ever started, so any Python will do.
    made = ModalCloud.start(tmp_path_factory.mktemp("cloud"), container_python=Path(sys.executable), is_flat=True)
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture
def cli(tmp_path: Path, cloud: ModalCloud, make_cli: Callable[[Path], Cli]) -> ModalCli:
    """The command line of a project whose models volume is there and empty."""
    made = make_cli(tmp_path / "state")
    name = f"f{next(_numbers)}-{os.getpid()}"
    (made.cwd / "comfymodal.yaml").write_text(PROJECT.format(project=name))
    run_modal(cloud, made.environ, "volume", "create", f"models-{name}")
    return ModalCli(made.cwd, {**made.environ, **cloud.environ}, cloud, name)


def test_a_folder_goes_to_the_volume_and_comes_back(cli: ModalCli) -> None:
    wanted = {"a b.ckpt": b"a", "-x/模型.pt": os.urandom(2 * MIB), "empty": b""}
    fill(cli.cwd / "folder", wanted)
    pushed = cli("sync", "./folder", "models:/x", "--json")
    assert pushed.code == 0, pushed.stderr
    assert pushed.json["data"]["pairs"][0]["copied_files"] == 3
    assert {path["verified"] for path in pushed.json["data"]["paths"]} == {True}
    assert files_of(volume(cli) / "x") == wanted
    assert cli("sync", "./folder", "models:/x", "--status").code == 0
    pulled = cli("sync", "models:/x", "./back", "--json")
    assert pulled.code == 0, pulled.stderr
    assert files_of(cli.cwd / "back") == wanted
    assert cli.cloud.containers(None) == []


def test_both_ways_with_a_conflict(cli: ModalCli) -> None:
    fill(cli.cwd / "mine", {"a.pt": b"a", "b.pt": b"b"})
    assert cli("sync", "mine").code == 0
    fill(cli.cwd / "mine", {"a.pt": b"mine"})
    fill(volume(cli) / "mine", {"a.pt": b"theirs", "c.pt": b"c"})
    done = cli("sync", "mine", "--json")
    assert done.code == 6, done.stderr
    results = {path["path"]: path["result"] for path in done.json["data"]["paths"]}
    assert results == {"a.pt": "conflict", "b.pt": "same", "c.pt": "copied"}
    assert files_of(cli.cwd / "mine") == {"a.pt": b"mine", "b.pt": b"b", "c.pt": b"c"}
    assert cli("sync", "mine", "--prefer", "here").code == 0
    assert files_of(volume(cli) / "mine") == {"a.pt": b"mine", "b.pt": b"b", "c.pt": b"c"}
    trashed = files_of(volume(cli) / ".comfymodal/trash")
    assert [(path.partition("/")[2], data) for path, data in trashed.items()] == [("mine/a.pt", b"theirs")]


@pytest.mark.soak
def test_a_killed_sync_goes_on_where_it_was(cli: ModalCli) -> None:
    wanted = {"a.bin": os.urandom(20 * MIB), "b.pt": b"b"}
    fill(volume(cli) / "x", wanted)
    cli.cloud.do("slow_blocks", bytes_per_s=8 * MIB)
    running = cli.start("sync", "models:/x", "./back")
    try:
        wait_until(lambda: any(part.stat().st_size for part in (cli.cwd / "back").glob("a.bin.*.partial")))
        worker = worker_of(cli)
        worker.kill()
        running.communicate(timeout=30)
    finally:
        cli.cloud.do("slow_blocks", bytes_per_s=0)
    assert running.returncode not in (0, 130)
    assert not (cli.cwd / "back/a.bin").exists()
    before = len(cli.cloud.requests("VolumeGetFile2"))
    done = cli("sync", "models:/x", "./back", "--json")
    assert done.code == 0, done.stderr
    assert files_of(cli.cwd / "back") == wanted
    asked = [entry["body"] for entry in cli.cloud.requests("VolumeGetFile2")[before:]]
    assert [int(body.get("start", 0)) >= 8 * MIB for body in asked if body["path"] == "x/a.bin"] == [True]


def test_ctrl_c_and_a_volume_that_is_not_there(cli: ModalCli) -> None:
    fill(volume(cli) / "x", {"a.bin": os.urandom(20 * MIB)})
    cli.cloud.do("slow_blocks", bytes_per_s=4 * MIB)
    running = cli.start("sync", "models:/x", "./back")
    try:
        wait_until(lambda: any((cli.cwd / "back").glob("a.bin.*.partial")))
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    finally:
        cli.cloud.do("slow_blocks", bytes_per_s=0)
    assert running.returncode == 130
    missing = cli("sync", "outputs:/x", "./back", "--json")
    assert missing.code == 4, missing.stderr
    assert "no Modal volume" in missing.error["message"]


def fill(folder: Path, files: dict[str, bytes]) -> None:
    """Write them a minute ago: what is younger than the clock's tick proves nothing."""
    then = time.time() - 60
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        os.utime(target, (then, then))


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies there, but our own folder within it."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if not path.startswith(".comfymodal/")}


def volume(cli: ModalCli) -> Path:
    """The models volume as Modal keeps it."""
    return cli.cloud.volume_folder(f"models-{cli.project}")


def worker_of(cli: ModalCli) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "comfymodal.targets.local_place" in words and any(str(cli.state) in word for word in words):
            return process
    raise AssertionError("no worker")
