from __future__ import annotations

import pytest

from comfymodal.training.events import (
    BatchSkipped,
    Event,
    Failed,
    LossNotFinite,
    NetworkBuilt,
    OptimizerSaved,
    Phase,
    SaveStarted,
    Step,
    WeightsSaved,
)
from comfymodal.training.failures import Failure, silent_death
from comfymodal.training.watch import Limits, SaveTold, Watch


def watch(*events: Event, steps: int = 1000, save_every: int | None = 250, limits: Limits | None = None) -> Watch:
    made = Watch(steps, save_every, limits or Limits(), {})
    made.begin(0.0)
    for event in events:
        made.take(event, 0.0)
    return made


def test_steps_are_shown_once_a_second() -> None:
    made = watch()

    for number in range(100):
        made.take(Step(number, 1000, 0.5, 1e-4, 0.1), number * 0.1)

    shown = [event["value"] for event in made.out]
    # On a clock of tenths a second may take eleven of them.
    assert 9 <= len(shown) <= 10
    assert made.out[-1]["eta_s"] == pytest.approx((1000 - shown[-1]) * 0.1)


def test_the_last_step_is_always_shown() -> None:
    made = watch(Step(999, 1000), Step(1000, 1000))

    assert made.out[-1]["value"] == 1000


# Its bar is drawn for each loss, and for each step that is done when that is a tenth of a second after the last.
@pytest.mark.parametrize("drawn_every", [1, 5, 1000])
def test_only_losses_in_a_row_end_a_training(drawn_every: int) -> None:
    made = watch(limits=Limits(not_finite_in_row=8))

    def step(number: int, *, is_bad: bool) -> None:
        if is_bad:
            made.take(LossNotFinite(), 0.0)
        bars = (number, number + 1) if number % drawn_every == 0 else (number,)
        for done in bars:
            made.take(Step(done, 1000, loss=0.0 if is_bad else 0.1), 0.0)

    for number in range(40):
        step(number, is_bad=number % 10 < 7)
    assert made.abort is None
    for number in range(40, 48):
        step(number, is_bad=True)
    assert made.abort is not None
    assert made.abort.cause == "not_finite"


def test_silence_is_judged_by_what_it_is_about() -> None:
    limits = Limits(stall_s=10, quiet_s=100)

    loading = watch(Phase("loading"), limits=limits)
    training = watch(Phase("training"), Step(1, 10, seconds_per_step=0.1), limits=limits)
    slow = watch(Phase("training"), Step(1, 10, seconds_per_step=30.0), limits=limits)

    assert loading.silence(50.0) is None
    assert loading.silence(101.0) is not None
    assert training.silence(11.0) is not None
    assert slow.silence(11.0) is None
    assert slow.silence(601.0) is not None


def test_much_work_between_two_saves_is_worth_a_word() -> None:
    made = watch(*(Step(number, 1000, seconds_per_step=6.1) for number in range(30)))

    (warning,) = made.warnings
    assert warning["code"] == "much_at_risk"
    assert "25 minutes" in warning["message"]
    assert warning["hint"] == "lower save.save_every to 147"


def test_a_short_interval_is_worth_none() -> None:
    assert watch(*(Step(number, 1000, seconds_per_step=1.0) for number in range(30))).warnings == []


def test_a_loss_that_is_no_number_is_told_as_none() -> None:
    made = watch(Step(0, 1000, 0.5), Step(1000, 1000, float("nan")))

    assert [event["loss"] for event in made.out] == [0.5, None]


def test_a_save_is_a_whole_with_its_optimizer() -> None:
    made = watch(SaveStarted(8), WeightsSaved("high"), WeightsSaved("low"))
    assert made.saves == []

    made.take(OptimizerSaved("optimizer.pt"), 0.0)
    made.take(WeightsSaved("end"), 0.0)
    made.take(OptimizerSaved("optimizer.pt"), 0.0)

    assert made.saves == [SaveTold(("high", "low"), "optimizer.pt", 8), SaveTold(("end",), "optimizer.pt", None)]


def test_a_network_of_nothing_ends_the_training() -> None:
    assert watch(NetworkBuilt(48)).abort is None
    made = watch(NetworkBuilt(0)).abort
    assert made is not None
    assert made.cause == "no_modules"


def test_two_skipped_steps_of_many_are_no_warning() -> None:
    made = watch(*(Step(number, 1000) for number in range(500)), BatchSkipped(1), BatchSkipped(2))

    assert (made.skipped, made.warnings) == (2, [])


def test_phases_are_timed() -> None:
    made = watch()

    for name, at in (("loading", 1.0), ("training", 11.0), ("saving", 31.0), ("training", 32.0)):
        made.take(Phase(name), at)  # type: ignore[arg-type]
    made.end(40.0)

    assert made.phase_s == {"starting": 1.0, "loading": 10.0, "training": 28.0, "saving": 1.0}


def test_the_trainers_own_failure_is_kept() -> None:
    failure = Failure("gated", "the model is gated")

    assert watch(Failed(failure)).failure == failure


@pytest.mark.parametrize(
    ("code", "cause", "may_pass"),
    [
        (-9, "host_memory", False),
        (137, "host_memory", False),
        (-15, "killed", True),
        (0, "no_result", False),
        (1, "unknown", False),
    ],
)
def test_a_death_without_a_word_is_explained(code: int, cause: str, may_pass: bool) -> None:
    failure = silent_death(code, ["the last line"])

    assert (failure.cause, failure.may_pass) == (cause, may_pass)
    assert "the last line" in failure.message
