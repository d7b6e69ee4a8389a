"""What the operator sees while a training goes on: its figures, and the events only trainings have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfymodal.costs.rates import money_text
from comfymodal.output.words import bytes_in_words, seconds_in_words

if TYPE_CHECKING:
    from comfymodal.output.progress import Progress

SMOOTHING = 0.9


@dataclass(slots=True)
class Training:
    """What a person wants to know of a training while it goes on. Money in nanodollars, times in Unix seconds."""

    per_s: int = 0
    began_at: float | None = None
    loss: float | None = None
    lr: float | None = None
    step_s: float | None = None
    left_s: float | None = None
    step: int = 0
    saved: int = 0

    def hear(self, event: Mapping[str, Any]) -> None:
        self.step = int(event.get("value") or 0)
        self.lr, self.step_s, self.left_s = event.get("lr"), event.get("seconds_per_step"), event.get("eta_s")
        if (loss := event.get("loss")) is not None:
            # A single step's loss says nothing: it jumps with the noise that was drawn.
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * float(loss)

    def words(self, at: float) -> list[str]:
        """E.g. `loss 0.412`, `lr 1e-04`, `$0.42 so far, about $1.60 in all`, `2:06 min at risk`."""
        words = [f"loss {self.loss:.3g}"] if self.loss is not None else []
        words += [f"lr {self.lr:.0e}"] if self.lr else []
        if self.per_s and self.began_at is not None:
            spent = self.per_s * max(0.0, at - self.began_at)
            whole = f", about {money_text(round(spent + self.per_s * self.left_s))} in all" if self.left_s else ""
            words.append(f"{money_text(round(spent))} so far{whole}")
        if self.step_s and self.step > self.saved:
            words.append(f"{seconds_in_words((self.step - self.saved) * self.step_s)} at risk")
        return words


def _on_rate(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.training.per_s = int(event.get("nanodollars_per_s") or 0)


def _on_staged(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter("staging", now)
    state.files = (int(event.get("files_done") or 0), int(event.get("files") or 0))


def _on_bar(state: Progress, event: Mapping[str, Any], now: float) -> None:
    state.enter(str(event.get("phase")), now, str(event.get("label")))
    state.steps.read(float(event.get("done") or 0), float(event.get("total") or 0), now)


def _on_resumed(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.training.saved = int(event["step"])
    return f"resumed   from the checkpoint of step {event['step']}"


def _on_checkpoint(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.training.saved = int(event["step"])
    size = bytes_in_words(sum(int(file["size_bytes"]) for file in event.get("weights") or ()))
    return f"saved     step {event['step']}{', the end' if event.get('is_final') else ''} ({size})"


def _on_sample(state: Progress, event: Mapping[str, Any], now: float) -> str:
    return f"sample    step {event['step']}, prompt {event['index']}"


def _on_warning(state: Progress, event: Mapping[str, Any], now: float) -> str:
    hint = f" ({event['hint']})" if event.get("hint") else ""
    return f"warning   {event.get('message')}{hint}"


def _on_ending(state: Progress, event: Mapping[str, Any], now: float) -> str:
    why = {"operator": "as asked", "deadline": "its time is up", "signal": "its container is taken away"}
    return f"ending    at step {event.get('step')}: {why.get(str(event.get('why')), event.get('why'))}"


def _on_published(state: Progress, event: Mapping[str, Any], now: float) -> str:
    is_old = event.get("action") == "already_there"
    return f"published models:/{event.get('path')}{' (it was there already)' if is_old else ''}"


def _on_sweep(state: Progress, event: Mapping[str, Any], now: float) -> str:
    state.training = Training()
    return f"sweep     {event.get('number')} of {event.get('of')}: {event.get('name')} ({event.get('run_id')})"


TRAINING_HANDLERS = {
    "rate": _on_rate,
    "staged": _on_staged,
    "bar": _on_bar,
    "resumed": _on_resumed,
    "checkpoint": _on_checkpoint,
    "sample": _on_sample,
    "warning": _on_warning,
    "ending": _on_ending,
    "published": _on_published,
    "sweep": _on_sweep,
}
