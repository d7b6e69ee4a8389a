"""What the operator sees while a command works: events in, one line out. Never on stdout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfymodal.output.training_progress import TRAINING_HANDLERS, Training
from comfymodal.output.words import bytes_in_words, price_in_words, seconds_in_words

RATE_WINDOW_S = 20.0


@dataclass(slots=True)
class Meter:
    """How far something is and how fast it goes, from its newest readings."""

    done: float = 0.0
    total: float = 0.0
    readings: list[tuple[float, float]] = field(default_factory=list)

    def read(self, done: float, total: float, now: float) -> None:
        if total != self.total or done < self.done:
            self.readings.clear()
        self.done, self.total = done, total
        # Steps of a video take longer than the window: the newest reading is kept, or there would never be two.
        recent = [reading for reading in self.readings if now - reading[0] < RATE_WINDOW_S]
        self.readings = [*(recent or self.readings[-1:]), (now, done)]

    @property
    def rate(self) -> float | None:
        """Per second; None before there are two readings apart."""
        if len(self.readings) < 2:
            return None
        (first_at, first), (last_at, last) = self.readings[0], self.readings[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at and last > first else None

    @property
    def remaining_s(self) -> float | None:
        rate = self.rate
        return (self.total - self.done) / rate if rate and self.total > self.done else None


@dataclass(slots=True)
class Progress:
    """The state that events leave behind; `now` is monotonic seconds."""

    phase: str = ""
    phase_since: float = 0.0
    text: str = ""
    prompts_done: int = 0
    prompts_total: int = 0
    nodes: Meter = field(default_factory=Meter)
    steps: Meter = field(default_factory=Meter)
    bytes: Meter = field(default_factory=Meter)
    speed: float = 0.0
    """Bytes per second, where the mover tells them."""
    files: tuple[int, int] = (0, 0)
    """Done and all, of a transfer."""
    training: Training = field(default_factory=Training)

    def take(self, event: Mapping[str, Any], now: float) -> str | None:
        """Note an event; return a line worth keeping on the screen, if it is one."""
        handler = _HANDLERS.get(str(event.get("type")))
        return handler(self, event, now) if handler else None

    def enter(self, phase: str, now: float, text: str = "") -> None:
        if phase != self.phase:
            self.phase, self.phase_since = phase, now
            self.steps, self.bytes = Meter(), Meter()
            self.speed, self.files = 0.0, (0, 0)
        self.text = text

    def bar(self) -> tuple[float, float] | None:
        """(done, total) of what moves: steps of a node, bytes of a download, else nodes of the workflow."""
        for meter in (self.steps, self.bytes, self.nodes if self.phase == "render" else Meter()):
            if meter.total > 0:
                return meter.done, meter.total
        return None

    def counts(self) -> str:
        """E.g. `step 8/20 · 3.1/s · 4.0 s left`."""
        parts = []
        if self.steps.total > 0:
            parts.append(f"step {self.steps.done:.0f}/{self.steps.total:.0f}")
            step_s = self.training.step_s if self.phase == "training" else None
            if (rate := 1 / step_s if step_s else self.steps.rate) is not None:
                parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
        elif self.bytes.total > 0:
            parts += self._transfer_counts()
        told_s = self.training.left_s if self.phase == "training" else None
        remaining = told_s or self.steps.remaining_s or self.bytes.remaining_s
        if self.speed > 0 and self.bytes.total > self.bytes.done:
            remaining = (self.bytes.total - self.bytes.done) / self.speed
        if remaining is not None:
            parts.append(f"{seconds_in_words(remaining)} left")
        return " · ".join(parts)

    def _transfer_counts(self) -> list[str]:
        done, total = self.files
        files = [f"{done} of {total} files"] if total else []
        speed = [f"{bytes_in_words(int(self.speed))}/s"] if self.speed > 0 else []
        moved = f"{bytes_in_words(int(self.bytes.done))}/{bytes_in_words(int(self.bytes.total))}"
        return [moved, *speed, *files]

    def position(self) -> str:
        """E.g. `prompt 2 of 8 · node 3 of 9`."""
        parts = []
        if self.prompts_total > 1:
            parts.append(f"prompt {min(self.prompts_done + 1, self.prompts_total)} of {self.prompts_total}")
        if self.phase == "training":
            parts += self.training.words(time.time())
        if self.phase == "render" and self.nodes.total:
            parts.append(f"node {min(self.nodes.done + 1, self.nodes.total):.0f} of {self.nodes.total:.0f}")
        return " · ".join(parts)

    def sentence(self, now: float) -> str:
        """The whole state as plain text."""
        parts = [self.phase, self.position(), self.text, self.counts(), seconds_in_words(now - self.phase_since)]
        return " · ".join(part for part in parts if part)


def _on_install(state: Progress, event: Mapping[str, Any], now: float) -> str | None:
    is_new_step = state.text.partition(" ")[0] != str(event.get("step"))
    state.enter("install", now, f"{event.get('step')} {event.get('message')}".strip())
    if event.get("total_bytes"):
        state.bytes.read(float(event.get("done_bytes") or 0), float(event["total_bytes"]), now)
    elif is_new_step:
        state.bytes = Meter()
    return f"install   {event.get('message')}" if is_new_step else None


def _on_engine_looking(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("engine", now, "looking for ComfyUI")


def _on_engine_starting(state: Progress, event: Mapping[str, Any], now: float) -> str | None:
    state.enter("engine", now, f"starting {event.get('name')}")
    return None


def _on_engine_ready(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"engine    {event.get('name')} started in {seconds_in_words(float(event['seconds']))} at {event.get('url')}"


def _on_engine_ending(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("engine", now, f"{str(event['type']).removeprefix('engine_')} {event.get('name')}")


def _on_engine(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.enter("check", now)
    return f"engine    ComfyUI {event.get('version')} on {event.get('device')} ({event.get('how')})"


def _on_price(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"cost      {price_in_words(event)}"


def _on_build_log(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.text = str(event.get("line"))
    return f"build     {event.get('line')}"


def _on_deployed(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"deployed  {event.get('app')}"


def _on_inspected(state: Progress, event: Mapping[str, Any], now: float) -> str:
    seconds = seconds_in_words(float(event["seconds"]))
    return f"inspected ComfyUI comes up without a GPU in {seconds} and knows {event.get('classes')} node classes"


def _on_mounts_listed(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"mounts    {event.get('files')} model files in buckets ({seconds_in_words(float(event['seconds']))})"


def _on_proof(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"proved    {event.get('what')} ({seconds_in_words(float(event['seconds']))})"


def _on_service_silent(state: Progress, event: Mapping[str, Any], now: float) -> str | None:
    is_new = state.phase != "offline"
    state.enter("offline", now, str(event.get("message")))
    return "offline   Modal does not answer; the run goes on, and so does this command" if is_new else None


def _on_submitted(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.enter("queue", now)
    stops = "saves and stops it" if event.get("kind") == "train" else "stops it"
    return f"run       {event.get('run_id')}  (Ctrl-C {stops})"


def _on_phase(state: Progress, event: Mapping[str, Any], now: float) -> str | None:
    phase = str(event.get("phase"))
    is_new = phase != state.phase
    state.enter(phase, now)
    if phase == "stopping" and is_new:
        keeps = "saving, then it stops" if event.get("saves") else "keeping what is finished"
        return f"stopping  {keeps}; Ctrl-C again leaves it to itself"
    if state.training.began_at is None and phase != "waiting" and event.get("at"):
        state.training.began_at = float(event["at"])
    return None


def _on_prompt_queued(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.prompts_total = int(event.get("total") or 1)
    if state.phase != "render":
        state.enter("queue", now)


def _on_prompt_started(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("render", now)
    state.nodes, state.steps = Meter(), Meter()


def _on_node(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("render", now, str(event.get("title")))
    state.steps = Meter()
    state.nodes.read(float(event.get("done") or 0), float(event.get("total") or 0), now)


def _on_step(state: Progress, event: Mapping[str, Any], now: float) -> None:
    if "loss" in event:
        state.enter("training", now)
        state.training.hear(event)
    state.steps.read(float(event.get("value") or 0), float(event.get("max") or 0), now)


def _on_prompt_saving(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("saving", now)


def _on_prompt_done(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.prompts_done += 1


def _on_fetching(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("download", now, str(event.get("name")))
    if event.get("total_bytes"):
        state.bytes.read(float(event.get("done_bytes") or 0), float(event["total_bytes"]), now)


def _on_pair(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.enter("pair", now, str(event.get("name")))
    return f"pair      {event.get('name')}: here {event.get('here')}, there {event.get('there')}"


def _on_hashing(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("hashing", now, str(event.get("name")))
    state.bytes.read(float(event.get("done_bytes") or 0), float(event.get("total_bytes") or 0), now)


def _on_plan(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.enter("plan", now)
    counts = dict(event.get("counts") or {})
    in_step = counts.pop("same", 0) + counts.pop("adopt", 0)
    told = [f"{number} {str(kind).replace('_', ' ')}" for kind, number in sorted(counts.items()) if number]
    told += [f"{in_step} in step"] if in_step else []
    size = bytes_in_words(int(event.get("copy_bytes") or 0))
    copies = f"{event['copy_files']} to copy ({size})" if event.get("copy_files") else "nothing to copy"
    return f"plan      {', '.join([copies, *told])}"


def _on_transfer(state: Progress, event: Mapping[str, Any], now: float) -> None:
    names = [str(name) for name in event.get("names") or ()]
    state.enter("copy", now, ", ".join(names))
    state.bytes.read(float(event.get("done_bytes") or 0), float(event.get("total_bytes") or 0), now)
    state.speed = float(event.get("speed") or 0)
    state.files = (int(event.get("files_done") or 0), int(event.get("files") or 0))


def _on_reading(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("dataset", now, f"{event.get('folder')}: {event.get('done')} of {event.get('total')} files")


_HANDLERS = {
    **TRAINING_HANDLERS,
    "reading": _on_reading,
    "pair": _on_pair,
    "hashing": _on_hashing,
    "plan": _on_plan,
    "transfer": _on_transfer,
    "install": _on_install,
    "engine_looking": _on_engine_looking,
    "engine_starting": _on_engine_starting,
    "engine_ready": _on_engine_ready,
    "engine_stopping": _on_engine_ending,
    "engine_removing": _on_engine_ending,
    "engine": _on_engine,
    "price": _on_price,
    "build_log": _on_build_log,
    "deployed": _on_deployed,
    "inspected": _on_inspected,
    "mounts_listed": _on_mounts_listed,
    "service_silent": _on_service_silent,
    "proof": _on_proof,
    "submitted": _on_submitted,
    "phase": _on_phase,
    "prompt_queued": _on_prompt_queued,
    "prompt_started": _on_prompt_started,
    "node": _on_node,
    "step": _on_step,
    "prompt_saving": _on_prompt_saving,
    "prompt_done": _on_prompt_done,
    "fetching": _on_fetching,
}


def now_s() -> float:
    return time.monotonic()
