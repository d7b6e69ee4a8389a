"""Trainings in containers: the stock client, the real runtime, the stand-in trainer; and all that ends a container."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import modal
import pytest

from comfymodal.costs.rates import money_json, parse_gpu, training_rate
from comfymodal.errors import NotReadyError
from comfymodal.targets.modal.fleet import runs_in
from comfymodal.targets.modal.names import TRAIN_ROLES, board_name
from tests.conftest import Cli
from tests.doubles.modal_cloud.client import ModalCloud
from tests.doubles.trainer.files import read_step
from tests.e2e.modal_world import ModalCli
from tests.e2e.train_world import ENDLESS, Trainings, start_train_cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    with start_train_cloud(tmp_path_factory.mktemp("train")) as made:
        yield made


@pytest.fixture(scope="module")
def trainings(cloud: ModalCloud, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings.begin(cloud, tmp_path_factory.mktemp("state"))


def test_a_training_runs_with_what_it_asks_for_and_its_lora_lies_among_the_models(trainings: Trainings) -> None:
    assert trainings.target.needed_setup("train") is None
    job = trainings.job()
    run_id = trainings.submit(job)
    outcome = trainings.outcome(run_id)

    assert (outcome["status"], outcome["error"]) == ("succeeded", None)
    assert outcome["result"]["final"]["step"] == 24
    assert read_step(trainings.lora(job)) == 24
    assert trainings.saved_steps(job)[-1] == 24
    assert {"staged", "checkpoint", "sample", "published"} <= {event["type"] for event in trainings.events[run_id]}
    asked = trainings.cloud.requests("FunctionBindParams")[-1]["body"]["function_options"]
    assert asked["resources"]["gpu_config"] == {"gpu_type": "A100-80GB", "count": 1}
    assert (asked["resources"]["memory_mb"], asked["resources"]["milli_cpu"]) == (65536, 4000)
    assert {mount["mount_path"] for mount in asked["volume_mounts"]} == {f"/volumes/{role}" for role in TRAIN_ROLES}
    assert (asked["retry_policy"]["retries"], len(asked["secret_ids"])) == (3, 1)
    (container,) = [one for one in trainings.containers() if one["task_id"] == outcome["container"]["container_id"]]
    assert container["gpu"] == "A100-80GB"
    (run,) = runs_in(board_name(trainings.spec.project), None, {container["task_id"]}).values()
    assert (run.run_id, run.gpu, run.memory_gib) == (run_id, "A100-80GB", 64)


@pytest.mark.soak
def test_a_container_that_is_killed_costs_no_more_than_one_save_interval(trainings: Trainings) -> None:
    job = trainings.job(steps=100, save_every=20, step_s=0.02)
    run_id = trainings.submit(job)
    trainings.wait_for_type(run_id, "checkpoint")
    first = trainings.busy()["task_id"]
    trainings.cloud.kill_container(first)
    saved = trainings.saved_steps(job)[-1]
    outcome = trainings.outcome(run_id)

    assert (outcome["status"], outcome["result"]["resumed_from"]) == ("succeeded", saved)
    assert read_step(trainings.lora(job)) == 100
    assert saved >= 20
    assert len(trainings.lost(run_id)) == 1
    assert trainings.lost(run_id)[0].startswith("Modal took the run's container away")
    assert outcome["container"]["container_id"] != first
    # Paid, and told as paid: what the first one took until its last word.
    assert 0 < outcome["container"]["lost_s"] < outcome["ended_at"] - outcome["container"]["first_started_at"]


def test_a_container_that_is_taken_away_saves_and_the_next_one_goes_on_from_there(trainings: Trainings) -> None:
    job = trainings.job(**{**ENDLESS, "save_every": 50_000})
    run_id = trainings.submit(job)
    trainings.wait_for_type(run_id, "step")
    trainings.cloud.preempt(trainings.busy()["task_id"], grace_s=30.0)
    resumed = trainings.wait_for_type(run_id, "resumed")
    trainings.target.cancel(run_id, "", at_once=True)
    outcome = trainings.outcome(run_id)

    (saved,) = trainings.saved_steps(job)
    assert saved > 0
    assert resumed["step"] == saved == outcome["result"]["resumed_from"]
    assert (outcome["status"], outcome["result"]["ended_by"]) == ("cancelled", "operator")


def test_a_day_of_a_container_ends_and_another_one_goes_on(trainings: Trainings) -> None:
    job = trainings.job(**ENDLESS, attempt_s=6.0, deadline_s=9.0)
    run_id = trainings.submit(job)
    outcome = trainings.outcome(run_id)

    assert (outcome["status"], outcome["result"]["ended_by"]) == ("interrupted", "deadline")
    assert trainings.lost(run_id) == [
        f"a container's time is over on Modal: another one goes on after step {outcome['result']['resumed_from']}"
    ]
    # The limit is of paid seconds, and both have paid.
    container = outcome["container"]
    paid_s = container["lost_s"] + container["ended_at"] - container["started_at"]
    assert 6.0 < paid_s < 10.0
    asked = trainings.cloud.requests("FunctionBindParams")[-1]["body"]["function_options"]
    assert asked["retry_policy"]["retries"] == 3 + 1


def test_what_fails_twice_at_the_same_step_is_not_paid_for_a_third_time(trainings: Trainings) -> None:
    job = trainings.job(faults="error_at=20")
    run_id = trainings.submit(job)
    outcome = trainings.outcome(run_id)

    assert (outcome["status"], outcome["error"]["cause"]) == ("failed", "gpu_fault")
    assert trainings.saved_steps(job)[-1] == 16
    (said,) = trainings.lost(run_id)
    assert said.endswith(": another container goes on after step 16")
    assert outcome["container"]["is_first"]


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["staging", "staged", "step", "checkpoint", "sample", "publishing"])
def test_a_container_killed_at_any_event_is_gone_on_after(trainings: Trainings, moment: str) -> None:
    job = trainings.job(steps=60, save_every=20, step_s=0.02)
    run_id = trainings.submit(job)
    trainings.wait_for(run_id, lambda event: moment in (event["type"], event.get("phase")))
    require_goes_on_after_kill(trainings, job)


@pytest.mark.soak
def test_a_container_killed_at_any_time_is_gone_on_after(trainings: Trainings) -> None:
    for number in range(20):
        job = trainings.job(steps=60, save_every=20, step_s=0.02)
        trainings.submit(job)
        trainings.busy()
        # From before the trainer starts to after its end.
        time.sleep(number * 0.2)
        require_goes_on_after_kill(trainings, job)


def require_goes_on_after_kill(trainings: Trainings, job: Mapping[str, Any]) -> None:
    run_id = str(job["run_id"])
    busy = [one for one in trainings.containers() if one["state"] == "busy"]
    if busy:
        trainings.cloud.kill_container(busy[0]["task_id"])
    trainings.look(run_id)
    told = [event["step"] for event in trainings.events[run_id] if event["type"] == "checkpoint"]
    outcome = trainings.outcome(run_id)

    assert (outcome["status"], outcome["error"]) == ("succeeded", None)
    assert read_step(trainings.lora(job)) == 60
    if trainings.lost(run_id) and told:
        result = outcome["result"]
        # One that had ended already is not trained again.
        went_on_from = result["step"] if result["exit_code"] is None else result["resumed_from"]
        assert went_on_from >= max(told)


@pytest.mark.soak
def test_a_second_run_of_the_same_folder_is_refused(trainings: Trainings) -> None:
    job = trainings.job(**ENDLESS)
    run_id = trainings.submit(job)
    trainings.wait_for_type(run_id, "step")
    second = trainings.submit({**job, "run_id": f"{run_id}-again"})
    refused = trainings.outcome(second)
    trainings.target.cancel(run_id, "")
    stopped = trainings.outcome(run_id)

    assert (refused["status"], refused["error"]["code"]) == ("failed", "busy")
    assert f"is being written to by run {run_id}" in refused["error"]["message"]
    assert (stopped["status"], stopped["result"]["ended_by"]) == ("cancelled", "operator")
    assert trainings.saved_steps(job)[-1] == stopped["result"]["saved_step"] > 0


def test_a_cancelled_call_saves_in_the_time_that_modal_gives_it(trainings: Trainings) -> None:
    job = trainings.job(**{**ENDLESS, "save_every": 50_000})
    run_id = trainings.submit(job)
    trainings.wait_for_type(run_id, "step")
    modal.FunctionCall.from_id(trainings.call_id(run_id)).cancel()
    outcome = trainings.outcome(run_id)

    assert outcome["status"] == "cancelled"
    (saved,) = trainings.saved_steps(job)
    assert saved == outcome["result"]["saved_step"] > 0
    assert trainings.lost(run_id) == []


def test_without_a_secret_it_needs_nothing_starts(trainings: Trainings) -> None:
    before = len(trainings.containers())
    with pytest.raises(NotReadyError, match="there is no Modal secret no-such-secret; nothing was started"):
        trainings.submit({**trainings.job(), "secrets": ["no-such-secret"]})

    assert len(trainings.containers()) == before


@pytest.mark.soak
def test_a_training_is_seen_with_its_price_and_saves_before_it_is_stopped(
    cloud: ModalCloud, tmp_path: Path, make_cli: Callable[[Path], Cli]
) -> None:
    trainings = Trainings.begin(cloud, tmp_path / "spec")
    made = make_cli(tmp_path / "state")
    trainings.write_project(made.cwd)
    cli = ModalCli(made.cwd, {**made.environ, **cloud.environ}, cloud, trainings.spec.project)
    job = trainings.job(**{**ENDLESS, "save_every": 50_000})
    run_id = trainings.submit(job)
    trainings.wait_for_type(run_id, "step")
    status = cli("status", "--json").json["data"]
    log = cli("logs", run_id)
    doctor = cli("doctor", "--json").json["data"]
    would = cli("stop")
    stopped = cli("stop", "--yes", "--json")
    outcome = trainings.outcome(run_id)

    checks = {check["check"]: check for check in doctor["checks"]}
    assert (checks["train app"]["status"], "deployed as" in checks["train app"]["what"]) == ("ok", True)
    (container,) = status["containers"]
    per_hour = training_rate(parse_gpu("A100-80GB"), 64).nanodollars_per_s * 3600
    assert (container["app"], container["does"], container["run_id"]) == (trainings.app, "runs", run_id)
    assert (container["gpu"], container["usd_per_hour"]) == ("A100-80GB", money_json(per_hour))
    assert (log.code, "training begins, attempt 1" in log.stdout, "Caching latents" in log.stdout) == (0, True, True)
    assert (would.code, "a training saves first, and is waited for up to 120 s" in would.stderr) == (4, True)
    assert stopped.code == 0, stopped.stderr
    assert (stopped.json["data"]["asked"], stopped.json["data"]["unfinished"]) == ([run_id], [])
    assert outcome["status"] == "cancelled"
    (saved,) = trainings.saved_steps(job)
    assert saved == outcome["result"]["saved_step"] > 0
