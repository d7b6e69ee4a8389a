"""The training supervisor over a stand-in trainer: real processes, files, databases and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from comfymodal.errors import ServiceError
from comfymodal.training.ai_toolkit.command import Toolkit
from comfymodal.training.ai_toolkit.losses import read_losses
from comfymodal.training.ai_toolkit.output import OutputReader
from comfymodal.training.ai_toolkit.trainer import AiToolkit
from comfymodal.training.checkpoints import CheckpointStore, Keep
from comfymodal.training.events import Bar, Phase, Said, SaveRemoved, Step
from comfymodal.training.supervisor import Hooks, Spec, supervise
from comfymodal.training.watch import Limits
from tests.doubles.trainer.files import PICTURE, read_optimizer, read_step

ROOT = Path(__file__).parent.parent.parent
TOOLKIT = Toolkit(ROOT / "tests" / "doubles" / "trainer", Path(sys.executable))
LOGS = ROOT / "tests" / "data" / "ai-toolkit-logs"
QUICK = Limits(stall_s=2.0, quiet_s=2.0, closing_s=3.0, stop_s=20.0, signal_s=10.0)

Event = Mapping[str, Any]


@dataclass
class Bench:
    """One run: its folders, its config, and what was said and asked while it worked."""

    root: Path
    steps: int = 24
    save_every: int = 8
    step_s: float = 0.002
    limits: Limits = QUICK
    keep: Keep = field(default_factory=Keep)
    expected_images: Mapping[str, int] = field(default_factory=dict)
    control: Callable[[], Literal["stop", "save"] | None] = lambda: None
    commit: Callable[[], None] = lambda: None
    deadline: float | None = None
    on_event: Callable[[Event], None] = lambda event: None
    network: Mapping[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.root / "volume" / "runs" / "r1"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    def config(self) -> dict[str, Any]:
        process = {
            "type": "diffusion_trainer",
            "training_folder": "elsewhere",
            "model": {"name_or_path": "org/model", "arch": "sd1"},
            "train": {"steps": self.steps, "lr": 1e-4},
            "save": {"save_every": self.save_every, "max_step_saves_to_keep": 2},
            "datasets": [{"folder_path": str(self.dataset), "resolution": [64, 96]}],
            "sample": {"prompts": ["a", "b"], "sample_every": 12},
        }
        return {"job": "extension", "config": {"name": "tiny", "process": [process]}}

    def run(self, faults: str = "") -> dict[str, Any]:
        environ = {**os.environ, "STANDIN_FAULTS": faults, "STANDIN_STEP_S": str(self.step_s)}
        spec = Spec(
            self.store,
            self.root / "scratch",
            self.steps,
            save_every=self.save_every,
            keep=self.keep,
            limits=self.limits,
            expected_images=self.expected_images,
        )
        hooks = Hooks(self._emit, self.commit, self.control, deadline=self.deadline, say=self.lines.append)
        return supervise(spec, lambda folder: AiToolkit(TOOLKIT, self.config(), folder, environ), hooks)

    def _emit(self, event: Event) -> None:
        json.dumps(event)
        self.events.append(event)
        self.on_event(event)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def saved_steps(self) -> list[int]:
        return [each.step for each in CheckpointStore(self.store).entries()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.dataset.mkdir()
    for number in range(5):
        (made.dataset / f"{number}.jpg").write_bytes(PICTURE)
    return made


def test_a_training_ends_with_its_final_file(bench: Bench) -> None:
    outcome = bench.run()

    assert (outcome["status"], outcome["ended_by"], outcome["error"]) == ("succeeded", "finished", None)
    assert (outcome["step"], outcome["final"]["step"], outcome["final"]["is_final"]) == (24, 24, True)
    assert bench.saved_steps() == [8, 16, 24]
    (weights,) = outcome["final"]["weights"]
    assert read_step(bench.store / outcome["final"]["folder"] / weights["name"]) == 24
    # Only the newest two keep what one can go on from.
    assert [bool(each["optimizer"]) for each in outcome["checkpoints"]] == [False, True, True]
    assert not list((bench.root / "scratch").iterdir())


def test_what_happens_is_told(bench: Bench) -> None:
    outcome = bench.run()

    phases = [event["phase"] for event in bench.of("phase")]
    wanted = ["starting", "loading", "network", "dataset", "caching", "dataset", "caching", "sampling", "training"]
    assert phases[: len(wanted)] == wanted
    assert set(outcome["phases_s"]) >= {"training", "saving", "sampling"}
    assert bench.of("step")[-1]["value"] == 24
    assert [event["step"] for event in bench.of("checkpoint")] == [8, 16, 24]
    points = [point for event in bench.of("losses") for point in event["points"]]
    assert [step for step, _ in points] == list(range(1, 24))
    assert outcome["images"] == {str(bench.dataset): 5}


def test_samples_and_logs_reach_the_volume(bench: Bench) -> None:
    bench.run()

    samples = sorted((event["step"], event["index"]) for event in bench.of("sample"))
    assert samples == [(0, 0), (0, 1), (12, 0), (12, 1), (24, 0), (24, 1)]
    assert all((bench.store / event["path"]).read_bytes() == PICTURE for event in bench.of("sample"))
    log = (bench.store / "trainer.log").read_text()
    assert "Saved optimizer to" in log
    assert "%|" not in log
    # The dump of the config stays out: it may hold what was put into it.
    assert "org/model" not in log
    assert (bench.store / "loss_log.db").stat().st_size > 0


def test_a_finished_run_is_not_trained_again(bench: Bench) -> None:
    first = bench.run()
    bench.events.clear()

    again = bench.run()

    assert (again["status"], again["final"], again["exit_code"]) == ("succeeded", first["final"], None)
    assert bench.events == []


def test_a_finished_run_goes_on_to_more_steps(bench: Bench) -> None:
    bench.run()
    bench.steps = 32

    outcome = bench.run()

    assert (outcome["status"], outcome["resumed_from"], outcome["step"]) == ("succeeded", 24, 32)


@pytest.mark.parametrize("step", [9, 15, 17, 23])
def test_a_killed_trainer_loses_at_most_one_interval(bench: Bench, step: int) -> None:
    killed = bench.run(f"kill_at={step}")

    assert (killed["status"], killed["may_pass"], killed["exit_code"]) == ("failed", False, -9)
    assert killed["error"]["cause"] == "host_memory"
    assert step - max(bench.saved_steps()) <= bench.save_every

    outcome = bench.run()

    assert (outcome["status"], outcome["resumed_from"]) == ("succeeded", step // 8 * 8)
    assert bench.of("resumed")[-1]["step"] == outcome["resumed_from"]


@pytest.mark.parametrize("fault", ["tear_weights_at=16", "tear_optimizer_at=16"])
def test_a_save_that_was_cut_off_does_not_count(bench: Bench, fault: str) -> None:
    killed = bench.run(fault)

    assert killed["exit_code"] == -9
    assert bench.saved_steps() == [8]
    assert bench.run()["resumed_from"] == 8


def test_weights_whose_optimizer_could_not_be_saved_are_kept(bench: Bench) -> None:
    outcome = bench.run("optimizer_full_at=16+24")

    assert (outcome["status"], outcome["final"]["step"], outcome["final"]["optimizer"]) == ("succeeded", 24, None)
    assert [bool(each["optimizer"]) for each in outcome["checkpoints"]] == [True, False, False]
    assert {each["code"] for each in outcome["warnings"]} == {"optimizer_not_saved"}


@pytest.mark.parametrize("file", ["weights", "optimizer"])
def test_a_checkpoint_that_went_bad_on_the_volume_is_passed_over(bench: Bench, file: str) -> None:
    killed = bench.run("kill_at=20")
    newest = killed["checkpoints"][-1]
    name = newest["optimizer"]["name"] if file == "optimizer" else newest["weights"][0]["name"]
    path = bench.store / newest["folder"] / name
    path.write_bytes(path.read_bytes()[:-100])

    outcome = bench.run()

    assert (outcome["status"], outcome["resumed_from"]) == ("succeeded", 8)
    assert [warning["code"] for warning in outcome["warnings"]] == ["checkpoint_rejected"]
    assert "step 16 was passed over" in outcome["warnings"][0]["message"]


def test_exactly_one_pair_lies_before_the_trainer(bench: Bench) -> None:
    seen: list[str] = []
    bench.run("kill_at=20")

    def look(event: Event) -> None:
        if event["type"] == "resumed":
            (folder,) = (bench.root / "scratch").glob("attempt-*/run/tiny")
            seen.extend(sorted(path.name for path in folder.iterdir() if path.name.startswith(("tiny", "optim"))))
            assert read_optimizer(folder / "optimizer.pt") == 16

    bench.on_event = look
    bench.step_s = 0.02
    bench.run()

    assert seen == ["optimizer.pt", "tiny_000000016.safetensors"]


def test_a_trainer_that_does_not_take_the_checkpoint_is_ended(bench: Bench) -> None:
    bench.run("kill_at=20")

    outcome = bench.run("ignore_checkpoint")

    assert outcome["status"] == "failed"
    assert "began at step 0" in outcome["error"]["message"]
    assert max(bench.saved_steps()) == 16


def test_a_stop_saves_first(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 5000, 1000, 0.01
    bench.control = lambda: "stop" if any(event["value"] > 2 for event in bench.of("step")) else None

    outcome = bench.run()

    assert (outcome["status"], outcome["ended_by"], outcome["error"]) == ("stopped", "operator", None)
    (saved,) = bench.saved_steps()
    assert outcome["saved_step"] == saved
    assert outcome["step"] - saved <= 100
    assert outcome["checkpoints"][0]["optimizer"] is not None
    bench.steps, bench.control = saved + 3, lambda: None
    assert bench.run()["resumed_from"] == saved


def test_a_save_on_request_goes_on(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 60, 1000, 0.03
    bench.control = lambda: "save" if bench.of("step") else None

    outcome = bench.run()

    assert outcome["status"] == "succeeded"
    asked, final = bench.saved_steps()
    assert 0 < asked < final == 60


def test_a_trainer_that_does_not_obey_is_ended(bench: Bench) -> None:
    bench.steps, bench.step_s = 100_000, 0.01
    bench.limits = Limits(stop_s=1.0)
    bench.control = lambda: "stop" if bench.of("step") else None

    outcome = bench.run("no_control")

    assert (outcome["status"], outcome["ended_by"]) == ("stopped", "operator")
    assert outcome["exit_code"] == -9


def test_the_deadline_is_kept_with_a_save(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01
    bench.deadline = time.time() + 5.0

    outcome = bench.run()

    assert (outcome["status"], outcome["ended_by"], outcome["may_pass"]) == ("interrupted", "deadline", True)
    assert time.time() < bench.deadline
    assert len(bench.saved_steps()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(bench: Bench, number: signal.Signals) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01
    before = signal.getsignal(number)

    def send(event: Event) -> None:
        if event["type"] == "step" and event["value"] > 0 and not bench.of("ending"):
            os.kill(os.getpid(), number)

    bench.on_event = send
    outcome = bench.run()

    assert (outcome["status"], outcome["ended_by"]) == ("interrupted", "signal")
    assert len(bench.saved_steps()) == 1
    assert signal.getsignal(number) is before


def test_what_is_raised_into_the_supervisor_saves_and_is_raised_again(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.01

    class Cancelled(BaseException):
        pass

    def control() -> None:
        if bench.of("step") and not bench.of("ending"):
            raise Cancelled

    bench.control = control

    with pytest.raises(Cancelled):
        bench.run()

    assert len(bench.saved_steps()) == 1


def test_a_stalled_trainer_is_ended_and_goes_on_next_time(bench: Bench) -> None:
    # Step 13 is the first that is seen after the samples.
    stalled = bench.run("hang_at=14")

    assert (stalled["status"], stalled["error"]["cause"], stalled["may_pass"]) == ("failed", "stalled", True)
    assert "step 13" in stalled["error"]["message"]
    assert bench.run()["resumed_from"] == 8


def test_a_trainer_that_hangs_while_loading_is_ended(bench: Bench) -> None:
    stalled = bench.run("hang_loading")

    assert "while loading" in stalled["error"]["message"]


def test_a_trainer_that_hangs_after_its_end_has_succeeded(bench: Bench) -> None:
    assert bench.run("hang_at_end")["status"] == "succeeded"


def test_a_loss_that_is_no_number_ends_the_training(bench: Bench) -> None:
    bench.steps = 1000

    outcome = bench.run("nan_from=10 inf_at=10")

    assert (outcome["status"], outcome["error"]["cause"], outcome["may_pass"]) == ("failed", "not_finite", False)
    assert "for 20 steps in a row" in outcome["error"]["message"]
    assert outcome["step"] < 200
    # The one from before it went astray is what is left.
    assert bench.saved_steps() == [8]


def test_a_few_bad_losses_are_survived(bench: Bench) -> None:
    outcome = bench.run("nan_from=4 nan_until=9")

    assert (outcome["status"], outcome["not_finite_steps"]) == ("succeeded", 5)


def test_weights_that_are_no_numbers_are_no_success(bench: Bench) -> None:
    outcome = bench.run("inf_at=20")

    assert (outcome["status"], outcome["error"]["cause"], outcome["exit_code"]) == ("failed", "not_finite", 0)
    assert outcome["final"] is None
    assert bench.saved_steps() == [8, 16]


def test_skipped_steps_are_counted(bench: Bench) -> None:
    outcome = bench.run("oom_at=5+6+11")

    assert (outcome["status"], outcome["skipped_steps"]) == ("succeeded", 3)
    assert "steps_skipped" in [warning["code"] for warning in outcome["warnings"]]


@pytest.mark.parametrize(
    ("fault", "code", "cause"),
    [
        ("oom_at=5+6+7+8", "out_of_memory", "gpu_memory"),
        ("oom_loading", "out_of_memory", "gpu_memory"),
        ("gated", "not_ready", "gated"),
        ("error_at=9", "service_failed", "gpu_fault"),
        ("disk_full_at=16", "transfer_failed", "disk_full"),
        ("no_modules", "run_failed", "no_modules"),
        ("silent_death", "run_failed", "host_memory"),
        ("interrupt_at=9", "service_failed", "killed"),
    ],
)
def test_failures_are_told_apart(bench: Bench, fault: str, code: str, cause: str) -> None:
    outcome = bench.run(fault)

    assert outcome["status"] == "failed"
    assert (outcome["error"]["code"], outcome["error"]["cause"]) == (code, cause)


def test_an_image_the_trainer_drops_is_noticed_before_it_trains(bench: Bench) -> None:
    (bench.dataset / "2.jpg").write_bytes(PICTURE[:-1])
    bench.expected_images = {str(bench.dataset): 5}

    outcome = bench.run()

    assert (outcome["status"], outcome["error"]["cause"]) == ("failed", "images_dropped")
    assert "found 4 of 5 images" in outcome["error"]["message"]
    assert "2.jpg" in outcome["error"]["message"]
    assert bench.of("step") == []


def test_without_an_expected_count_a_dropped_image_is_a_warning(bench: Bench) -> None:
    (bench.dataset / "2.jpg").write_bytes(b"no picture")

    outcome = bench.run()

    assert (outcome["status"], len(outcome["dropped_images"])) == ("succeeded", 1)


def test_a_trainer_that_fails_after_its_end_has_succeeded(bench: Bench) -> None:
    assert bench.run("exit_code=3")["status"] == "succeeded"


def test_a_full_volume_ends_the_training(bench: Bench) -> None:
    bench.steps = 100_000
    part = bench.store / "checkpoints" / "step-000000008" / ".tiny_000000008.safetensors.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")

    outcome = bench.run()

    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "transfer_failed")
    assert "No space left on device" in outcome["error"]["message"]


def test_a_commit_that_fails_once_fails_nothing(bench: Bench) -> None:
    calls: list[int] = []

    def commit() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ServiceError("the network is gone")

    bench.commit = commit

    assert bench.run()["status"] == "succeeded"
    assert len(calls) > 3


def test_children_of_the_trainer_end_with_it(bench: Bench) -> None:
    # It would sleep for two minutes, with the pipe in its hands.
    outcome = bench.run("leave_child")

    assert outcome["status"] == "succeeded"
    assert not _is_alive_with(bench.root / "scratch")


def test_a_trainer_whose_supervisor_is_killed_ends_by_itself(bench: Bench, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.integration.test_supervisor_training import Bench\n"
        "bench = Bench(Path(sys.argv[1]), steps=100_000, step_s=0.05)\n"
        "bench.on_event = lambda event: print(event['type'], flush=True)\n"
        "bench.run()\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert supervisor.stdout is not None
    with supervisor:
        for line in supervisor.stdout:
            if line.strip() == "checkpoint":
                break
        supervisor.kill()
        supervisor.wait()
        # Its pipe is broken: the next bar ends it.
        control = next((tmp_path / "scratch").glob("attempt-*/control.db"))
        give_up_at = time.monotonic() + 20
        while _is_alive_with(control.parent) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert not _is_alive_with(control.parent)
        bench.steps = bench.saved_steps()[-1] + 4
        assert bench.run()["resumed_from"] == bench.steps - 4


def test_logs_go_on_where_the_last_attempt_left_them(bench: Bench) -> None:
    bench.step_s = 0.05
    bench.run("kill_at=23")
    bench.events.clear()
    bench.run()

    log = (bench.store / "trainer.log").read_text()
    assert [line.rpartition(" ")[2] for line in log.splitlines() if line.startswith("---")] == ["0", "16"]
    steps = [loss.step for loss in read_losses(bench.store / "loss_log.db")]
    # A killed one has not written the losses of its last quarter second; the first step of an attempt has none.
    assert set(steps) >= {*range(1, 12), *range(17, 24)}
    assert len(set(steps)) == len(steps)
    # What was lost is not told as what is trained now.
    kinds = [event["type"] for event in bench.events]
    assert kinds.index("step") < kinds.index("losses")
    assert [step for event in bench.of("losses") for step, _ in event["points"]] == list(range(17, 24))


def test_samples_do_not_wait_for_the_next_save(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.02
    bench.control = lambda: "stop" if bench.of("sample") else None

    outcome = bench.run()

    assert outcome["status"] == "stopped"
    first = bench.events.index(bench.of("sample")[0])
    assert "checkpoint" not in [event["type"] for event in bench.events[:first]]


def test_a_second_signal_does_not_wait(bench: Bench) -> None:
    bench.steps, bench.save_every, bench.step_s = 100_000, 50_000, 0.02
    bench.limits = Limits(signal_s=100.0)

    def send(event: Event) -> None:
        if event["type"] == "step" and event["value"] > 0 and len(bench.of("ending")) < 2:
            os.kill(os.getpid(), signal.SIGTERM)

    bench.on_event = send
    began_at = time.monotonic()
    # It never hears of the save.
    outcome = bench.run("no_control")

    assert (outcome["status"], len(bench.of("ending"))) == ("interrupted", 1)
    assert time.monotonic() - began_at < 60


def test_the_stand_in_prints_what_the_real_one_printed(bench: Bench) -> None:
    """The events of its resumed run are those of a captured one of ai-toolkit, in the same order."""
    bench.run("kill_at=9")
    captured = OutputReader("res")
    real = captured.feed((LOGS / "11_resume_second.log").read_bytes()) + captured.close()
    folder = bench.root / "again" / "run" / "tiny"
    CheckpointStore(bench.store).restore(folder)
    config = {**bench.config()}
    config["config"]["process"][0] |= {"training_folder": str(folder.parent)}
    config["config"]["process"][0]["train"] |= {"steps": 17, "disable_sampling": True}
    (bench.root / "again.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "run.py", bench.root / "again.json"],
        cwd=TOOLKIT.path,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "STANDIN_STEP_S": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    reader = OutputReader("tiny")
    ours = reader.feed(done.stdout) + reader.close()

    def shape(events: list[Any]) -> list[str]:
        told = [event for event in events if not isinstance(event, (Said, Bar, Step, SaveRemoved))]
        return [f"{type(event).__name__} {event.name if isinstance(event, Phase) else ''}".strip() for event in told]

    assert shape(ours) == shape(real)


def test_training_loads_in_a_bare_container() -> None:
    # -I -S: the standard library and nothing else.
    modules = "comfymodal.training.supervisor, comfymodal.training.ai_toolkit.trainer"
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}; print('ok')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_a_supervisor_in_a_thread_leaves_signals_alone(bench: Bench) -> None:
    outcomes: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    thread.join(60)

    assert outcomes[0]["status"] == "succeeded"


def _is_alive_with(folder: Path) -> bool:
    import psutil

    return any(str(folder) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
