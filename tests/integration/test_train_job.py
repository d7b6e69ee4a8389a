"""The training job over the stand-in trainer: from a dataset on a volume to a LoRA among the models."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfymodal.errors import BusyError
from comfymodal.files import read_json, read_json_lines, write_json
from comfymodal.jobs import train_publish
from comfymodal.jobs.contract import EVENTS_FILE, OUTCOME_FILE, StoragePlace, run_folder
from comfymodal.jobs.kinds import run_job
from comfymodal.storage.library import SIDECAR_SUFFIX, Folders, read_library
from comfymodal.targets.local_call import CALL_FILE, CONTROL_FILE
from comfymodal.targets.local_place import LocalPlace
from comfymodal.training.ai_toolkit.command import PATH_VARIABLE, PYTHON_VARIABLE
from comfymodal.training.state import read_state
from tests.doubles.storage_place import FolderPlace
from tests.doubles.trainer.files import PICTURE, read_step

ROOT = Path(__file__).parent.parent.parent
SIDECAR = f"loras/tiny{SIDECAR_SUFFIX}"
QUICK = {"stall_s": 5.0, "quiet_s": 10.0, "closing_s": 3.0, "stop_s": 20.0, "signal_s": 10.0}

Event = Mapping[str, Any]


@dataclass
class Bench:
    """One run: its volumes, its job, and what it said."""

    root: Path
    steps: int = 24
    save_every: int = 8
    step_s: float = 0.002
    rank: int = 4
    publish: Mapping[str, Any] | None = field(default_factory=dict)
    images: int | None = 5
    repeats: int = 1
    runs: int = 0

    @property
    def place(self) -> FolderPlace:
        return FolderPlace(self.root / "volumes", self.environ())

    def environ(self, faults: str = "") -> dict[str, str]:
        toolkit = {PATH_VARIABLE: str(ROOT / "tests" / "doubles" / "trainer"), PYTHON_VARIABLE: sys.executable}
        return {**os.environ, **toolkit, "STANDIN_FAULTS": faults, "STANDIN_STEP_S": str(self.step_s)}

    @property
    def store(self) -> Path:
        return self.place.volumes["training"] / "runs" / "tiny"

    @property
    def dataset(self) -> Path:
        return self.place.volumes["datasets"] / "sets" / "d1"

    @property
    def lora(self) -> Path:
        return self.place.volumes["models"] / "loras" / "tiny.safetensors"

    def sidecar(self) -> dict[str, Any]:
        found = json.loads((self.place.volumes["models"] / SIDECAR).read_text())
        assert isinstance(found, dict)
        return found

    def job(self) -> dict[str, Any]:
        self.runs += 1
        process = {
            "type": "diffusion_trainer",
            "training_folder": "/tmp/run",
            "sqlite_db_path": "/tmp/ctl/aitk.db",
            "trigger_word": "p3rson",
            "model": {"name_or_path": "org/model", "arch": "sd1"},
            "network": {"type": "lora", "linear": self.rank, "linear_alpha": self.rank},
            "train": {"steps": self.steps, "lr": 1e-4},
            "save": {"save_every": self.save_every, "max_step_saves_to_keep": 2},
            "datasets": [{"folder_path": "/datasets/sets/d1", "resolution": [64], "num_repeats": self.repeats}],
            "sample": {"prompts": ["a cat", "a dog"], "sample_every": 12},
        }
        location = {
            "at": AT,
            "from": {"role": "datasets", "path": "sets/d1"},
            "copies": True,
            "images": self.images,
            "sha256": "ab" * 32,
        }
        return {
            "version": 1,
            "kind": "train",
            "run_id": f"run-{self.runs}",
            "folder": "runs/tiny",
            "config": {"job": "extension", "config": {"name": "tiny", "process": [process]}},
            "locations": [location],
            "publish": self.publish,
            "limits": QUICK,
            "scratch": str(self.root / "scratch"),
        }

    def run(self, faults: str = "", place: StoragePlace | None = None, **more: Any) -> dict[str, Any]:
        place = place or FolderPlace(self.root / "volumes", self.environ(faults))
        outcome = run_job(json.loads(json.dumps({**self.job(), **more})), place)
        assert not list((self.root / "scratch").glob("*/*"))
        crossed = json.loads(json.dumps(outcome, allow_nan=False))
        assert isinstance(crossed, dict)
        return crossed

    def local_place(self, name: str = "call") -> LocalPlace:
        """The real one of this machine, with real locks and its control file."""
        call = self.root / name
        call.mkdir(exist_ok=True)
        volumes = {role: str(path) for role, path in self.place.volumes.items()}
        place = LocalPlace(call, {"volumes": volumes, "state": str(self.root / "state"), "job": {"run_id": name}})
        place.environ = self.environ()
        return place

    def saved_steps(self) -> list[int]:
        return [each.step for each in read_state(self.store) or ()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.dataset.mkdir(parents=True)
    for number in range(5):
        (made.dataset / f"{number}.jpg").write_bytes(PICTURE)
        (made.dataset / f"{number}.txt").write_text("p3rson")
    return made


AT = ["config", "process", 0, "datasets", 0, "folder_path"]


def of(place: FolderPlace, kind: str) -> list[Event]:
    return [event for event in place.events if event["type"] == kind]


def say_once(place: FolderPlace, kind: str, act: Callable[[], None]) -> None:
    """Act at the first event of a kind."""

    def hear(event: Event) -> None:
        if event["type"] == kind and len(of(place, kind)) == 1:
            act()

    place.on_event = hear


def test_a_run_goes_from_a_dataset_to_a_lora(bench: Bench) -> None:
    place = bench.place
    outcome = bench.run(place=place)

    assert (outcome["status"], outcome["error"], outcome["may_pass"]) == ("succeeded", None, False)
    assert outcome["result"]["final"]["step"] == 24
    assert list(outcome["result"]["images"].values()) == [5]
    assert bench.saved_steps() == [8, 16, 24]
    (published,) = outcome["published"]
    sha256 = hashlib.sha256(bench.lora.read_bytes()).hexdigest()
    assert published == {
        "path": "loras/tiny.safetensors",
        "action": "published",
        "sha256": sha256,
        "size_bytes": bench.lora.stat().st_size,
    }
    assert read_step(bench.lora) == 24
    assert place.leased == [str(bench.store), "models"]
    assert place.commits[-1] == "models"
    assert "training" in place.commits
    phases = [event["phase"] for event in of(place, "phase")]
    assert phases[0] == "staging"
    assert phases[-1] == "publishing"
    assert of(place, "staged")[-1]["files_done"] == 10


def test_the_trainer_writes_nothing_beside_the_pictures(bench: Bench) -> None:
    (bench.dataset / "_latent_cache").mkdir()
    (bench.dataset / "_latent_cache" / "old.safetensors").write_bytes(b"of another config")
    (bench.dataset / "more").mkdir()
    (bench.dataset / "more" / "6.jpg").write_bytes(PICTURE)
    bench.images = 6
    before = sorted(path.relative_to(bench.dataset).as_posix() for path in bench.dataset.rglob("*"))

    place = bench.place
    outcome = bench.run(place=place)

    assert outcome["status"] == "succeeded"
    assert sorted(path.relative_to(bench.dataset).as_posix() for path in bench.dataset.rglob("*")) == before
    assert of(place, "staged")[-1]["files"] == 11


def test_a_folder_of_this_machine_will_do(bench: Bench, tmp_path: Path) -> None:
    # In a checkpoint's path such a name would keep ai-toolkit from going on.
    mine = tmp_path / "my_LoRA_cn"
    bench.dataset.rename(mine)
    job = bench.job()
    job["locations"][0]["from"] = {"folder": str(mine)}

    assert bench.run("kill_at=20", locations=job["locations"])["status"] == "failed"
    assert bench.run(locations=job["locations"])["result"]["resumed_from"] == 16


def test_the_note_tells_where_a_lora_comes_from(bench: Bench) -> None:
    bench.publish = {"folder": "loras/people", "name": "anna", "more": {"cost_usd": 1.5}}
    outcome = bench.run()

    folder = bench.place.volumes["models"] / "loras" / "people"
    assert sorted(path.name for path in folder.iterdir()) == [f"anna{SIDECAR_SUFFIX}", "anna.safetensors"]
    note = json.loads((folder / f"anna{SIDECAR_SUFFIX}").read_text())
    assert (note["file"], note["sha256"]) == ("anna.safetensors", outcome["published"][0]["sha256"])
    assert (note["trigger"], note["base"], note["steps"]) == ("p3rson", {"model": "org/model", "arch": "sd1"}, 24)
    assert (note["rank"], note["run"]["folder"], note["more"]) == (4, "runs/tiny", {"cost_usd": 1.5})
    assert note["datasets"] == [{"images": 5, "sha256": "ab" * 32}]
    samples = [(each["step"], each["index"], each["prompt"]) for each in note["samples"]]
    assert samples == [(step, index, text) for step in (0, 12, 24) for index, text in enumerate(("a cat", "a dog"))]
    assert all((bench.place.volumes["training"] / each["path"]).read_bytes() == PICTURE for each in note["samples"])
    # The local paths of one attempt are nobody's business.
    assert note["config"]["config"]["process"][0]["datasets"][0]["folder_path"] == "/datasets/sets/d1"


def test_a_note_is_no_model(bench: Bench) -> None:
    bench.run()
    root = bench.place.volumes["models"]
    files = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in root.rglob("*") if path.is_file()]

    assert [model.path for model in read_library(files, Folders(("loras",), {})).models] == ["loras/tiny.safetensors"]


def test_without_a_wish_nothing_is_published(bench: Bench) -> None:
    bench.publish = None
    outcome = bench.run()

    assert (outcome["status"], outcome["published"]) == ("succeeded", [])
    assert not bench.place.volumes["models"].exists()


def test_a_finished_run_is_only_published_again(bench: Bench) -> None:
    bench.run()
    note = bench.sidecar()
    (bench.place.volumes["models"] / SIDECAR).unlink()
    # Nothing is staged for it either.
    for path in bench.dataset.iterdir():
        path.unlink()
    bench.dataset.rmdir()

    outcome = bench.run()

    assert (outcome["status"], outcome["result"]["exit_code"]) == ("succeeded", None)
    assert [each["action"] for each in outcome["published"]] == ["already_there"]
    assert {**bench.sidecar(), "run": None} == {**note, "run": None}


def test_more_steps_replace_what_the_same_run_published(bench: Bench) -> None:
    bench.run()
    bench.steps = 32

    outcome = bench.run()

    assert (outcome["status"], outcome["result"]["resumed_from"]) == ("succeeded", 24)
    assert read_step(bench.lora) == 32
    assert bench.sidecar()["steps"] == 32


def test_somebody_elses_lora_is_not_overwritten(bench: Bench) -> None:
    bench.lora.parent.mkdir(parents=True)
    bench.lora.write_bytes(b"of somebody else")

    outcome = bench.run()

    assert (outcome["status"], outcome["error"]["code"], outcome["error"]["cause"]) == (
        "partial",
        "partial",
        "conflict",
    )
    assert "another loras/tiny.safetensors" in outcome["error"]["message"]
    assert bench.lora.read_bytes() == b"of somebody else"
    assert outcome["result"]["final"]["step"] == 24
    bench.publish = {"name": "tiny-2"}
    assert bench.run()["published"][0]["path"] == "loras/tiny-2.safetensors"


def test_a_full_models_volume_loses_no_training(bench: Bench) -> None:
    bench.lora.parent.mkdir(parents=True)
    bench.lora.with_name("tiny.safetensors.partial").symlink_to("/dev/full")

    outcome = bench.run()

    assert (outcome["status"], outcome["error"]["cause"]) == ("partial", "transfer_failed")
    assert "No space left on device" in outcome["error"]["message"]
    assert bench.run()["status"] == "succeeded"


def test_who_writes_to_the_models_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_publish, "BUSY_AGAIN_S", 0.01)
    asked: list[str] = []

    class Busy(FolderPlace):
        @contextlib.contextmanager
        def lease(self, owner: str) -> Iterator[None]:
            asked.append(owner)
            if owner == "models" and asked.count("models") < limit:
                raise BusyError("a sync writes to the models")
            yield

    limit = 3
    outcome = bench.run(place=Busy(bench.root / "volumes", bench.environ()))
    assert (outcome["status"], asked.count("models")) == ("succeeded", 3)

    monkeypatch.setattr(train_publish, "BUSY_PATIENCE_S", 0.05)
    limit = 1_000_000
    outcome = bench.run(place=Busy(bench.root / "volumes", bench.environ()))
    assert (outcome["status"], outcome["error"]["cause"]) == ("partial", "busy")


def test_a_save_on_request_goes_on(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 60, 1000, 0.03
    place = bench.place
    say_once(place, "step", lambda: setattr(place, "word", "save"))

    outcome = bench.run(place=place)

    assert outcome["status"] == "succeeded"
    asked, final = bench.saved_steps()
    assert 0 < asked < final == 60


def test_a_stop_saves_and_the_next_run_goes_on(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 5000, 1000, 0.01
    place = bench.place
    say_once(place, "step", lambda: setattr(place, "word", "stop"))

    stopped = bench.run(place=place)

    assert (stopped["status"], stopped["error"], stopped["published"]) == ("cancelled", None, [])
    (saved,) = bench.saved_steps()
    assert stopped["result"]["saved_step"] == saved
    bench.steps, bench.save_every = saved + 5, 8
    outcome = bench.run()
    assert (outcome["status"], outcome["result"]["resumed_from"]) == ("succeeded", saved)
    assert read_step(bench.lora) == saved + 5


def test_a_stop_while_the_dataset_is_copied(bench: Bench) -> None:
    place = bench.place
    place.word = "stop"

    outcome = bench.run(place=place)

    assert (outcome["status"], outcome["error"]["code"]) == ("cancelled", "cancelled")
    assert bench.saved_steps() == []


def test_after_a_save_a_stop_is_still_heard(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01
    place = bench.local_place()
    place.deadline = time.time() + 60
    heard: list[str] = []
    emit = place.emit

    def listen(event: Event) -> None:
        word = {"step": "save", "checkpoint": "stop"}.get(event["type"])
        if word and word not in heard:
            heard.append(word)
            (bench.root / "call" / CONTROL_FILE).write_text(word)
        emit(event)

    place.emit = listen  # type: ignore[method-assign]
    outcome = bench.run(place=place)
    place.close()

    assert (outcome["status"], outcome["result"]["ended_by"]) == ("cancelled", "operator")
    assert len(bench.saved_steps()) == 2
    assert place.control() == "stop"
    (bench.root / "call" / CONTROL_FILE).write_text("save")
    time.sleep(0.15)
    assert place.control() == "stop"


def test_a_word_that_is_being_written_is_none(bench: Bench) -> None:
    place = bench.local_place()
    (bench.root / "call" / CONTROL_FILE).write_text("")

    assert place.control() is None
    place.close()


def test_the_deadline_ends_in_saved(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01
    place = bench.place
    place.deadline = time.time() + 5.0

    outcome = bench.run(place=place)

    assert (outcome["status"], outcome["may_pass"], outcome["error"]) == ("interrupted", True, None)
    assert len(bench.saved_steps()) == 1


def test_what_is_raised_into_the_job_saves_and_is_raised_again(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01

    class Cancelled(BaseException):
        pass

    class Leaving(FolderPlace):
        def control(self) -> None:
            if of(self, "step") and not of(self, "ending"):
                raise Cancelled

    with pytest.raises(Cancelled):
        bench.run(place=Leaving(bench.root / "volumes", bench.environ()))

    assert len(bench.saved_steps()) == 1
    assert not list((bench.root / "scratch").glob("*/*"))


def test_a_log_that_takes_no_line_ends_no_training(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        outcome = bench.run()

    assert outcome["status"] == "succeeded"


def test_a_killed_trainer_is_gone_on_with(bench: Bench) -> None:
    killed = bench.run("kill_at=20")

    assert (killed["status"], killed["error"]["cause"], killed["published"]) == ("failed", "host_memory", [])
    outcome = bench.run()
    assert (outcome["status"], outcome["result"]["resumed_from"]) == ("succeeded", 16)


def test_a_worker_that_is_told_to_end_saves_first(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 20, 0.01
    call = bench.root / "call"
    call.mkdir()
    volumes = {role: str(path) for role, path in bench.place.volumes.items()}
    write_json(call / CALL_FILE, {"job": bench.job(), "state": str(bench.root / "state"), "volumes": volumes})
    command = [sys.executable, "-m", "comfymodal.targets.local_place", str(call)]
    with subprocess.Popen(command, cwd=ROOT, env=bench.environ(), stdout=subprocess.DEVNULL) as worker:
        give_up_at = time.monotonic() + 30
        while not bench.saved_steps() and time.monotonic() < give_up_at:
            time.sleep(0.05)
        worker.terminate()

    outcome = read_json(call / OUTCOME_FILE)
    assert outcome is not None
    assert (outcome["status"], outcome["result"]["ended_by"], outcome["may_pass"]) == ("interrupted", "signal", True)
    saved = bench.saved_steps()[-1]
    assert outcome["result"]["step"] - saved <= 20
    events = read_json_lines(run_folder(bench.place.volumes, outcome["run_id"]) / EVENTS_FILE)
    assert {"phase", "staged", "checkpoint", "ending"} <= {event["type"] for event in events}
    bench.steps = saved + 5
    assert bench.run()["result"]["resumed_from"] == saved


def test_a_loss_that_is_no_number_is_named(bench: Bench) -> None:
    bench.steps = 1000

    outcome = bench.run("nan_from=10 inf_at=10")

    assert (outcome["status"], outcome["error"]["cause"], outcome["may_pass"]) == ("failed", "not_finite", False)
    assert "not a number for 20 steps" in outcome["error"]["message"]
    assert bench.saved_steps() == [8]
    assert not bench.lora.exists()


# Ten are found of the five there are when each counts twice.
@pytest.mark.parametrize("repeats", [1, 2])
def test_too_few_images_are_noticed_before_it_trains(bench: Bench, repeats: int) -> None:
    bench.images, bench.repeats = 6, repeats
    place = bench.place

    outcome = bench.run(place=place)

    assert (outcome["status"], outcome["error"]["cause"]) == ("failed", "images_dropped")
    assert of(place, "step") == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"locations": [{"at": AT, "from": {"role": "datasets", "path": "sets/none"}}]}, "not_found"),
        ({"locations": [{"at": AT, "from": {"role": "datasets", "path": "../up"}}]}, "sync_refused"),
        ({"folder": "../elsewhere"}, "sync_refused"),
    ],
)
def test_what_is_not_there_is_told(bench: Bench, change: Mapping[str, Any], code: str) -> None:
    outcome = bench.run(**change)

    assert (outcome["status"], outcome["error"]["code"]) == ("failed", code)


def test_without_a_toolkit_it_says_how_to_name_one(bench: Bench) -> None:
    outcome = bench.run(place=FolderPlace(bench.root / "volumes", {}))

    assert (outcome["status"], outcome["error"]["code"], outcome["result"]) == ("failed", "not_ready", None)
    assert PATH_VARIABLE in outcome["error"]["message"]


def test_another_model_does_not_go_on_from_its_checkpoints(bench: Bench) -> None:
    bench.run("kill_at=20")
    bench.rank = 8

    outcome = bench.run()

    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "conflict")
    assert "rank 4" in outcome["error"]["message"]
    bench.rank = 4
    assert bench.run()["result"]["resumed_from"] == 16


def test_a_second_writer_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfymodal.targets.local_place.LEASE_PATIENCE_S", 0.1)
    bench.steps, bench.save_every, bench.step_s = 100_000, 20, 0.01
    first, second = bench.local_place("first"), bench.local_place("second")
    outcomes: list[dict[str, Any]] = []
    job = bench.job()
    thread = threading.Thread(target=lambda: outcomes.append(run_job(job, first)))
    thread.start()
    try:
        give_up_at = time.monotonic() + 30
        while not bench.saved_steps() and time.monotonic() < give_up_at:
            time.sleep(0.05)
        refused = run_job(bench.job(), second)
    finally:
        (bench.root / "first" / CONTROL_FILE).write_text("stop")
        thread.join()
    first.close()
    second.close()

    assert (refused["status"], refused["error"]["code"]) == ("failed", "busy")
    assert outcomes[0]["status"] == "cancelled"
    assert outcomes[0]["result"]["warnings"] == []
    # And the one that was refused took nothing of the other's away.
    assert bench.saved_steps()[-1] == outcomes[0]["result"]["saved_step"]


@pytest.mark.parametrize(
    ("moment", "resumed_from"),
    [("staged", None), ("checkpoint", 8), ("publishing", None)],
)
def test_a_job_killed_at_any_moment_is_gone_on_with(bench: Bench, moment: str, resumed_from: int | None) -> None:
    bench.step_s = 0.02
    if moment == "publishing":
        # Killed with the weights in place and no note beside them.
        bench.publish = None
        bench.run()
        bench.publish = {}
    kill_at(bench, moment)
    assert bench.lora.exists() == (moment == "publishing")
    assert not (bench.place.volumes["models"] / SIDECAR).exists()

    outcome = bench.run()

    assert (outcome["status"], outcome["result"]["resumed_from"]) == ("succeeded", resumed_from)
    assert read_step(bench.lora) == bench.sidecar()["steps"] == 24
    assert not list(bench.root.rglob("*.partial"))
    assert [each.step for each in read_state(bench.store) or ()][-1] == 24
    wait_until_gone(bench.root / "scratch")


def kill_at(bench: Bench, moment: str) -> None:
    """Run the job in a process of its own with the real place, and kill it -9 where it stands at that moment."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from tests.integration import test_train_job as test; from comfymodal.jobs import train_publish\n"
        "def stand(moment):\n"
        "    if moment == sys.argv[2]: print('HERE', flush=True); time.sleep(60)\n"
        "bench = test.Bench(Path(sys.argv[1]), step_s=0.02)\n"
        "write = train_publish.write_json\n"
        "train_publish.write_json = lambda *a, **k: (stand('publishing'), write(*a, **k))\n"
        "place = bench.local_place(); emit = place.emit\n"
        "place.emit = lambda event: (emit(event), stand(event['type']))\n"
        "test.run_job(bench.job(), place)\n"
    )
    command = [sys.executable, "-c", script, str(bench.root), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any(line.strip() == "HERE" for line in process.stdout)
        process.kill()


def wait_until_gone(folder: Path) -> None:
    """The trainer of a killed job ends by itself: its pipe is broken."""
    give_up_at = time.monotonic() + 20
    while any(str(folder) in " ".join(each) for each in commands()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def commands() -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.append(process.cmdline())
    return found
