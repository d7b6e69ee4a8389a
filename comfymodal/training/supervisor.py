"""Runs one attempt at a training to its end: goes on where the last one stopped, keeps what is finished, judges.

The trainer works on a local disk; whole checkpoints go to the run's folder on a volume while it works. It is believed
by its files, never by its exit code: it ends with 0 when it is interrupted and saves weights full of NaN.
"""

from __future__ import annotations

import contextlib
import math
import queue
import secrets
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TextIO

from comfymodal.errors import ComfymodalError, NotReadyError, TransferError
from comfymodal.training import child
from comfymodal.training.checkpoints import CheckpointStore, Keep, Pair
from comfymodal.training.events import Event, Said
from comfymodal.training.failures import Failure, silent_death
from comfymodal.training.publisher import LOG_FILE, Broken, Kept, Published, Publisher, Refused, Report, Uncommitted
from comfymodal.training.state import Checkpoint
from comfymodal.training.trainer import Reader, Trainer
from comfymodal.training.watch import Limits, SaveTold, Watch

TICK_S = 0.1
CONTROL_EVERY_S = 0.5
LOOK_EVERY_S = 2.0
LOSSES_EVERY_S = 5.0
KILL_PATIENCE_S = 5.0
"""From the request to stop to the kill: one step may be longer, and has nothing to lose any more."""

PUBLISH_PATIENCE_S = 600.0
LAST_LINES = 20
LOSSES_AT_ONCE = 500
_ATTEMPT = "attempt-"

Status = Literal["succeeded", "stopped", "interrupted", "failed"]
Why = Literal["operator", "deadline", "signal"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to be trained. `store` is the run's folder on a volume, `scratch` one of a local disk, its own too."""

    store: Path
    scratch: Path
    steps: int
    save_every: int | None = None
    keep: Keep = field(default_factory=Keep)
    limits: Limits = field(default_factory=Limits)
    expected_images: Mapping[str, int] = field(default_factory=dict)
    """By the dataset's folder as the config names it: with fewer the training is not paid for."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a place has for a job; see `jobs.contract.Place`."""

    emit: Callable[[Mapping[str, Any]], None]
    commit: Callable[[], None]
    """Make the run's folder durable. May raise `ComfymodalError`."""
    control: Callable[[], Literal["stop", "save", "abort"] | None]
    """The operator's last word; only a change of it is obeyed."""
    is_leaving: Callable[[], bool] = lambda: False
    """Whether the place is being taken away; as a signal where there is none to be had."""
    deadline: float | None = None
    """Unix seconds."""
    say: Callable[[str], None] = lambda line: None
    """The trainer's lines, for a container's log."""


def supervise(spec: Spec, make_trainer: Callable[[Path], Trainer], hooks: Hooks) -> dict[str, Any]:
    """Train, or go on training, until it is done, stopped, or failed; the outcome says which. Failures are in it.

    `make_trainer` gets a new empty folder. In the main thread SIGTERM and SIGINT are taken: save, stop, and return
    `interrupted`. What else is raised into this thread is raised again after the same.

    outcome: `{status: succeeded|stopped|interrupted|failed, ended_by: finished|operator|deadline|signal|failure,
    step, steps, saved_step, resumed_from, final: checkpoint or null, checkpoints: [...], loss, seconds_per_step,
    phases_s, skipped_steps, not_finite_steps, images, dropped_images, warnings, error, may_pass, exit_code, started_at,
    ended_at}`; checkpoints as in `training.state`. `may_pass`: the same call again may go well, and goes on.
    """
    started_at = time.time()
    store = CheckpointStore(spec.store, spec.keep)
    try:
        spec.scratch.mkdir(parents=True, exist_ok=True)
        for left in spec.scratch.glob(f"{_ATTEMPT}*"):
            shutil.rmtree(left, ignore_errors=True)
        # A folder of its own: what a killed attempt left must not be mistaken for a checkpoint.
        # Hexadecimal: names of `tempfile` may hold `_cn`, below which ai-toolkit finds no checkpoint.
        folder = spec.scratch / f"{_ATTEMPT}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
    except OSError as exc:
        return _Supervision(spec, store, None, hooks, started_at).fail_early(_disk_failure(exc))
    try:
        supervision = _Supervision(spec, store, make_trainer(folder), hooks, started_at)
        return supervision.run(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Ending:
    why: Why
    give_up_at: float
    """Monotonic seconds."""
    asked_save_at_step: int | None = None
    asked_stop_at: float | None = None


class _Supervision:
    """The state of one call of `supervise`."""

    def __init__(
        self, spec: Spec, store: CheckpointStore, trainer: Trainer | None, hooks: Hooks, started_at: float
    ) -> None:
        self.spec, self.store, self.hooks, self.started_at = spec, store, hooks, started_at
        self._trainer = trainer
        self.watch = Watch(spec.steps, spec.save_every, spec.limits, spec.expected_images)
        self.resumed_from: int | None = None
        self.final: Checkpoint | None = None
        self.saved_step: int | None = None
        self.ending: _Ending | None = None
        self.error: ComfymodalError | None = None
        self.may_pass = False
        self.code: int | None = None
        self._final_refused: Refused | None = None
        self._refused_at = -1
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._signals: list[int] = []
        self._is_hurried = False
        self._word: str | None = None
        self._looked_at = self._losses_at = self._asked_at = 0.0
        self._samples_seen = 0
        self._pulse: object = None
        self._loss_step = -1
        self._log: TextIO

    @property
    def trainer(self) -> Trainer:
        assert self._trainer is not None
        return self._trainer

    def fail_early(self, error: ComfymodalError, *, may_pass: bool = False) -> dict[str, Any]:
        self.error, self.may_pass = error, may_pass
        return self._outcome()

    def run(self, folder: Path) -> dict[str, Any]:
        try:
            if (done := self._already_done()) is not None:
                self.final, self.watch.step = done, done.step
                return self._outcome()
            self._restore()
            launch = self.trainer.prepare()
        except OSError as exc:
            return self.fail_early(_disk_failure(exc))
        except ComfymodalError as exc:
            return self.fail_early(exc)
        try:
            process = child.start(launch)
        except OSError as exc:
            return self.fail_early(NotReadyError(f"the trainer cannot be started: {exc.filename}: {exc.strerror}"))
        try:
            self._attend(process, folder / LOG_FILE)
        except OSError as exc:
            self.error = self.error or _disk_failure(exc)
        finally:
            process.kill()
        self._judge()
        return self._outcome()

    def _attend(self, process: child.Child, log: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(self.spec.store / LOG_FILE, log)
        publisher = Publisher(self.store, self.trainer, log, self.hooks.commit)
        reader = self.trainer.reader()
        with log.open("a", encoding="utf-8") as self._log, self._signals_taken():
            began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started_at))
            self._note(f"--- {began}, from step {self.resumed_from or 0}")
            publisher.begin()
            self.watch.begin(time.monotonic())
            try:
                self._follow(process, reader, publisher)
            except BaseException:
                self._rescue(process, reader, publisher)
                raise
            finally:
                process.kill()
                self._settle(process, reader, publisher)

    def _already_done(self) -> Checkpoint | None:
        finals = [each for each in self.store.entries() if each.is_final and each.step >= self.spec.steps]
        return next((each for each in reversed(finals) if self.store.fault_in(each) is None), None)

    def _restore(self) -> None:
        restored = self.store.restore(self.trainer.folder)
        for why in restored.rejected:
            self.watch.warn("checkpoint_rejected", why)
        if restored.checkpoint is not None:
            self.resumed_from = self.saved_step = self.watch.step = restored.checkpoint.step
            self.watch.begins_at = self._loss_step = restored.checkpoint.step
            self.trainer.take_up(self.spec.store, restored.checkpoint.step)
            if restored.checkpoint.optimizer is None:
                self.watch.warn("optimizer_lost", "the optimizer's state is lost: it starts afresh")
        self._tell()

    def _follow(self, process: child.Child, reader: Reader, publisher: Publisher) -> None:
        while process.code is None:
            self._listen(process, reader, publisher)
            now = time.monotonic()
            self._look(now, publisher)
            self._obey(now)
            if self.watch.abort is None and self.final is None:
                self.watch.abort = self.watch.silence(now)
            if self._is_over(now):
                return

    def _is_over(self, now: float) -> bool:
        """Whether the trainer is to be ended now; winds it down otherwise."""
        if self.watch.abort is not None or self.error is not None:
            return True
        if self.final is not None:
            # All that is left are samples.
            return self.ending is not None or self.watch.silence(now, is_done=True) is not None
        if self.ending is None:
            return False
        return self._wind_down(self.ending, now)

    def _wind_down(self, ending: _Ending, now: float) -> bool:
        if now > ending.give_up_at or len(self._signals) > 1:
            return True
        if ending.asked_stop_at is not None:
            return now - ending.asked_stop_at > KILL_PATIENCE_S
        has_steps = self.watch.started_step is not None and self.watch.step > (self.saved_step or 0)
        if has_steps and ending.asked_save_at_step is None and self.trainer.ask("save"):
            ending.asked_save_at_step = self.watch.step
        wanted = ending.asked_save_at_step
        # The step being worked on at that moment is one less than what the bar shows next.
        if wanted is not None and max(self.saved_step or 0, self._refused_at) < wanted - 1:
            return False
        if not self.trainer.ask("stop"):
            return True
        ending.asked_stop_at = now
        # Before its first step it has nothing to lose, and while it loads it looks at nothing for minutes.
        return self.watch.started_step is None

    def _obey(self, now: float) -> None:
        limits, deadline = self.spec.limits, self.hooks.deadline
        if (self._signals or self.hooks.is_leaving()) and not self._is_hurried:
            self._is_hurried = True
            self._end("signal", now + limits.signal_s)
        if now - self._asked_at >= CONTROL_EVERY_S:
            self._asked_at = now
            self._obey_operator(now)
        # Three steps: the one it is at, the save, and the one in which it hears of the stop.
        closing_s = max(limits.closing_s, 3 * (self.watch.pace_s or 0.0))
        if self.ending is None and deadline is not None and time.time() > deadline - closing_s:
            self._end("deadline", now + max(1.0, deadline - time.time()))

    def _obey_operator(self, now: float) -> None:
        word = self.hooks.control()
        is_new, self._word = word != self._word, word
        if word == "abort" and is_new:
            self._end("operator", now)
        elif word == "stop" and self.ending is None and not self.hooks.is_leaving():
            self._end("operator", now + self.spec.limits.stop_s)
        elif word == "save" and is_new and self.ending is None:
            self.trainer.ask("save")

    def _end(self, why: Why, give_up_at: float) -> None:
        before = self.ending
        self.ending = _Ending(why, give_up_at)
        if before is not None:
            # A save that is on its way is not asked for twice; the operator's word stays the reason.
            self.ending = _Ending(before.why, min(give_up_at, before.give_up_at), before.asked_save_at_step)
            self.ending.asked_stop_at = before.asked_stop_at
        self.hooks.emit({"type": "ending", "why": self.ending.why, "step": self.watch.step})

    def _rescue(self, process: child.Child, reader: Reader, publisher: Publisher) -> None:
        """Something was raised into this thread: save what can be saved in the time a container has left."""
        self._is_hurried = True
        if self.ending is None:
            self._end("signal", time.monotonic() + self.spec.limits.signal_s)
        assert self.ending is not None
        give_up_at = min(self.ending.give_up_at, time.monotonic() + self.spec.limits.signal_s)
        self.ending.give_up_at = give_up_at
        while process.code is None and time.monotonic() < give_up_at:
            self._listen(process, reader, publisher)
            if self._is_over(time.monotonic()):
                return

    def _listen(self, process: child.Child, reader: Reader, publisher: Publisher) -> None:
        if data := process.read(TICK_S):
            self.watch.moved_at = time.monotonic()
        self._hear(reader.feed(data), publisher)
        self._take_reports(publisher)

    def _hear(self, events: list[Event], publisher: Publisher) -> None:
        now = time.monotonic()
        for event in events:
            self.watch.take(event, now)
            if isinstance(event, Said):
                self._note(event.text)
        for told in self.watch.saves:
            self._hand_over(told, publisher)
        self.watch.saves.clear()
        self._tell()

    def _note(self, line: str) -> None:
        self._lines.append(line)
        self.hooks.say(line)
        with contextlib.suppress(OSError, ValueError):
            self._log.write(f"{line}\n")
            self._log.flush()

    def _hand_over(self, told: SaveTold, publisher: Publisher) -> None:
        saved = self.trainer.saved(told.paths)
        # Of a save that failed there may be a piece.
        optimizer = Path(told.optimizer) if told.optimizer is not None else None
        publisher.publish(
            Pair.just_saved(
                saved.weights,
                optimizer if optimizer is not None and optimizer.is_file() else None,
                is_final=saved.is_final,
                announced_step=told.step,
            )
        )

    def _take_reports(self, publisher: Publisher) -> None:
        if publisher.crash is not None:
            raise publisher.crash
        with contextlib.suppress(queue.Empty):
            while True:
                self._take_report(publisher.reports.get_nowait())
        self._tell()

    def _take_report(self, report: Report) -> None:
        if isinstance(report, Published):
            made = report.checkpoint
            self.saved_step = made.step
            if made.is_final:
                self.final = made
            self.watch.out.append({"type": "checkpoint", **made.to_dict()})
        elif isinstance(report, Kept):
            told = {"path": report.path, "step": report.step, "index": report.index}
            self.watch.out.append({"type": "sample", **told})
        elif isinstance(report, Refused):
            self._final_refused = report if report.is_final else self._final_refused
            self._refused_at = self.watch.step
            self.watch.warn(report.code, report.why)
        elif isinstance(report, Uncommitted):
            self.watch.warn("not_committed", f"a checkpoint could not be committed yet: {report.why}")
        elif isinstance(report, Broken):
            self._break(report)

    def _break(self, report: Broken) -> None:
        where = f" {report.where}" if report.where else ""
        self.error = TransferError(
            f"a checkpoint cannot be kept, and what is trained now would be lost: cannot write{where}: {report.why}",
            hint="free some space on the volume, then train again: it goes on from the last checkpoint",
        )
        self.may_pass = False

    def _look(self, now: float, publisher: Publisher) -> None:
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            pulse = self.trainer.pulse()
            if pulse != self._pulse:
                self._pulse, self.watch.moved_at = pulse, now
            samples = len(self.trainer.samples())
            if samples > self._samples_seen and self.watch.phase != "sampling":
                self._samples_seen = samples
                publisher.refresh()
        if now - self._losses_at >= LOSSES_EVERY_S:
            self._losses_at = now
            self._tell_losses()

    def _tell_losses(self) -> None:
        losses = self.trainer.losses(self._loss_step)
        for first in range(0, len(losses), LOSSES_AT_ONCE):
            part = losses[first : first + LOSSES_AT_ONCE]
            self.hooks.emit({"type": "losses", "points": [list(each) for each in part if math.isfinite(each[1])]})
        if losses:
            self._loss_step = losses[-1][0]

    def _tell(self) -> None:
        for event in self.watch.out:
            self.hooks.emit(event)
        self.watch.out.clear()

    def _settle(self, process: child.Child, reader: Reader, publisher: Publisher) -> None:
        """Read the dead one's last words, keep what it finished."""
        self.code = process.code
        for events in (reader.feed(process.read_rest()), reader.close()):
            self._hear(events, publisher)
        if self._finished(publisher):
            publisher.keep_rest()
        elif not self._signals and not self._is_hurried:
            self._break(Broken(f"it took longer than {PUBLISH_PATIENCE_S:.0f} s", None, is_final=True))
        self._take_reports(publisher)
        self._tell_losses()
        self.watch.end(time.monotonic())

    def _finished(self, publisher: Publisher) -> bool:
        """Wait for what is being copied, for less long once a signal has come."""
        began_at = time.monotonic()
        is_done = publisher.finish(TICK_S)
        while not is_done:
            is_hurried = bool(self._signals) or self._is_hurried
            patience_s = self.spec.limits.signal_s / 2 if is_hurried else PUBLISH_PATIENCE_S
            if time.monotonic() - began_at > patience_s:
                return False
            is_done = publisher.join(TICK_S)
        return True

    def _judge(self) -> None:
        if self.error is not None or self.final is not None:
            self._judge_final()
            return
        failure = self.watch.abort
        if failure is None and self._final_refused is not None:
            refused = self._final_refused
            hint = "lower train.lr, or train in bf16 instead of fp16" if not refused.is_finite else None
            failure = Failure("not_finite" if not refused.is_finite else "no_result", refused.why, hint)
        if failure is None and self.ending is not None:
            return
        failure = failure or self.watch.failure or self._silent_end()
        self.error, self.may_pass = failure.to_error(), failure.may_pass

    def _judge_final(self) -> None:
        if self.final is None or self.error is not None:
            return
        if self.final.step < self.spec.steps:
            failure = Failure(
                "no_result", f"the trainer ended at step {self.final.step} of {self.spec.steps} and called it its end"
            )
            self.error = failure.to_error()
        elif self.watch.failure is not None:
            self.watch.warn("failed_after_end", f"after the last save: {self.watch.failure.message}")

    def _silent_end(self) -> Failure:
        assert self.code is not None
        if self.watch.is_ended:
            return Failure("killed", "somebody interrupted the trainer", "train again: it goes on")
        return silent_death(self.code, list(self._lines))

    @contextlib.contextmanager
    def _signals_taken(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _verdict(self) -> tuple[Status, str]:
        if self.error is not None:
            return "failed", "failure"
        if self.final is not None:
            return "succeeded", "finished"
        assert self.ending is not None
        return ("stopped" if self.ending.why == "operator" else "interrupted"), self.ending.why

    def _outcome(self) -> dict[str, Any]:
        status, ended_by = self._verdict()
        watch = self.watch
        return {
            "status": status,
            "ended_by": ended_by,
            "step": self.final.step if self.final else watch.step,
            "steps": self.spec.steps,
            "saved_step": self.saved_step,
            "resumed_from": self.resumed_from,
            "final": self.final.to_dict() if self.final else None,
            "checkpoints": [each.to_dict() for each in self.store.entries()],
            "loss": watch.loss,
            "seconds_per_step": watch.pace_s,
            "phases_s": {phase: round(seconds, 3) for phase, seconds in watch.phase_s.items()},
            "skipped_steps": watch.skipped,
            "not_finite_steps": watch.not_finite,
            "images": dict(watch.images),
            "dropped_images": list(watch.dropped),
            "warnings": list(watch.warnings),
            "error": self.error.to_dict() if self.error else None,
            "may_pass": self.may_pass or status == "interrupted",
            "exit_code": self.code,
            "started_at": self.started_at,
            "ended_at": time.time(),
        }


def _disk_failure(exc: OSError) -> ComfymodalError:
    where = f" {exc.filename}" if exc.filename else ""
    return TransferError(
        f"cannot write{where}: {exc.strerror or exc}", hint="free some space, then train again: it goes on"
    )
