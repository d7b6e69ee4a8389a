"""What the train app's containers run: one attempt at a training, which the next one goes on with.

A training outlives containers: Modal takes them away, ends each after a day, and some GPUs break. What is saved lies on
the training volume; what attempts came to, and what they cost, is on the board.
Imported in a bare container: the standard library and `modal` are all there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import modal.exception
import modal.experimental

from comfymodal.errors import ComfymodalError
from comfymodal.targets.modal.carrier import Arrival, Work, arrive, say, say_end
from comfymodal.targets.modal.place import ModalPlace

LONGEST_S = 24 * 3600.0 - 900.0
"""For one attempt. Modal ends it after 24 h; until then the last save must be made, copied and committed."""

CANCELLED_S = 15.0
"""How long a training that Modal was told to cancel may take to save; the container has 30 s."""

TAKEN_OVER = "Modal took the run's container away; another one goes on from the last save"

TIME_OVER = "time"
"""Why an attempt ended whose container may live no longer; any other cause is of a failure."""


class GoesOnError(Exception):
    """For Modal: start the next attempt. Nobody sees it but Modal's log."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One container's go at a run, in the order in which Modal counts them: one taken away counts for nothing.

    `failures` are those before it that ended in one; `cause` and `saved_step` say how the last one ended that asked
    for another, `why` in words.
    """

    number: int = 1
    failures: int = 0
    has_left: bool = False
    cause: str | None = None
    saved_step: int | None = None
    why: str | None = None

    def next(self) -> Attempt:
        return replace(self, number=self.number + (0 if self.has_left else 1), has_left=False, why=None)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train, or go on training; return the outcome. Raises only what Modal is to try again elsewhere.

    `job["modal"]` is `{project, board, volumes, retries, moves}`: `volumes` are `{name, version}` by role, `retries`
    is how many failures are tried again, `moves` how often another container may go on because one's time was over.
    `deadline_s` counts the seconds that are paid for, of all attempts; `attempt_s`, for one, only shortens Modal's day.
    """
    arrival = arrive(job, {"job": _told(job)})
    place = arrival.place
    earlier = _earlier(arrival)
    attempt = earlier.next() if earlier else Attempt()
    place.tell(attempt=asdict(attempt))
    limit = time.time() + attempt_s(job)
    paid_until = _paid_until(job, arrival)
    place.deadline = min(limit, paid_until)
    if arrival.before is not None:
        place.take_over((earlier.why if earlier else None) or TAKEN_OVER)
    say(job, f"training begins, attempt {attempt.number}")
    outcome = _run(job, arrival, attempt)
    _keep_downloads(place)
    cause = _cause(outcome, is_time_over=limit < paid_until)
    if cause is not None and place.control() not in ("stop", "abort"):
        _go_on(job, place, _asking(attempt, cause, outcome), attempt)
    say_end(job, outcome)
    return place.close(outcome, arrival.container)


def attempt_s(job: Mapping[str, Any]) -> float:
    """The longest one attempt may take."""
    return min(float(job.get("attempt_s") or LONGEST_S), LONGEST_S)


def _run(job: Mapping[str, Any], arrival: Arrival, attempt: Attempt) -> dict[str, Any]:
    place = arrival.place
    work = Work(job, place)
    try:
        work.start()
        work.join()
    except modal.exception.InputCancellation:
        place.stop()
        if not work.join(CANCELLED_S):
            place.end()
            work.join()
        if work.outcome is not None:
            place.close(work.outcome, arrival.container)
        raise
    except BaseException:
        # The container is being taken away, and Modal gives the input to another one.
        place.tell(attempt=asdict(replace(attempt, has_left=True)))
        place.leave_soon()
        work.join()
        place.abandon()
        _keep_downloads(place)
        raise
    return work.require_outcome(place)


def _told(job: Mapping[str, Any]) -> dict[str, Any]:
    """What others see of the job while it runs: what its container is, and so what it costs."""
    return {key: job.get(key) for key in ("kind", "gpu", "memory_gib")}


def _earlier(arrival: Arrival) -> Attempt | None:
    before = arrival.before
    if before is None:
        return None
    known, said = {each.name for each in fields(Attempt)}, before.get("attempt") or {}
    return Attempt(**{name: value for name, value in said.items() if name in known})


def _paid_until(job: Mapping[str, Any], arrival: Arrival) -> float:
    deadline_s = job.get("deadline_s")
    if not deadline_s:
        return float("inf")
    return time.time() + float(deadline_s) - float(arrival.container["lost_s"])


def _cause(outcome: Mapping[str, Any], *, is_time_over: bool) -> str | None:
    """Why another container should go on; None when it should not."""
    if outcome["status"] == "interrupted" and outcome["result"]["ended_by"] == "deadline" and is_time_over:
        return TIME_OVER
    if outcome["status"] == "failed" and outcome["may_pass"]:
        error = outcome["error"] or {}
        return str(error.get("cause") or error.get("code"))
    return None


def _asking(attempt: Attempt, cause: str, outcome: Mapping[str, Any]) -> Attempt:
    """This attempt as the next one is to find it."""
    saved_step = outcome["result"]["saved_step"]
    after = f"after step {saved_step}" if saved_step else "from its beginning"
    if cause == TIME_OVER:
        why = f"a container's time is over on Modal: another one goes on {after}"
    else:
        why = f"{outcome['error']['message'].splitlines()[0]}: another container goes on {after}"
    failures = attempt.failures + (cause != TIME_OVER)
    return replace(attempt, failures=failures, cause=cause, saved_step=saved_step, why=why)


def _go_on(job: Mapping[str, Any], place: ModalPlace, asking: Attempt, attempt: Attempt) -> None:
    """Have Modal start the next attempt, if it has one left and that may come farther than this one."""
    where = job["modal"]
    may = asking.number <= where["retries"] + where["moves"] and asking.failures <= where["retries"]
    is_stuck = (asking.cause, asking.saved_step) == (attempt.cause, attempt.saved_step)
    if not may or is_stuck:
        return
    say(job, asking.why or "")
    place.tell(attempt=asdict(asking))
    place.abandon()
    # This one's GPU may be what is broken.
    modal.experimental.stop_fetching_inputs()
    raise GoesOnError(asking.why)


def _keep_downloads(place: ModalPlace) -> None:
    """Models that were fetched need not be paid for twice; losing them fails nothing."""
    if "cache" not in place.volumes:
        return
    try:
        place.commit("cache")
    except ComfymodalError as exc:
        print(f"comfymodal: downloads are not kept: {exc}", flush=True)  # noqa: T201
