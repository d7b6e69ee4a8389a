"""The download job in a place made of folders: what is under the final name, and when."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import BusyError
from comfymodal.jobs.download import run
from comfymodal.storage.ends import RemoteEnd, end_to_dict
from comfymodal.storage.model_source import parse_source
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub
from tests.doubles.serve_s3 import KEYS, serve_s3
from tests.doubles.storage_place import FolderPlace

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(4 * MIB + 3)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
RUN_ID = "261121-093012-abcd"

WORKER = """
import json, sys
from pathlib import Path
from comfymodal.jobs.download import run
from tests.doubles.storage_place import FolderPlace
root, job = Path(sys.argv[1]), json.loads(sys.argv[2])
if len(sys.argv) > 3:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
print(json.dumps(run(job, FolderPlace(root, {}))))
"""


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        made.put("o/r/a.safetensors", CONTENT)
        yield made


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path, {})


def job(hub: ModelHub, *, path: str = "loras/a.safetensors", **more: Any) -> dict[str, Any]:
    source = parse_source("hf:o/r/a.safetensors", {"HF_ENDPOINT": hub.url})
    return {
        "version": 1,
        "kind": "download",
        "run_id": RUN_ID,
        "role": "models",
        "path": path,
        "source": source.to_dict(),
        "hashes": {},
        "size_bytes": None,
        "mounts": ["models"],
        "secrets": [],
        "deadline_s": None,
        "origin": {"title": "add", "created_at": 0},
        **more,
    }


def files(place: FolderPlace) -> list[str]:
    root = place.volumes["models"]
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_model_is_brought_committed_and_told(hub: ModelHub, place: FolderPlace) -> None:
    outcome = run(job(hub), place)

    assert (outcome["status"], outcome["error"]) == ("succeeded", None)
    assert {key: value for key, value in outcome["result"].items() if key != "seconds"} == {
        "path": "loras/a.safetensors",
        "action": "downloaded",
        "size_bytes": len(CONTENT),
        "sha256": SHA256,
        "verified": True,
        "resumed_from_bytes": 0,
    }
    assert files(place) == ["loras/a.safetensors"]
    assert (place.volumes["models"] / "loras/a.safetensors").read_bytes() == CONTENT
    assert (place.leased, place.commits) == (["models"], ["models"])
    last = [event for event in place.events if event["type"] == "transfer"][-1]
    assert (last["done_bytes"], last["total_bytes"], last["files_done"]) == (len(CONTENT), len(CONTENT), 1)
    # Another machine finds the run by it.
    assert (place.volumes["outputs"] / "runs" / RUN_ID / "job.json").is_file()


def test_the_token_is_in_no_event_outcome_or_file(hub: ModelHub, tmp_path: Path) -> None:
    hub.gated.add("o/r")
    place = FolderPlace(tmp_path, {"HF_TOKEN": TOKEN})
    hub.faults = [("cut", MIB)]
    outcome = run(job(hub), place)

    assert outcome["status"] == "succeeded"
    assert TOKEN not in f"{outcome}{place.events}"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_the_same_file_is_there_already(hub: ModelHub, place: FolderPlace) -> None:
    run(job(hub), place)
    hub.asked.clear()
    outcome = run(job(hub), place)

    assert outcome["result"]["action"] == "already_there"
    assert hub.of_store() == []


def test_another_file_of_that_name_is_left_alone(hub: ModelHub, place: FolderPlace) -> None:
    target = place.volumes["models"] / "loras/a.safetensors"
    target.parent.mkdir(parents=True)
    for content in (b"short", bytes(len(CONTENT))):
        target.write_bytes(content)
        outcome = run(job(hub), place)

        assert (outcome["status"], outcome["error"]["code"]) == ("failed", "conflict")
        assert target.read_bytes() == content
        assert "models rm loras/a.safetensors" in outcome["error"]["hint"]


def test_without_a_hash_nothing_tells_whether_it_is_the_same(hub: ModelHub, place: FolderPlace) -> None:
    hub.is_linked = False
    run(job(hub), place)
    outcome = run(job(hub), place)

    assert outcome["error"]["code"] == "conflict"
    assert "no hash tells" in outcome["error"]["message"]
    assert run(job(hub, hashes={"sha256": SHA256}), place)["result"]["action"] == "already_there"


def test_a_wrong_hash_leaves_nothing(hub: ModelHub, place: FolderPlace) -> None:
    hub.is_linked = False
    outcome = run(job(hub, hashes={"sha256": "0" * 64}), place)

    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "transfer_failed")
    assert files(place) == []


def test_a_stop_commits_what_has_come_and_the_next_job_goes_on(hub: ModelHub, tmp_path: Path) -> None:
    made: list[FolderPlace] = []

    def stop_at_first_byte(event: Any) -> None:
        if event["type"] == "transfer":
            made[0].word = "stop"

    place = FolderPlace(tmp_path, {}, on_event=stop_at_first_byte)
    made.append(place)
    outcome = run(job(hub), place)

    assert (outcome["status"], outcome["error"]["code"]) == ("cancelled", "cancelled")
    assert "loras/a.safetensors" not in files(place)
    assert place.commits == ["models"]
    again = run(job(hub), FolderPlace(tmp_path, {}))
    assert again["result"]["resumed_from_bytes"] >= MIB
    assert files(place) == ["loras/a.safetensors"]


def test_somebody_else_writes(hub: ModelHub, place: FolderPlace) -> None:
    class Taken(FolderPlace):
        def lease(self, owner: str) -> Any:
            raise BusyError("another run writes")

    outcome = run(job(hub), Taken(place.root, {}))

    assert outcome["error"]["code"] == "busy"
    assert hub.asked == []


@pytest.mark.parametrize("path", ["../a.safetensors", "loras/../../a.safetensors", "/a.safetensors", "loras/a\nb.bin"])
def test_names_that_climb_are_refused(hub: ModelHub, place: FolderPlace, path: str) -> None:
    outcome = run(job(hub, path=path), place)

    assert outcome["error"]["code"] == "sync_refused"
    assert files(place) == []


def test_too_little_room_is_known_before_a_byte_comes(hub: ModelHub, place: FolderPlace) -> None:
    outcome = run(job(hub, size_bytes=2**62), place)

    assert "needs 4611686018427387904 bytes more" in outcome["error"]["message"]
    assert hub.asked == []
    # A volume of Modal's tells figures that mean nothing.
    mounted = FolderPlace(place.root, {}, versions={"models": 2})
    assert "not the file that was meant" in run(job(hub, size_bytes=2**62), mounted)["error"]["message"]


def start(place: FolderPlace, work: dict[str, Any], *limit: str) -> subprocess.Popen[str]:
    import json

    arguments = [sys.executable, "-c", WORKER, str(place.root), json.dumps(work), *limit]
    root = Path(__file__).parents[3]
    return subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_keeps_what_has_come(hub: ModelHub, place: FolderPlace) -> None:
    told, said = start(place, job(hub), str(2 * MIB)).communicate(timeout=30)

    assert '"transfer_failed"' in told, said
    assert "File too large" in told
    assert files(place) == ["loras/a.safetensors.from.partial", "loras/a.safetensors.partial"]
    again = run(job(hub), place)
    assert (again["status"], again["result"]["resumed_from_bytes"]) == ("succeeded", 2 * MIB)


def test_killed_at_any_moment_the_next_one_goes_on(hub: ModelHub, place: FolderPlace) -> None:
    part = place.volumes["models"] / "loras/a.safetensors.partial"
    # Each attempt brings one MiB and then waits for seconds: long enough to be hit in between.
    hub.faults = [("cut", MIB + 5), ("status", (503, {"Retry-After": "60"}))] * 3
    process = start(place, job(hub))
    give_up_at = time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size >= MIB) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)

    assert files(place) == ["loras/a.safetensors.from.partial", "loras/a.safetensors.partial"]
    hub.faults = []
    outcome = run(job(hub), place)
    assert outcome["result"]["resumed_from_bytes"] >= MIB
    assert (outcome["result"]["verified"], outcome["result"]["sha256"]) == (True, SHA256)
    assert files(place) == ["loras/a.safetensors"]


def test_one_file_of_a_remote(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "s3") as served:
        (served.bucket / "lib").mkdir()
        (served.bucket / "lib" / "a b.safetensors").write_bytes(CONTENT)
        place = FolderPlace(tmp_path / "place", {"AWS_ACCESS_KEY_ID": KEYS.key_id, "AWS_SECRET_ACCESS_KEY": KEYS.key})
        end = end_to_dict(RemoteEnd(served.remote("lib")))
        work = job(ModelHub(url="http://127.0.0.1:9"), source=None, remote={"end": end, "file": "a b.safetensors"})
        outcome = run(work, place)
        wrong = run({**work, "path": "loras/b.safetensors", "hashes": {"sha256": "0" * 64}}, place)
        missing = run({**work, "path": "vae/c.safetensors", "remote": {"end": end, "file": "c.safetensors"}}, place)

    assert (outcome["status"], outcome["error"]) == ("succeeded", None)
    assert (outcome["result"]["sha256"], outcome["result"]["size_bytes"]) == (SHA256, len(CONTENT))
    assert files(place) == ["loras/a.safetensors"]
    assert wrong["error"]["code"] == "transfer_failed"
    assert missing["error"]["code"] == "not_found"
    assert KEYS.key not in f"{outcome}{wrong}{missing}{place.events}"


def test_the_job_loads_in_a_bare_container() -> None:
    root = Path(__file__).parents[3]
    script = f"import sys; sys.path.insert(0, {str(root)!r}); import comfymodal.jobs.download, comfymodal.jobs.tidy"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)

    assert done.stderr == ""
