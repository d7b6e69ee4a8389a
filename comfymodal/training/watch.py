"""Judges a training by its events and the clock: what to tell, what to copy, when to give up. Pure; time is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfymodal.training.events import (
    Bar,
    BatchSkipped,
    Ended,
    Event,
    Failed,
    ImageDropped,
    ImagesFound,
    LossNotFinite,
    NetworkBuilt,
    OptimizerSaved,
    Phase,
    ResumedAt,
    SaveStarted,
    Step,
    Warned,
    WeightsSaved,
)
from comfymodal.training.failures import Failure

SHOW_EVERY_S = 1.0
ADVISE_AFTER_STEPS = 20
AT_RISK_S = 900.0
"""More than this between two saves is worth a word."""

MOST_WARNINGS = 100
"""In the outcome; each is an event too."""

MANY_STEPS = 20
"""A training is silent for good when it is silent for so many of its own steps."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give a training up, and how long its end may take; seconds."""

    stall_s: float = 600.0
    """Silence while training."""
    quiet_s: float = 1800.0
    """Silence while anything else: a large model is quantized without a word."""
    not_finite_in_row: int = 20
    skipped_share: float = 0.02
    closing_s: float = 120.0
    """Before the deadline the last save begins."""
    stop_s: float = 600.0
    """How long a save that the operator asked for may take to begin and end; sampling comes first."""
    signal_s: float = 20.0
    """The same after a signal: a container has 30 s."""


@dataclass(frozen=True, slots=True)
class SaveTold:
    """A save has ended; `paths` are its weights as the trainer told them."""

    paths: tuple[str, ...]
    optimizer: str | None
    step: int | None


@dataclass(slots=True)
class Watch:
    """One attempt, as far as it is told. `now` is monotonic seconds."""

    steps: int
    save_every: int | None
    limits: Limits
    expected_images: Mapping[str, int]
    phase: str = "starting"
    step: int = 0
    started_step: int | None = None
    """Where this attempt began; None until its first step."""
    begins_at: int = 0
    """Where it must go on from: one that does not take the checkpoint would do everything again."""
    loss: float | None = None
    pace_s: float | None = None
    moved_at: float = 0.0
    resumed_at: int | None = None
    modules: int | None = None
    images: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    skipped: int = 0
    not_finite: int = 0
    not_finite_in_row: int = 0
    is_ended: bool = False
    failure: Failure | None = None
    """What the trainer says of its own death."""
    abort: Failure | None = None
    """Why it is not worth going on."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    phase_s: dict[str, float] = field(default_factory=dict)
    out: list[dict[str, Any]] = field(default_factory=list)
    """Events for the operator, not yet taken."""
    saves: list[SaveTold] = field(default_factory=list)
    """Not yet taken."""
    _phase_since: float = 0.0
    _shown_at: float = float("-inf")
    _saving: int | None = None
    _paths: list[str] = field(default_factory=list)
    _is_advised: bool = False
    _is_share_told: bool = False

    def begin(self, now: float) -> None:
        self.moved_at = self._phase_since = now

    def take(self, event: Event, now: float) -> None:
        """Note an event."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event, now)

    def silence(self, now: float, *, is_done: bool = False) -> Failure | None:
        """A failure when it has shown no sign of life for too long; `is_done`: all it trained is kept."""
        silent_s = now - self.moved_at
        allowed_s = self.limits.stall_s if is_done else self.limits.quiet_s
        if self.phase == "training" and self.started_step is not None:
            allowed_s = max(self.limits.stall_s, MANY_STEPS * (self.pace_s or 0.0))
        if silent_s <= allowed_s:
            return None
        return Failure(
            "stalled",
            f"the trainer showed no sign of life for {silent_s:.0f} s while {self.phase} (step {self.step})",
            "train again: it goes on from the last checkpoint",
        )

    def eta_s(self) -> float | None:
        """Of the steps alone; what saving and sampling take, its own bar does not count either."""
        return None if self.pace_s is None else (self.steps - self.step) * self.pace_s

    def warn(self, code: str, message: str, hint: str | None = None) -> None:
        warning = {"code": code, "message": message, "hint": hint}
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(warning)
        self.out.append({"type": "warning", **warning})

    def end(self, now: float) -> None:
        """Close the account of phases."""
        self.phase_s[self.phase] = self.phase_s.get(self.phase, 0.0) + now - self._phase_since
        self._phase_since = now

    def on_phase(self, event: Phase, now: float) -> None:
        self.end(now)
        self.phase = event.name
        self.out.append({"type": "phase", "phase": event.name})

    def on_bar(self, event: Bar, now: float) -> None:
        if event.done >= event.total or self._is_due(now):
            bar = {"phase": event.phase, "label": event.label, "done": event.done, "total": event.total}
            self.out.append({"type": "bar", **bar})

    def on_step(self, event: Step, now: float) -> None:
        if self.started_step is None:
            self.started_step = event.done
            self._require_begun(event.done)
        if event.loss and math.isfinite(event.loss):
            # Zero is what is shown of one that was no number. Counts of bars tell nothing: a step has one or two.
            self.not_finite_in_row = 0
        self.step, self.pace_s = event.done, event.seconds_per_step or self.pace_s
        if event.loss is not None:
            # JSON knows no NaN.
            self.loss = event.loss if math.isfinite(event.loss) else None
        self._advise(event)
        if event.done < event.total and not self._is_due(now):
            return
        told = {"value": event.done, "max": event.total, "loss": self.loss, "lr": event.lr}
        self.out.append({"type": "step", **told, "seconds_per_step": self.pace_s, "eta_s": self.eta_s()})

    def _require_begun(self, step: int) -> None:
        if step < self.begins_at:
            self.abort = Failure(
                "unknown", f"the trainer began at step {step} and did not go on from the checkpoint of {self.begins_at}"
            )

    def _advise(self, event: Step) -> None:
        done = event.done - (self.started_step or 0)
        if self._is_advised or done < ADVISE_AFTER_STEPS or not self.pace_s or not self.save_every:
            return
        self._is_advised = True
        at_risk_s = self.pace_s * min(self.save_every, self.steps)
        if at_risk_s > AT_RISK_S:
            self.warn(
                "much_at_risk",
                f"at {self.pace_s:.1f} s a step, {at_risk_s / 60:.0f} minutes of work lie between two saves",
                f"lower save.save_every to {max(1, int(AT_RISK_S / self.pace_s))}",
            )

    def on_save_started(self, event: SaveStarted, now: float) -> None:
        self._saving = event.step
        self._paths.clear()

    def on_weights(self, event: WeightsSaved, now: float) -> None:
        self._paths.append(event.path)

    def on_optimizer(self, event: OptimizerSaved, now: float) -> None:
        self.saves.append(SaveTold(tuple(self._paths), event.path, self._saving))
        self._saving = None
        self._paths.clear()

    def on_resumed(self, event: ResumedAt, now: float) -> None:
        self.resumed_at = event.step
        self.out.append({"type": "resumed", "step": event.step})

    def on_network(self, event: NetworkBuilt, now: float) -> None:
        self.modules = event.modules
        if event.modules == 0:
            self.abort = Failure(
                "no_modules",
                "the network was built with 0 modules: nothing would be trained",
                "check network.network_kwargs.only_if_contains and ignore_if_contains against model.arch",
            )

    def on_images(self, event: ImagesFound, now: float) -> None:
        self.images[event.folder] = event.count
        expected = self.expected_images.get(event.folder)
        if expected is not None and event.count < expected:
            lost = f"; it could not read {', '.join(self.dropped[:5])}" if self.dropped else ""
            self.abort = Failure(
                "images_dropped",
                f"the trainer found {event.count} of {expected} images in {event.folder}{lost}",
                "check the dataset, and send it again",
            )

    def on_dropped(self, event: ImageDropped, now: float) -> None:
        # Once per resolution.
        if event.path not in self.dropped:
            self.dropped.append(event.path)
            self.warn("image_dropped", f"the trainer could not read {event.path} and goes on without it")

    def on_not_finite(self, event: LossNotFinite, now: float) -> None:
        self.not_finite += 1
        self.not_finite_in_row += 1
        if self.not_finite_in_row >= self.limits.not_finite_in_row:
            self.abort = Failure(
                "not_finite",
                f"the loss was not a number for {self.not_finite_in_row} steps in a row, up to step {self.step}",
                "lower train.lr, or train in bf16 instead of fp16",
            )

    def on_skipped(self, event: BatchSkipped, now: float) -> None:
        self.skipped += 1
        done = self.step - (self.started_step or 0) + 1
        if not self._is_share_told and self.skipped >= 2 and self.skipped / done > self.limits.skipped_share:
            self._is_share_told = True
            self.warn(
                "steps_skipped",
                f"{self.skipped} of {done} steps were skipped: the GPU's memory does not suffice for them",
                "lower resolution or batch_size, set model.low_vram, or take a larger GPU",
            )

    def on_warned(self, event: Warned, now: float) -> None:
        self.warn(event.code, event.message, event.hint)

    def on_ended(self, event: Ended, now: float) -> None:
        self.is_ended = True

    def on_failed(self, event: Failed, now: float) -> None:
        self.failure = event.failure

    def _is_due(self, now: float) -> bool:
        if now - self._shown_at < SHOW_EVERY_S:
            return False
        self._shown_at = now
        return True


_HANDLERS: dict[type, Any] = {
    Phase: Watch.on_phase,
    Bar: Watch.on_bar,
    Step: Watch.on_step,
    SaveStarted: Watch.on_save_started,
    WeightsSaved: Watch.on_weights,
    OptimizerSaved: Watch.on_optimizer,
    ResumedAt: Watch.on_resumed,
    NetworkBuilt: Watch.on_network,
    ImagesFound: Watch.on_images,
    ImageDropped: Watch.on_dropped,
    LossNotFinite: Watch.on_not_finite,
    BatchSkipped: Watch.on_skipped,
    Warned: Watch.on_warned,
    Ended: Watch.on_ended,
    Failed: Watch.on_failed,
}
