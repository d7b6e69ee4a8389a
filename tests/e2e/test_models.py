"""`models` and `trash` as an operator has them, on this machine: the command line, a hub, a bucket."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfymodal.storage.names import stamp_of
from tests.conftest import Cli
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub
from tests.doubles.serve_s3 import KEYS, serve_s3

MIB = 1 << 20
CONTENT = random.Random(9).randbytes(3 * MIB)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = "hf:owner/repo/split_files/vae/ae.safetensors"


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        made.put("owner/repo/split_files/vae/ae.safetensors", CONTENT)
        yield made


@pytest.fixture
def models_cli(engineless_cli: Cli, hub: ModelHub) -> Cli:
    """On a machine without any ComfyUI: no command about models needs one."""
    endpoints = {"HF_ENDPOINT": hub.url, "CIVITAI_ENDPOINT": hub.url}
    return Cli(engineless_cli.cwd, {**engineless_cli.environ, **endpoints})


def volume(cli: Cli) -> Path:
    return cli.state / "volumes" / "comfy-models"


def test_a_model_is_added_listed_moved_thrown_away_and_brought_back(models_cli: Cli, hub: ModelHub) -> None:
    planned = models_cli("models", "add", SOURCE, "--dry-run", "--json")
    added = models_cli("models", "add", SOURCE, "--json")
    again = models_cli("models", "add", SOURCE)
    listed = models_cli("models", "list", "vae", "--json")
    moved = models_cli("models", "mv", "ae.safetensors", "vae/flux/")
    unasked = models_cli("models", "rm", "ae.safetensors")
    removed = models_cli("models", "rm", "ae.safetensors", "--yes")
    trash = models_cli("trash", "list", "--json")
    back = models_cli("trash", "restore", "vae/flux/ae.safetensors")

    assert planned.json["data"]["path"] == "vae/ae.safetensors"
    assert (added.code, again.code, moved.code, removed.code, back.code) == (0, 0, 0, 0, 0), added.stderr
    assert added.json["data"]["result"]["sha256"] == SHA256
    assert added.run["kind"] == "download"
    assert again.stdout == f"vae/ae.safetensors\t3.1 MB\twas there already, the same\tsha256 {SHA256}\n"
    assert [model["name"] for model in listed.json["data"]["models"]] == ["ae.safetensors"]
    assert (unasked.code, "--yes" in unasked.stderr) == (4, True)
    assert [row["path"] for row in trash.json["data"]["files"]] == ["vae/flux/ae.safetensors"]
    assert (volume(models_cli) / "vae/flux/ae.safetensors").read_bytes() == CONTENT
    # A download is a run like any other; what only takes a moment is none.
    runs = models_cli("runs", "list", "--json").json["data"]["runs"]
    assert [run["title"] for run in runs] == ["add vae/ae.safetensors"] * 2
    shown = models_cli("runs", "show", "last", "--json").json["data"]
    assert shown["result"]["action"] == "already_there"


def test_a_trained_model_takes_its_note_along(models_cli: Cli) -> None:
    loras = volume(models_cli) / "loras"
    loras.mkdir(parents=True)
    (loras / "anna.safetensors").write_bytes(b"weights")
    (loras / "anna.comfymodal.json").write_text('{"version": 1}')
    moved = models_cli("models", "mv", "anna.safetensors", "loras/people/")
    after_move = sorted(path.relative_to(loras).as_posix() for path in loras.rglob("*.*"))
    removed = models_cli("models", "rm", "anna.safetensors", "--yes", "--json")
    is_empty = not list(loras.rglob("*.*"))
    back = models_cli("trash", "restore", "loras/people/anna.safetensors")

    assert (moved.code, removed.code, back.code) == (0, 0, 0), moved.stderr + removed.stderr + back.stderr
    assert after_move == ["people/anna.comfymodal.json", "people/anna.safetensors"]
    assert [path["path"] for path in removed.json["data"]["paths"]] == [
        "loras/people/anna.safetensors",
        "loras/people/anna.comfymodal.json",
    ]
    assert is_empty
    assert (loras / "people/anna.comfymodal.json").read_text() == '{"version": 1}'


def test_a_token_from_env_opens_a_gated_model_and_is_seen_nowhere(models_cli: Cli, hub: ModelHub) -> None:
    hub.gated.add("owner/repo")
    locked = models_cli("models", "add", SOURCE, "--json")
    (models_cli.cwd / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    opened = models_cli("models", "add", SOURCE, "--json-events")

    assert (locked.code, locked.error["code"]) == (4, "not_ready")
    assert "accept the licence at" in locked.error["hint"]
    assert opened.code == 0, opened.stderr
    assert TOKEN not in opened.stdout + opened.stderr
    for path in models_cli.state.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_ctrl_c_keeps_what_has_come_and_the_same_command_goes_on(models_cli: Cli, hub: ModelHub) -> None:
    part = volume(models_cli) / "vae/ae.safetensors.partial"
    hub.faults = [("cut", 2 * MIB), ("status", (503, {"Retry-After": "60"}))]
    process = models_cli.start("models", "add", SOURCE, "--json")
    give_up_at = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size >= MIB) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    hub.faults = []
    done = models_cli("models", "add", SOURCE, "--json")

    assert process.returncode == 130, stderr
    assert json.loads(stdout)["errors"][0]["code"] == "cancelled"
    assert (done.code, done.json["data"]["result"]["resumed_from_bytes"]) == (0, part_of(stdout))
    assert not part.exists()


def part_of(stdout: str) -> int:
    """How many bytes the cancelled command said that it keeps."""
    return int(json.loads(stdout)["errors"][0]["message"].split()[1])


def test_a_file_of_a_remote_and_its_trash(models_cli: Cli, tmp_path: Path) -> None:
    with serve_s3(tmp_path / "s3") as served:
        (served.bucket / "lib/loras").mkdir(parents=True)
        (served.bucket / "lib/loras/a.safetensors").write_bytes(CONTENT)
        away = served.bucket / f"lib/.comfymodal/trash/{stamp_of(time.time())}/loras/b.safetensors"
        away.parent.mkdir(parents=True)
        away.write_bytes(b"old")
        store = {"type": "s3", "bucket": "models", "endpoint": served.url, "region": "us-east-1", "prefix": "lib"}
        (models_cli.cwd / "comfymodal.yaml").write_text(json.dumps({"version": 1, "remotes": {"store": store}}))
        (models_cli.cwd / ".env").write_text(f"STORE_KEY_ID={KEYS.key_id}\nSTORE_KEY={KEYS.key}\n")
        added = models_cli("models", "add", "store:loras/a.safetensors", "--json")
        trash = models_cli("trash", "list", "--remote", "store", "--json")
        kept = models_cli("trash", "empty", "--remote", "store", "--older-than", "365d", "--yes")
        back = models_cli("trash", "restore", "loras/b.safetensors", "--remote", "store", "--json")
        is_back = (served.bucket / "lib/loras/b.safetensors").read_bytes()

    assert added.code == 0, added.stderr
    assert added.json["data"]["result"]["path"] == "loras/a.safetensors"
    assert [(row["path"], row["size_bytes"]) for row in trash.json["data"]["files"]] == [("loras/b.safetensors", 3)]
    assert kept.stdout.startswith("nothing in the trash of remote store")
    assert (back.code, is_back) == (0, b"old"), back.stderr
    assert KEYS.key not in added.stdout + added.stderr + trash.stdout + back.stdout
