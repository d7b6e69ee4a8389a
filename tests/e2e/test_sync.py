"""`sync` on this machine as an operator sees it, with the real rclone against a real S3 server."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HELLO, WORKFLOWS, Cli, Done
from tests.doubles.serve_s3 import KEYS, ServedS3, serve_s3

LISTED_AFTER_S = 1.2
"""The server looks at its folder again after a second: what is changed behind it has to wait that long."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedS3]:
    with serve_s3(tmp_path_factory.mktemp("served")) as found:
        yield found


@dataclass(frozen=True, slots=True)
class World:
    """A project, its volume, and its folder in a bucket."""

    cli: Cli
    bucket: Path
    models: Path

    def sync(self, *arguments: str | Path) -> Done:
        return self.cli("sync", *arguments, "--json")

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return self.cli.start("sync", *arguments, "--json-events")

    def put(self, **files: bytes) -> None:
        for name, data in files.items():
            write(self.bucket / "loras" / f"{name}.safetensors", data)

    def worker(self) -> int:
        """The process id of the newest run's worker."""
        (ledger,) = self.cli.state.glob("projects/*/ledger.sqlite")
        with sqlite3.connect(ledger) as connection:
            call_id = connection.execute("SELECT call_id FROM runs ORDER BY created_at DESC").fetchone()[0]
        return int(call_id.partition("@")[0])


@pytest.fixture
def world(engineless_cli: Cli, served: ServedS3) -> World:
    return make_world(engineless_cli, served)


def make_world(cli: Cli, served: ServedS3) -> World:
    prefix = f"p{next(_numbers)}"
    bucket = served.bucket / prefix
    bucket.mkdir()
    models = cli.cwd / "models"
    (cli.cwd / ".env").write_text(f"AWS_ACCESS_KEY_ID={KEYS.key_id}\nAWS_SECRET_ACCESS_KEY='{KEYS.key}'\n")
    (cli.cwd / "comfymodal.yaml").write_text(
        f"""
version: 1
volumes: {{models: {{path: models}}, outputs: {{path: made}}}}
remotes: {{store: {{type: s3, bucket: models, prefix: {prefix}, endpoint: "{served.url}", region: us-east-1}}}}
sync:
  models: {{from: "store:", to: "models:/", exclude: ["*.ckpt"]}}
  loras-up: {{from: "models:/loras", to: "store:loras"}}
  library: {{from: "store:", to: "models:/", two_way: true}}
  renders: {{from: "outputs:/", to: "store:renders"}}
"""
    )
    return World(cli, bucket, models)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def results(done: Done) -> dict[str, str | None]:
    return {path["path"]: path["result"] for path in done.json["data"]["paths"]}


def pair_of(done: Done) -> dict[str, Any]:
    (found,) = done.json["data"]["pairs"]
    assert isinstance(found, dict)
    return found


def wait_for(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == kind:
            return event
    raise AssertionError(f"ended without {kind}: {process.stderr.read() if process.stderr else ''}")


def finished(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    stdout, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    return process.returncode, json.loads(stdout.splitlines()[-1])


def test_a_plan_a_pull_and_then_nothing_to_do(world: World) -> None:
    world.put(a=some_bytes(70_000), b=b"")
    write(world.bucket / "old.ckpt", b"excluded")
    before = world.sync("models", "--status")
    planned = world.sync("models", "--dry-run")
    assert not world.models.exists()
    pulled = world.sync("models")
    again = world.sync("models")
    after = world.sync("models", "--status")

    assert [done.code for done in (before, planned, pulled, again, after)] == [6, 0, 0, 0, 0]
    assert pair_of(planned)["cost"]["remote_kind"] == "s3"
    assert results(pulled) == {"loras/a.safetensors": "copied", "loras/b.safetensors": "copied"}
    assert all(path["verified"] for path in pulled.json["data"]["paths"])
    assert (world.models / "loras" / "a.safetensors").read_bytes() == some_bytes(70_000)
    assert set(results(again).values()) == {"same"}
    assert (pair_of(after)["is_in_step"], pair_of(before)["is_in_step"]) == (True, False)
    assert (pair_of(pulled)["copied_files"], pair_of(pulled)["copied_bytes"]) == (2, 70_000)


def test_keys_are_in_no_file_and_in_nothing_that_is_said(world: World) -> None:
    world.put(a=b"data")
    done = world.cli("sync", "models", "--json-events")
    assert done.code == 0
    key = KEYS.key.encode()
    for path in (*world.cli.state.rglob("*"), *world.cli.cwd.rglob("*")):
        if path.is_file() and path.name != ".env":
            assert key not in path.read_bytes(), path
    assert KEYS.key not in done.stdout + done.stderr


def test_people_read_a_line_for_each_pair(world: World) -> None:
    world.put(a=some_bytes(2_000_000))
    done = world.cli("sync", "models", "loras-up")
    assert done.code == 0
    assert done.stdout == "loras/a.safetensors\tcopied\t2.0 MB\t\tmodels\n"
    assert f"models: here models:/ (folder {world.models}), there store:" in done.stderr
    assert "models: 1 copied (2.0 MB, " in done.stderr
    assert done.stderr.endswith("loras-up: 1 in step\n")


def test_all_one_way_pairs_and_a_place_that_was_typed(world: World) -> None:
    world.put(a=b"one")
    write(world.cli.cwd / "made" / "runs" / "r" / "x.png", b"picture")
    every = world.sync()
    typed = world.sync("store:loras", "./copy")

    assert (every.code, typed.code) == (0, 0)
    assert [pair["name"] for pair in every.json["data"]["pairs"]] == ["models", "loras-up", "renders"]
    assert (world.bucket / "renders" / "runs" / "r" / "x.png").read_bytes() == b"picture"
    assert (world.cli.cwd / "copy" / "a.safetensors").read_bytes() == b"one"
    # The folders of the syncs themselves lie on the volume, too.
    assert world.sync("renders", "--status").code == 0
    assert pair_of(typed)["name"] == f"store:loras -> {world.cli.cwd / 'copy'}"


def test_a_conflict_is_left_alone_until_both_are_wanted(world: World) -> None:
    world.put(a=b"first")
    assert world.sync("library").code == 0
    (world.models / "loras" / "a.safetensors").write_bytes(b"changed here")
    world.put(a=b"and there")
    time.sleep(LISTED_AFTER_S)

    conflict = world.sync("library")
    assert (conflict.code, conflict.json["status"], conflict.error["code"]) == (6, "partial", "conflict")
    assert (world.models / "loras" / "a.safetensors").read_bytes() == b"changed here"
    both = world.sync("library", "--prefer", "both")
    assert both.code == 0
    texts = {path.read_bytes() for path in (world.models / "loras").iterdir()}
    assert (
        texts == {b"changed here", b"and there"} == {path.read_bytes() for path in (world.bucket / "loras").iterdir()}
    )


def test_nothing_is_deleted_without_a_yes(world: World) -> None:
    world.put(**{name: name.encode() for name in "abcdefgh"})
    assert world.sync("models").code == 0
    (world.bucket / "loras" / "a.safetensors").unlink()
    time.sleep(LISTED_AFTER_S)

    kept = world.sync("models")
    unasked = world.cli("sync", "models", "--delete")
    assert (kept.code, unasked.code) == (0, 4)
    assert "models:/: loras/a.safetensors" in unasked.stderr
    assert (world.models / "loras" / "a.safetensors").exists()
    deleted = world.sync("models", "--delete", "--yes")
    assert (deleted.code, results(deleted)["loras/a.safetensors"]) == (0, "deleted")
    assert not (world.models / "loras" / "a.safetensors").exists()
    (trashed,) = (world.models / ".comfymodal" / "trash").rglob("a.safetensors")
    assert trashed.read_bytes() == b"a"

    for name in "bcd":
        (world.bucket / "loras" / f"{name}.safetensors").unlink()
    time.sleep(LISTED_AFTER_S)
    refused = world.sync("models", "--delete", "--yes")
    assert (refused.code, refused.error["code"]) == (3, "sync_refused")
    assert (world.models / "loras" / "b.safetensors").exists()


SLOW = ("--bwlimit", "2M")


def slow_library(world: World) -> dict[str, bytes]:
    files = {name: some_bytes(size) for name, size in (("a", 500_000), ("b", 3_000_000), ("c", 5_000_000))}
    world.put(**files)
    return {f"{name}.safetensors": data for name, data in files.items()}


def pulled_files(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (world.models / "loras").glob("*")}


def test_ctrl_c_keeps_what_is_whole_and_the_next_sync_goes_on(world: World) -> None:
    files = slow_library(world)
    process = world.start("models", *SLOW)
    wait_for(process, "transfer")
    process.send_signal(signal.SIGINT)
    code, result = finished(process)

    assert code == 130
    assert (result["data"]["run"]["status"], result["errors"][0]["code"]) == ("cancelled", "cancelled")
    assert result["errors"][0]["hint"] == "run it again, it goes on: comfymodal sync models"
    assert pulled_files(world).items() <= files.items()
    assert world.sync("models").code == 0
    assert pulled_files(world) == files


def test_a_killed_client_is_only_a_reader(world: World) -> None:
    files = slow_library(world)
    process = world.start("models", *SLOW)
    run_id = wait_for(process, "submitted")["run_id"]
    wait_for(process, "transfer")
    process.kill()
    process.communicate()

    attached = world.cli("runs", "attach", run_id, "--json")
    assert (attached.code, attached.run["status"]) == (0, "succeeded")
    assert pulled_files(world) == files
    assert world.cli("runs", "show", "last", "--json").json["data"]["pairs"][0]["copied_files"] == 3


def test_a_killed_worker_is_noticed_and_the_same_again_goes_on(world: World) -> None:
    files = slow_library(world)
    started = world.sync("models", *SLOW, "--detach")
    attached = world.cli.start("runs", "attach", started.run["id"], "--json-events")
    wait_for(attached, "transfer")
    os.kill(world.worker(), signal.SIGKILL)
    code, result = finished(attached)

    assert (started.code, started.run["status"]) == (0, "running")
    assert (code, result["errors"][0]["code"]) == (6, "transfer_failed")
    assert pulled_files(world).keys() - files.keys() == {name for name in pulled_files(world) if "partial" in name}
    again = world.cli("runs", "again", started.run["id"], "--json")
    assert again.code == 0, again.stdout
    assert pulled_files(world) == files


def test_a_run_that_goes_on_is_seen_and_stopped_from_elsewhere(world: World) -> None:
    slow_library(world)
    waited = world.sync("models", "--bwlimit", "200k", "--wait", "1s")
    listed = world.cli("runs", "list")
    busy = world.sync("models")
    cancelled = world.cli("runs", "cancel", waited.error["run_id"], "--json")

    assert (waited.code, waited.error["code"]) == (8, "still_running")
    assert "running" in listed.stdout
    assert "sync models" in listed.stdout
    assert (busy.code, busy.error["code"]) == (5, "busy")
    assert (cancelled.code, cancelled.run["status"]) == (0, "cancelled")
    assert world.cli("runs", "attach", waited.error["run_id"], "--json").code == 130


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(("nope",), 4, "no sync pair called nope", id="no such pair"),
        pytest.param(("store:x",), 2, "one alone cannot be synced", id="half a pair"),
        pytest.param(("models", "--prefer", "me"), 2, "here, there, both", id="no such side"),
        pytest.param(("models", "--bwlimit", "fast"), 2, "is no rate", id="no rate"),
        pytest.param(("models", "--status", "--dry-run"), 2, "two questions", id="two questions"),
        pytest.param(("models", "--status", "--detach"), 2, "--detach", id="nobody waits for the answer"),
        pytest.param(("models", "--include", "{a"), 2, "no pattern", id="no pattern"),
        pytest.param(("./nowhere", "models:/x"), 4, "does not exist", id="no folder"),
        pytest.param(("store:typo", "models:/"), 3, "empty", id="an empty prefix"),
    ],
)
def test_mistakes_cost_nothing(arguments: tuple[str, ...], code: int, words: str, world: World) -> None:
    done = world.sync(*arguments)
    assert (done.code, done.stderr.count("Traceback")) == (code, 0)
    assert words in done.error["message"]
    assert [path.name for path in world.models.rglob("*") if path.is_file()] in ([], ["lock"])


def test_wrong_keys_are_told(world: World) -> None:
    (world.cli.cwd / ".env").write_text("AWS_ACCESS_KEY_ID=AKIDNOBODY\nAWS_SECRET_ACCESS_KEY=wrong\n")
    done = world.sync("models")
    assert (done.code, done.error["code"]) == (4, "not_ready")
    (world.cli.cwd / ".env").unlink()
    done = world.sync("models")
    assert (done.code, done.error["message"]) == (4, "there are no keys for the remote store")


def test_a_render_pushes_its_folder(cli: Cli, served: ServedS3) -> None:
    world = make_world(cli, served)
    write(cli.cwd / "made" / "runs" / "other" / "x.png", b"not of this run")
    refused = cli("render", HELLO, "--push", "models", "--json")
    done = cli("render", HELLO, "--push", "renders", "--json")
    pushed = world.bucket / "renders" / "runs"

    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert done.code == 0, done.stdout
    assert done.json["data"]["push"]["status"] == "succeeded"
    assert [path.name for path in pushed.iterdir()] == [done.run["id"]]
    assert list((pushed / done.run["id"]).rglob("*.png"))

    # The render is done and paid for: a bucket that fails afterwards does not take it away.
    (cli.cwd / ".env").write_text("AWS_ACCESS_KEY_ID=AKIDNOBODY\nAWS_SECRET_ACCESS_KEY=wrong\n")
    unsent = cli("render", HELLO, "--push", "renders", "--json")
    assert (unsent.code, unsent.run["status"], len(unsent.outputs)) == (6, "succeeded", len(done.outputs))
    assert unsent.error["hint"].endswith("comfymodal sync renders")


def test_a_model_that_a_sync_brings_is_seen_by_the_engine_that_runs(
    make_cli: Callable[[Path], Cli], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    cli = make_cli(tmp_path / "state")
    (cli.cwd / "comfymodal.yaml").write_text("version: 1\nvolumes: {models: {path: models}}\n")
    missing = cli("render", WORKFLOWS / "tiny_txt2img.json", "--json")
    write(cli.cwd / "mine" / "tiny.ckpt", tiny_checkpoint.read_bytes())
    brought = cli("sync", "./mine", "models:/checkpoints", "--json")
    done = cli("render", WORKFLOWS / "tiny_txt2img.json", "--json")

    assert (missing.code, brought.code, done.code) == (4, 0, 0), done.stdout
    assert cli("engine", "stop", "--yes").code == 0
