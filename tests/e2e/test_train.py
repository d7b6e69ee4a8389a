"""`comfymodal train` on this machine, with the stand-in trainer: from a config to a LoRA among the models."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.e2e.training import SAVE_EVERY, STEPS, TrainWorld, ended, make_world, step_of, wait_for


@pytest.fixture
def world(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> TrainWorld:
    return make_world(make_cli(tmp_path / "state"))


def test_a_training_ends_among_the_models(world: TrainWorld) -> None:
    done = world.cli("train", "train.yaml", "--json")
    assert done.code == 0, done.stderr
    assert (done.run["status"], done.run["kind"], done.run["title"]) == ("succeeded", "train", "tiny")
    data = done.json["data"]
    assert (data["training"]["step"], data["training"]["steps"], data["training"]["resumed_from"]) == (
        STEPS,
        STEPS,
        None,
    )
    assert [(each["path"], each["action"]) for each in data["published"]] == [("loras/tiny.safetensors", "published")]

    weights = [each for each in done.outputs if each["kind"] == "lora"]
    assert [Path(each["path"]).name for each in weights] == ["tiny.safetensors"]
    here = Path(weights[0]["path"])
    assert here.parent == world.cli.cwd / "outputs" / done.run["id"]
    assert hashlib.sha256(here.read_bytes()).hexdigest() == weights[0]["sha256"]
    assert world.lora.read_bytes() == here.read_bytes()
    assert step_of(here) == STEPS
    note = json.loads(world.lora.with_name("tiny.comfymodal.json").read_text())
    assert (note["trigger"], note["steps"], note["base"]["arch"]) == ("p3r5on", STEPS, "sd1")

    samples = [Path(each["path"]).name for each in done.outputs if each["kind"] == "sample"]
    assert samples == [f"step-{step:06d}-0.jpg" for step in range(0, STEPS + 1, SAVE_EVERY)]
    receipt = json.loads(Path(data["receipt"]).read_text())
    assert receipt["config"]["config"]["name"] == "tiny"
    assert receipt["datasets"][0]["copies"] is True
    assert next(each["path"] for each in receipt["outputs"]) == "tiny.safetensors"


def test_it_says_how_far_it_is(world: TrainWorld) -> None:
    process = world.cli.start("train", "train.yaml", "--json-events")
    sample = wait_for(process, {"type": "sample"})
    step = wait_for(process, {"type": "step"})
    saved = wait_for(process, {"type": "checkpoint"})
    done = ended(process)
    assert (sample["step"], sample["index"]) == (0, 0)
    assert step["max"] == STEPS
    assert set(step) >= {"value", "loss", "lr", "seconds_per_step", "eta_s"}
    assert saved["weights"][0]["size_bytes"] > 0
    assert done.code == 0


def test_ctrl_c_saves_and_stops_and_resume_goes_on(world: TrainWorld) -> None:
    slow = world.with_trainer(step_s=0.1)
    process = slow.cli.start("train", "train.yaml", "--json-events")
    wait_for(process, {"type": "checkpoint"})
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130
    run_id = done.run["id"]
    training = done.json["data"]["training"]
    # The stop may reach the trainer before its next step.
    assert training["saved_step"] >= max(10, training["step"] - 1)
    assert done.error["hint"] == f"go on: comfymodal runs resume {run_id}"
    assert not world.lora.exists()

    on = world.cli("runs", "resume", run_id, "--json")
    assert on.code == 0, on.stderr
    assert on.json["data"]["training"]["resumed_from"] == training["saved_step"]
    assert on.json["data"]["resumes"] == run_id
    assert step_of(world.lora) == STEPS

    again = world.cli("runs", "resume", on.run["id"], "--json")
    assert (again.code, again.error["code"]) == (2, "usage")
    longer = world.cli("runs", "resume", on.run["id"], "--steps", str(STEPS + 20), "--json")
    assert longer.code == 0, longer.stderr
    assert longer.json["data"]["training"]["resumed_from"] == STEPS
    assert step_of(world.lora) == STEPS + 20

    shutil.rmtree(world.cli.cwd / "pictures")
    gone = world.cli("runs", "resume", longer.run["id"], "--steps", str(STEPS + 40), "--json")
    assert (gone.code, gone.error["code"]) == (4, "not_found")


def test_stop_saves_and_cancel_does_not(world: TrainWorld) -> None:
    slow = world.with_trainer(step_s=0.3)
    first = slow.cli("train", "train.yaml", "--set", "save_every=1000", "--detach", "--json")
    assert (first.code, first.run["status"]) == (0, "running")
    process = slow.cli.start("runs", "attach", first.run["id"], "--json-events")
    wait_for(process, {"type": "step"})
    stopped = slow.cli("runs", "stop", first.run["id"], "--json")
    assert (stopped.code, stopped.run["status"]) == (0, "cancelled")
    # Whoever watches learns of it too.
    assert ended(process).code == 130
    assert len(world.kept(first.run["id"])) == 1

    second = slow.cli("runs", "resume", first.run["id"], "--detach", "--json")
    process = slow.cli.start("runs", "attach", second.run["id"], "--json-events")
    wait_for(process, {"type": "step"})
    cancelled = slow.cli("runs", "cancel", second.run["id"], "--json")
    assert (cancelled.code, cancelled.run["status"]) == (0, "cancelled")
    assert ended(process).code == 130
    assert len(world.kept(first.run["id"])) == 1


def test_a_bad_config_starts_nothing(world: TrainWorld) -> None:
    (world.cli.cwd / "pictures" / "0.png").write_bytes(b"no picture")
    done = world.cli("train", "train.yaml", "--json")
    assert (done.code, done.error["code"]) == (3, "training_config_invalid")
    assert world.cli("runs", "list", "--json").json["data"]["runs"] == []
    assert not world.volume("training-data").exists()


def test_without_a_toolkit_it_says_how_to_name_one(world: TrainWorld) -> None:
    bare = Cli(world.cli.cwd, {key: value for key, value in world.cli.environ.items() if "AI_TOOLKIT" not in key})
    done = bare("train", "train.yaml", "--json")
    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "AI_TOOLKIT_PATH" in done.error["hint"]


def test_a_failed_training_names_its_cause_and_keeps_its_checkpoints(world: TrainWorld) -> None:
    done = world.with_trainer("nan_from=15").cli(
        "train", "train.yaml", "--steps", "60", "--set", "save.save_every=10", "--json"
    )
    assert (done.code, done.run["status"]) == (1, "failed")
    assert "not a number" in done.error["message"]
    assert "train.lr" in done.error["hint"]
    assert next(each.step for each in world.kept(done.run["id"])) == 10
    assert not world.lora.exists()


def test_a_checkpoint_can_be_had_by_its_step(world: TrainWorld) -> None:
    done = world.cli("train", "train.yaml", "--name", "other", "--no-publish", "--no-download", "--json")
    assert (done.code, done.outputs, done.json["data"]["published"]) == (0, [], [])
    assert not (world.volume("comfy-models") / "loras").exists()
    run_id = done.run["id"]
    steps = [each["step"] for each in done.json["data"]["training"]["checkpoints"]]
    fetched = world.cli("runs", "fetch", run_id, "--step", str(steps[0]), "--json")
    assert fetched.code == 0, fetched.stderr
    assert [step_of(Path(each["path"])) for each in fetched.outputs] == [steps[0]]
    none = world.cli("runs", "fetch", run_id, "--step", "7", "--json")
    assert (none.code, none.error["code"]) == (4, "not_found")
    assert none.error["hint"] == f"kept are {', '.join(map(str, steps))}"
    assert next(each["kind"] for each in world.cli("runs", "fetch", run_id, "--json").outputs) == "lora"


def test_a_sweep_trains_each_and_one_that_fails_keeps_no_other_from_it(world: TrainWorld) -> None:
    done = world.cli("train", "train.yaml", "--sweep", "lr=1e-4,4e-4", "--json")
    assert done.code == 0, done.stderr
    runs = done.json["data"]["runs"]
    assert [each["name"] for each in runs] == ["tiny--lr1e-4", "tiny--lr4e-4"]
    assert [each["run"]["status"] for each in runs] == ["succeeded", "succeeded"]
    loras = sorted(path.name for path in world.lora.parent.glob("*.safetensors"))
    assert loras == ["tiny--lr1e-4.safetensors", "tiny--lr4e-4.safetensors"]

    process = world.cli.start("train", "train.yaml", "--sweep", "rank=8,16", "--json-events")
    wait_for(process, {"type": "sweep", "number": 1})
    (world.lora.parent / "tiny--r8.safetensors").write_bytes(b"somebody else's")
    other = ended(process)
    assert other.code == 6, other.stdout
    assert [each["exit_code"] for each in other.json["data"]["runs"]] == [6, 0]
    assert "not put among the models" in other.error["message"]


def test_a_name_that_is_taken_starts_nothing(world: TrainWorld) -> None:
    world.lora.parent.mkdir(parents=True)
    world.lora.write_bytes(b"somebody else's")
    done = world.cli("train", "train.yaml", "--json")
    assert (done.code, done.error["code"]) == (6, "conflict")
    assert "comfymodal models rm loras/tiny.safetensors" in done.error["hint"]
    assert world.cli("runs", "list", "--json").json["data"]["runs"] == []
    assert world.cli("train", "train.yaml", "--publish", "other", "--json").code == 0
    assert world.lora.read_bytes() == b"somebody else's"
