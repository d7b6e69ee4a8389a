"""Files between a bucket and volumes on Modal: the stock client, the real container runtime, the real rclone."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.targets.modal.recipe import SYNC_PACKAGES
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.doubles.serve_s3 import KEYS, ServedS3, serve_s3
from tests.e2e.modal_runs import result, start, wait_for, wait_for_type, wait_until
from tests.e2e.modal_world import REPOSITORY, ModalCli, run_modal
from tests.e2e.test_render_faults import finished

PROJECT = """\
version: 1
project: {project}
target: modal
volumes:
  models: {{name: models-{project}}}
  outputs: {{name: outputs-{project}}}
remotes:
  store: {{type: s3, bucket: models, endpoint: "{url}", region: us-east-1, secret: {secret}}}
sync:
  models: {{from: "store:{project}", to: "models:/"}}
  up: {{from: "models:/loras", to: "store:up-{project}"}}
"""
SECRET = "b2-credentials"
MIB = 1 << 20

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    folder = tmp_path_factory.mktemp("modal")
    made = ModalCloud.start(
        folder / "cloud",
        container_python=container_python(ENGINE_DATA / "test-cache", SYNC_PACKAGES),
        hide=[REPOSITORY],
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    keys = (f"AWS_ACCESS_KEY_ID={KEYS.key_id}", f"AWS_SECRET_ACCESS_KEY={KEYS.key}")
    run_modal(made, environ, "secret", "create", SECRET, *keys)
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedS3]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as served:
        yield served


@pytest.fixture
def make_sync_cli(
    tmp_path: Path, cloud: ModalCloud, store: ServedS3, make_cli: Callable[[Path], Cli]
) -> Callable[..., ModalCli]:
    """Build the command line of a project of one's own, with volumes and a folder of the bucket of its own."""

    def make(secret: str = SECRET) -> ModalCli:
        made = make_cli(tmp_path / "state")
        name = f"s{next(_numbers)}-{os.getpid()}"
        (made.cwd / "comfymodal.yaml").write_text(PROJECT.format(project=name, url=store.url, secret=secret))
        return ModalCli(made.cwd, {**made.environ, **cloud.environ}, cloud, name)

    return make


@pytest.fixture
def sync_cli(make_sync_cli: Callable[..., ModalCli]) -> ModalCli:
    return make_sync_cli()


def fill(store: ServedS3, cli: ModalCli, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Put files of these sizes into the bucket, where the pair `models` begins."""
    files = {path: os.urandom(size) for path, size in sizes.items()}
    for path, content in files.items():
        place = store.bucket / cli.project / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return files


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything but our own notes, half-written files too."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".comfymodal/")}


def on_volume(cli: ModalCli) -> dict[str, bytes]:
    return files_in(cli.cloud.volume_folder(f"models-{cli.project}"))


def bases(cli: ModalCli) -> list[dict[str, Any]]:
    """The committed records of the volume's pairs."""
    folder = cli.cloud.volume_folder(f"models-{cli.project}") / ".comfymodal" / "bases"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def busy(cli: ModalCli) -> dict[str, Any]:
    return cli.cloud.wait_for_container(
        lambda one: one["app"] == f"comfymodal-{cli.project}-sync" and one["state"] == "busy"
    )


def pair(envelope: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = envelope["data"]["pairs"][0]
    return found


def put_lease(cli: ModalCli, entry: Mapping[str, Any]) -> None:
    """As another project on the same volume would."""
    script = (
        "import json, sys, modal\n"
        "leases = modal.Dict.from_name('comfymodal-leases', create_if_missing=True)\n"
        f"leases.put('models-{cli.project}', json.loads(sys.argv[1]))"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(cli.cwd), **cli.cloud.environ}
    subprocess.run([sys.executable, "-c", script, json.dumps(entry)], env=environ, check=True)


def test_pull_then_nothing_then_push_with_what_each_needs_and_no_more(sync_cli: ModalCli, store: ServedS3) -> None:
    few = {"loras/-é n.bin": 1000, "empty.bin": 0, "big.bin": 3 * MIB}
    # So many that what is told of each comes by the volume, and not with the result of the call.
    files = fill(store, sync_cli, {**few, **{f"many/{number:04}.bin": 10 for number in range(500)}})
    unasked = sync_cli("sync", "models", "--json")
    pulled = sync_cli("sync", "models", "--yes", "--json")
    asked = sync_cli.cloud.requests("FunctionBindParams")[-1]["body"]["function_options"]
    again = sync_cli("sync", "models", "--yes", "--json")
    status = sync_cli("status", "--json").json["data"]
    pushed = sync_cli("sync", "up", "--yes", "--json")
    log = sync_cli("logs", pushed.run["id"])
    stopped = sync_cli("stop", "--yes", "--json")

    assert (unasked.code, unasked.error["code"]) == (4, "not_ready")
    assert pulled.code == 0, pulled.stderr
    assert (pair(pulled.json)["copied_files"], pair(pulled.json)["copied_bytes"]) == (503, 3 * MIB + 1000 + 5000)
    assert {one["path"] for one in pulled.json["data"]["paths"] if one["verified"]} == set(files)
    assert on_volume(sync_cli) == files
    # What is mounted is what the pair names, and where the run keeps its record; no GPU, and no ComfyUI.
    mounts = [mount["mount_path"] for mount in asked["volume_mounts"]]
    assert (mounts, len(asked["secret_ids"])) == (["/volumes/models", "/volumes/outputs"], 1)
    assert {one["gpu"] for one in sync_cli.cloud.containers(None) if sync_cli.project in one["app"]} == {""}
    assert (again.code, pair(again.json)["is_in_step"], pair(again.json)["copied_files"]) == (0, True, 0)
    (container,) = status["containers"]
    assert (container["does"], container["gpu"], container["app"]) == (
        "idle",
        "CPU",
        f"comfymodal-{sync_cli.project}-sync",
    )
    assert float(container["usd_per_hour"]) > 0
    assert pushed.code == 0, pushed.stderr
    assert files_in(store.bucket / f"up-{sync_cli.project}") == {"-é n.bin": files["loras/-é n.bin"]}
    assert (log.code, "sync begins" in log.stdout, "succeeded" in log.stdout) == (0, True, True)
    assert stopped.json["data"]["apps"] == [f"comfymodal-{sync_cli.project}-sync"]
    assert KEYS.key not in json.dumps(sync_cli.cloud.requests("FunctionMap"))


def test_what_a_killed_container_never_committed_is_fetched_again(sync_cli: ModalCli, store: ServedS3) -> None:
    files = fill(store, sync_cli, {f"{number}.bin": MIB for number in range(4)})
    process = start(sync_cli, "sync", "models", "--bwlimit", "2M", "--yes", "--json-events")
    wait_for(process, lambda event: event["type"] == "transfer" and event["done_bytes"] > MIB // 2)
    first = busy(sync_cli)["task_id"]
    sync_cli.cloud.kill_container(first)
    after_kill = (on_volume(sync_cli), [base["entries"] for base in bases(sync_cli)])
    # The second one has everything, and cannot commit it.
    wait_for_type(process, "warning")
    sync_cli.cloud.do("fail", rpc="VolumeCommit", status="UNAVAILABLE", times=10_000)
    wait_for(process, lambda event: event.get("phase") == "commit")
    second = busy(sync_cli)["task_id"]
    sync_cli.cloud.kill_container(second)
    sync_cli.cloud.do("fail", rpc="VolumeCommit", times=0)
    after_both = (on_volume(sync_cli), [base["entries"] for base in bases(sync_cli)])
    done = finished(process)

    assert after_kill in (({}, []), ({}, [{}]))
    assert after_both == after_kill
    assert done.code == 0, done.stdout[-3000:]
    assert first != second
    assert pair(result(done))["copied_files"] == 4
    assert on_volume(sync_cli) == files
    assert set(bases(sync_cli)[0]["entries"]) == set(files)


def test_a_container_that_is_taken_away_hands_over_what_it_finished(sync_cli: ModalCli, store: ServedS3) -> None:
    files = fill(store, sync_cli, {f"{number}.bin": MIB for number in range(4)})
    words = ("--bwlimit", "1M", "--transfers", "1", "--yes", "--json-events")
    process = start(sync_cli, "sync", "models", *words)
    wait_for(process, lambda event: event["type"] == "transfer" and event["files_done"] > 0)
    sync_cli.cloud.preempt(busy(sync_cli)["task_id"], grace_s=20.0)
    wait_for_type(process, "warning")
    handed_over = on_volume(sync_cli)
    done = finished(process)

    assert done.code == 0, done.stdout[-3000:]
    assert 0 < len(handed_over) < 4
    assert pair(result(done))["copied_files"] == 4 - len(handed_over)
    assert on_volume(sync_cli) == files
    assert set(bases(sync_cli)[0]["entries"]) == set(files)


def test_a_volume_that_somebody_else_writes_to_is_left_alone(sync_cli: ModalCli, store: ServedS3) -> None:
    fill(store, sync_cli, {"a.bin": 10})
    now = time.time()
    put_lease(sync_cli, {"run_id": "theirs", "project": "other", "token": "x", "since": now, "beat_at": now})
    refused = sync_cli("sync", "models", "--yes", "--json")
    looked = sync_cli("sync", "models", "--status", "--yes", "--json")

    assert (refused.code, refused.error["code"]) == (5, "busy")
    assert "is being written to by run theirs of the project other since " in refused.error["message"]
    assert on_volume(sync_cli) == {}
    # Looking needs no lease.
    assert (looked.code, pair(looked.json)["is_in_step"]) == (6, False)


def test_without_the_secret_nothing_starts(make_sync_cli: Callable[..., ModalCli], store: ServedS3) -> None:
    cli = make_sync_cli(secret="no-such-secret")
    fill(store, cli, {"a.bin": 10})
    done = cli("sync", "models", "--yes", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "no-such-secret" in done.error["message"]
    assert "comfymodal setup" in done.error["hint"]
    assert not [one for one in cli.cloud.containers(None) if cli.project in one["app"]]


def test_interrupt_ends_it_and_the_next_one_goes_on(sync_cli: ModalCli, store: ServedS3) -> None:
    files = fill(store, sync_cli, {f"{number}.bin": MIB for number in range(4)})
    process = start(sync_cli, "sync", "models", "--bwlimit", "1M", "--yes", "--json-events")
    wait_for(process, lambda event: event["type"] == "transfer" and event["done_bytes"] > 0)
    process.send_signal(signal.SIGINT)
    done = finished(process)
    left = on_volume(sync_cli)
    again = sync_cli("sync", "models", "--yes", "--json")

    assert done.code == 130, done.stderr
    assert {path: files.get(path) for path in left} == left
    assert again.code == 0, again.stderr
    assert on_volume(sync_cli) == files
    wait_until(lambda: not [one for one in sync_cli.cloud.containers("busy") if sync_cli.project in one["app"]])
