"""How a training on Modal is paid for, and how often it goes on in another container."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import modal.experimental
import pytest

from comfymodal.errors import TransferError
from comfymodal.targets.modal import calls, train_carrier
from comfymodal.targets.modal.carrier import Arrival
from comfymodal.targets.modal.carry_app import CarryApp
from comfymodal.targets.modal.place import container_facts
from comfymodal.targets.modal.plan import fingerprint, sync_fingerprint, train_fingerprint
from comfymodal.targets.modal.sync_app import sync_app
from comfymodal.targets.modal.train_app import goes_of, train_app
from comfymodal.targets.modal.train_carrier import Attempt, GoesOnError
from comfymodal.targets.spec import ModalSpec
from tests.unit.targets.modal_samples import SPEC, TRAINING

HOUR_S = 3600.0
GPU_FAULT = {"code": "service", "cause": "gpu_fault", "message": "the GPU failed\nmore"}


def outcome(status: str, *, error: Mapping[str, Any] | None = None, **result: Any) -> dict[str, Any]:
    told = {"ended_by": "deadline", "saved_step": 16, **result}
    return {"status": status, "may_pass": bool(result.get("may_pass", True)), "error": error, "result": told}


class Bench:
    """One attempt without a container: its place is a mock, its work is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Mapping[str, Any] | None = None) -> None:
        self.place = Mock(volumes={"training": Path("/t"), "cache": Path("/c")})
        self.place.control.return_value = None
        self.place.close.side_effect = lambda told, container: told
        self.before = before
        self.lost_s = 0.0
        self.job: dict[str, Any] = {"run_id": "r1", "kind": "train", "deadline_s": 2 * HOUR_S, "gpu": "L40S"}
        self.job["modal"] = {"retries": 2, "moves": 1}
        self.stopped_fetching = Mock()
        monkeypatch.setattr(train_carrier, "arrive", lambda job, about: self._arrive())
        monkeypatch.setattr(modal.experimental, "stop_fetching_inputs", self.stopped_fetching)
        self.monkeypatch = monkeypatch

    def _arrive(self) -> Arrival:
        return Arrival(self.place, {"lost_s": self.lost_s}, self.before)

    def run(self, told: Mapping[str, Any]) -> dict[str, Any]:
        work = Mock(outcome=told)
        work.require_outcome.return_value = told
        self.monkeypatch.setattr(train_carrier, "Work", lambda job, place: work)
        return train_carrier.train(self.job)

    @property
    def told(self) -> dict[str, Any]:
        """What the board says of the attempt."""
        return self.place.tell.call_args.kwargs["attempt"]  # type: ignore[no-any-return]


def after(attempt: Attempt) -> dict[str, Any]:
    """What the board has of the container before."""
    return {"seq": 3, "attempt": asdict(attempt)}


@pytest.mark.parametrize("app", [train_app, sync_app])
def test_syncs_and_trainings_run_where_the_project_says(app: Callable[[ModalSpec], CarryApp]) -> None:
    assert [app(replace(SPEC, region=region)).options["region"] for region in (None, "us-west")] == [None, "us-west"]


def test_a_result_is_returned_and_what_was_downloaded_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.place.commit.side_effect = TransferError("the network is down")

    assert bench.run(outcome("succeeded", may_pass=False))["status"] == "succeeded"
    bench.place.commit.assert_called_once_with("cache")
    bench.place.take_over.assert_not_called()
    assert bench.place.deadline == pytest.approx(time.time() + 2 * HOUR_S, abs=5)


def test_a_failure_that_may_pass_goes_on_elsewhere_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with pytest.raises(GoesOnError):
        bench.run(outcome("failed", error=GPU_FAULT))

    why = "the GPU failed: another container goes on after step 16"
    assert bench.told == asdict(Attempt(1, 1, cause="gpu_fault", saved_step=16, why=why))
    bench.place.abandon.assert_called_once()
    bench.stopped_fetching.assert_called_once()
    following = Bench(monkeypatch, after(Attempt(**bench.told)))
    following.run(outcome("succeeded"))
    following.place.take_over.assert_called_once_with(why)
    assert following.told["number"] == 2


@pytest.mark.parametrize(
    ("before", "told"),
    [
        pytest.param(
            Attempt(1, 1, cause="gpu_fault", saved_step=16), outcome("failed", error=GPU_FAULT), id="no progress"
        ),
        pytest.param(
            Attempt(2, 2, cause="gpu_fault", saved_step=8), outcome("failed", error=GPU_FAULT), id="failures used up"
        ),
        pytest.param(Attempt(3), outcome("failed", error=GPU_FAULT), id="Modal tries no more"),
        pytest.param(Attempt(1), outcome("failed", error=GPU_FAULT, may_pass=False), id="may not pass"),
        pytest.param(Attempt(1), outcome("interrupted"), id="its own limit"),
    ],
)
def test_what_would_only_cost_is_returned(monkeypatch: pytest.MonkeyPatch, before: Attempt, told: Any) -> None:
    bench = Bench(monkeypatch, after(before))

    assert bench.run(told) is told
    bench.place.close.assert_called_once()


def test_a_day_that_is_over_counts_as_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, after(Attempt(1, 2, cause="gpu_fault", saved_step=16)))
    bench.job["deadline_s"] = 30 * HOUR_S
    with pytest.raises(GoesOnError):
        bench.run(outcome("interrupted"))

    assert (bench.told["failures"], bench.told["cause"]) == (2, "time")
    assert bench.place.deadline == pytest.approx(time.time() + train_carrier.LONGEST_S, abs=5)
    # A whole day without a save is not followed by another.
    stuck = Bench(monkeypatch, after(Attempt(**bench.told)))
    stuck.job["deadline_s"] = 30 * HOUR_S
    assert stuck.run(outcome("interrupted"))["status"] == "interrupted"


def test_who_asked_it_to_stop_wants_no_other_container(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.place.control.return_value = "stop"

    assert bench.run(outcome("failed", error=GPU_FAULT))["status"] == "failed"


def test_one_that_was_taken_away_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = after(Attempt(3, 1, has_left=True))
    before["attempt"]["of_a_later_release"] = 1
    bench = Bench(monkeypatch, before)
    bench.run(outcome("succeeded"))

    assert (bench.told["number"], bench.told["has_left"]) == (3, False)
    bench.place.take_over.assert_called_once_with(train_carrier.TAKEN_OVER)


def test_an_interrupt_saves_and_leaves_the_run_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    work = Mock()
    work.join.side_effect = [KeyboardInterrupt, True]
    monkeypatch.setattr(train_carrier, "Work", lambda job, place: work)
    with pytest.raises(KeyboardInterrupt):
        train_carrier.train(bench.job)

    assert bench.told["has_left"]
    names = [each[0] for each in bench.place.method_calls]
    assert names.index("leave_soon") < names.index("abandon") < names.index("commit")


def test_a_cancelled_call_has_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    work = Mock(outcome=outcome("cancelled"))
    work.join.side_effect = [modal.exception.InputCancellation, False, True]
    monkeypatch.setattr(train_carrier, "Work", lambda job, place: work)
    with pytest.raises(modal.exception.InputCancellation):
        train_carrier.train(bench.job)

    names = [each[0] for each in bench.place.method_calls]
    assert names.index("stop") < names.index("end") < names.index("close")


def test_a_limit_counts_what_earlier_containers_were_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, after(Attempt()))
    bench.lost_s = HOUR_S
    bench.run(outcome("succeeded"))

    assert bench.place.deadline == pytest.approx(time.time() + HOUR_S, abs=5)


@pytest.mark.parametrize(
    ("at", "lost_s"),
    [(50.0, 7 + 3 + 40), (None, 7 + 3 + 90), (5.0, 7 + 3), (1e12, 7 + 3 + 90)],
    ids=["its last word", "of another release", "a clock that was set back", "a clock that is ahead"],
)
def test_a_lost_container_cost_until_its_last_word(
    monkeypatch: pytest.MonkeyPatch, at: float | None, lost_s: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    lost = {"first_started_at": 1.0, "started_at": 10.0, "enter_s": 3.0, "is_first": True, "lost_s": 7.0}
    before = {"container": lost, **({"at": at} if at is not None else {})}

    facts = container_facts(before, began=90.0, enter_s=2.0, is_first=True)
    assert (facts["lost_s"], facts["first_started_at"], facts["started_at"]) == (lost_s, 1.0, 100.0)


@pytest.mark.parametrize(
    ("retries", "job", "goes"),
    [
        (5, {"deadline_s": 24 * HOUR_S}, {"retries": 5, "moves": 1}),
        (5, {"deadline_s": 20 * HOUR_S}, {"retries": 5, "moves": 0}),
        (0, {"deadline_s": 60 * HOUR_S}, {"retries": 0, "moves": 2}),
        (5, {"deadline_s": 336 * HOUR_S}, {"retries": 5, "moves": 5}),
        (10, {"deadline_s": 336 * HOUR_S}, {"retries": 10, "moves": 0}),
        (3, {"deadline_s": 90.0, "attempt_s": 30.0}, {"retries": 3, "moves": 2}),
        (3, {}, {"retries": 3, "moves": 7}),
    ],
)
def test_how_often_another_container_may_go_on(retries: int, job: Mapping[str, Any], goes: Mapping[str, int]) -> None:
    assert goes_of(replace(SPEC, training=replace(TRAINING, retries=retries)), job) == goes


def test_only_what_is_deployed_counts() -> None:
    other = replace(SPEC, training=replace(TRAINING, toolkit_commit="f" * 40))
    packages = replace(SPEC, training=replace(TRAINING, requirements=("diffusers==0.40.0",)))
    patient = replace(SPEC, training=replace(TRAINING, retries=9))

    assert len({train_fingerprint(spec) for spec in (SPEC, other, packages, replace(SPEC, project="other"))}) == 4
    # It comes with the call.
    assert train_fingerprint(patient) == train_fingerprint(SPEC)
    assert (fingerprint(other), sync_fingerprint(other)) == (fingerprint(SPEC), sync_fingerprint(SPEC))


def test_a_next_container_that_never_came_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Mock()
    call.get.side_effect = GoesOnError("the GPU failed: another container goes on after step 16")
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda call_id: call)

    state = calls.state_of("fc-1", wait_s=0.0)
    assert (state.is_running, state.error and state.error.code) == (False, "service_failed")
    assert state.error is not None
    assert state.error.message.startswith("Modal has not started another container: the GPU failed")
