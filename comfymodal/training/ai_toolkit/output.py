r"""Reads what ai-toolkit prints: bytes in, events out.

Bars are rewritten in place with `\r` on stderr, prints come on stdout and are glued behind an unfinished bar, nested
bars move the cursor up. Stdout and stderr are expected in one stream. Formats as printed by 0.12.26.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from comfymodal.secret_shapes import without_secrets
from comfymodal.training.ai_toolkit.causes import explain, warning_in
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
    PhaseName,
    ResumedAt,
    Resuming,
    Said,
    SaveRemoved,
    SaveStarted,
    Step,
    Warned,
    WeightsSaved,
)

LONGEST_LINE = 1 << 16
"""Characters kept of an unfinished line: a trainer gone mad must not fill the memory."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_BAR = re.compile(
    r"(?P<percent>\d{1,3})%\|(?P<bar>[^|\r\n]*)\|\s*"
    r"(?P<n>[\d.]+)(?P<n_unit>[kMGT]?)/(?P<total>[\d.]+)(?P<total_unit>[kMGT]?)\s*"
    r"\[(?P<elapsed>[\d:]+)<(?P<eta>[\d:?]+),\s*(?P<rate>[\d.]+|\?)(?P<unit>[a-zA-Z]*/[a-zA-Z]+)"
    r"(?:,\s*(?P<post>[^\]]*))?\]"
)
# A bar that knows no total, or has none to do.
_COUNTER = re.compile(r"(?:.*: )?[\d.]+[kMGT]?[a-zA-Z]* \[[\d:]+, +(?:[\d.]+|\?)[a-zA-Z]*/[a-zA-Z]+\]")
_METRIC = re.compile(r"(?P<key>[A-Za-z_][\w/.]*)\s*[:=]\s*(?P<value>[-+]?(?:nan|inf|\d[\d.]*(?:e[-+]?\d+)?))", re.I)
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

_BAR_PHASES: tuple[tuple[re.Pattern[str], PhaseName], ...] = (
    (re.compile(r"^Caching "), "caching"),
    (re.compile(r"^Generating (?:Images|Samples)"), "sampling"),
    (re.compile(r"^(?:Fetching|Downloading)\b|\.(?:safetensors|bin|json|model|txt|pt|gguf)$"), "downloading"),
    (re.compile(r"^Loading\b"), "loading"),
    (re.compile(r"[Qq]uantizing"), "quantizing"),
)
_LINE_PHASES: tuple[tuple[re.Pattern[str], PhaseName], ...] = (
    (re.compile(r"^Running \d+ jobs?$|^# Running job: "), "starting"),
    (re.compile(r"^Loading (?:from |optimizer state )"), "resuming"),
    (re.compile(r"^(?:Loading |Making pipe|Preparing Model|Model Loaded)"), "loading"),
    (re.compile(r"^(?: - )?[Qq]uantizing "), "quantizing"),
    (re.compile(r"^create LoRA "), "network"),
    (re.compile(r"^Dataset: |^Bucket sizes for "), "dataset"),
    (re.compile(r"^Caching "), "caching"),
    (re.compile(r"^Generating baseline samples"), "sampling"),
)

_MODULES = re.compile(r"^create LoRA for (?P<part>.+): (?P<count>\d+) modules\.?$")
_NETWORK_DONE = re.compile(r"^enable LoRA for |^#### IMPORTANT RESUMING|^Dataset: ")
_FOUND = re.compile(r"^\s*-\s+Found (?P<count>\d+) (?:images|items|videos|files)")
_FAILED = re.compile(r"^Error running job: (?P<said>.*)$")
_EXCEPTION = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")

# Said after every failure before a job exists; it only confuses.
_HIDDEN = re.compile(r"^Error running on_error: ")

_OPTIMIZER_UNSAVED = Warned(
    "optimizer_not_saved",
    "the optimizer's state could not be saved: whoever goes on from this checkpoint starts it afresh",
    "see the line before in the trainer's log; most likely the disk is full",
)

_Maker = Callable[[re.Match[str]], tuple[Event, ...]]

_LINES: tuple[tuple[re.Pattern[str], _Maker], ...] = (
    (re.compile(r"^Saving at step (\d+)"), lambda m: (Phase("saving"), SaveStarted(int(m[1])))),
    (re.compile(r"^Saved checkpoint to (.+)"), lambda m: (Phase("saving"), WeightsSaved(m[1]))),
    (re.compile(r"^Saved optimizer to (.+)"), lambda m: (OptimizerSaved(m[1]),)),
    # The weights are whole, and the trainer goes on.
    (re.compile(r"^Could not save optimizer$"), lambda m: (_OPTIMIZER_UNSAVED, OptimizerSaved(None))),
    (re.compile(r"^Removing old save: (.+)"), lambda m: (SaveRemoved(m[1]),)),
    (re.compile(r"^#### IMPORTANT RESUMING FROM (.+) ####"), lambda m: (Phase("resuming"), Resuming(m[1]))),
    (re.compile(r"^Found step (\d+) in metadata"), lambda m: (ResumedAt(int(m[1])),)),
    (re.compile(r"^Error processing (?:image|video): (.+)"), lambda m: (ImageDropped(m[1]),)),
    (re.compile(r"^loss is (?:nan|inf)"), lambda m: (LossNotFinite(),)),
    (re.compile(r"^# OOM during training step, skipping batch (\d+)/\d+"), lambda m: (BatchSkipped(int(m[1])),)),
    (re.compile(r"^Job stopped$"), lambda m: (Ended(),)),
)


@dataclass(slots=True)
class OutputReader:
    """Fulfils `training.trainer.Reader` for the job called `name`."""

    name: str
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _rest: str = ""
    _phase: PhaseName | None = None
    _modules: int | None = None
    _dataset: str = ""
    _said: str | None = None
    _was_asked: bool = False
    _is_dump: bool = False
    _is_traceback: bool = False
    _exceptions: list[str] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)

    def feed(self, data: bytes) -> list[Event]:
        """Whatever arrived, cut anywhere."""
        *segments, self._rest = re.split(r"[\r\n]", self._rest + self._decoder.decode(data))
        for segment in segments:
            self._take_line(self._take_bars(segment))
        # A bar is finished by the next one, which at thirty seconds a step is late.
        self._rest = self._take_bars(self._rest)[:LONGEST_LINE]
        return self._taken()

    def close(self) -> list[Event]:
        """The output has ended."""
        self._take_line(self._take_bars(self._rest + self._decoder.decode(b"", final=True)))
        self._rest = ""
        if self._said is None and self._exceptions and not self._was_asked:
            # It died before it could say so itself, e.g. while importing.
            self._said = self._exceptions[-1]
        if self._said is not None:
            self._events.append(Failed(explain(self._said, self._exceptions)))
        return self._taken()

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _take_bars(self, segment: str) -> str:
        text = _ANSI.sub("", segment)
        while match := _BAR.search(text):
            before, text = text[: match.start()].strip(), text[match.end() :]
            self._take_bar(before, match)
        return text

    def _take_bar(self, before: str, match: re.Match[str]) -> None:
        label = before.removesuffix(":").strip()
        if before.endswith(":") and label.endswith(self.name):
            # What was printed without an end of line stands before the name.
            self._take_line(label.removesuffix(self.name))
            self._enter("training")
            self._events.append(_step(match))
            return
        phase = next((phase for pattern, phase in _BAR_PHASES if pattern.search(label)), None)
        if phase is not None:
            self._enter(phase)
        now = phase or self._phase or "starting"
        self._events.append(Bar(now, label, _count(match, "n"), _count(match, "total")))

    def _take_line(self, line: str) -> None:
        text = line.rstrip()
        if not text.strip() or self._is_of_dump(text) or _HIDDEN.match(text) or _COUNTER.fullmatch(text):
            return
        self._note_traceback(text)
        self._note_network(text)
        if (failed := _FAILED.match(text)) is not None:
            self._was_asked = self._was_asked or failed["said"] == "Job stopped"
            self._said = self._said if self._was_asked else failed["said"]
            self._events += [Ended()] if self._was_asked else []
        self._events += self._meaning(text)
        self._events.append(Said(without_secrets(text)))

    def _meaning(self, text: str) -> list[Event]:
        if text.startswith("Dataset: "):
            self._dataset = text.removeprefix("Dataset: ")
        for pattern, phase in _LINE_PHASES:
            if pattern.match(text):
                self._enter(phase)
                break
        if found := _FOUND.match(text):
            return [ImagesFound(self._dataset, int(found["count"]))]
        if warning := warning_in(text):
            return [Warned(*warning)]
        made = next((make(match) for pattern, make in _LINES if (match := pattern.match(text))), ())
        events: list[Event] = []
        for event in made:
            if isinstance(event, Phase):
                self._enter(event.name)
                continue
            if isinstance(event, ImageDropped):
                # It was told before, and nobody died of it.
                self._exceptions.clear()
            events.append(event)
        return events

    def _is_of_dump(self, text: str) -> bool:
        # The whole config is printed at the start, and with it whatever was substituted into it.
        if self._is_dump:
            self._is_dump = text != "}"
            return True
        self._is_dump = text == "{"
        return self._is_dump

    def _note_traceback(self, text: str) -> None:
        if text.startswith("Traceback (most recent call last)"):
            self._is_traceback = True
        elif self._is_traceback and not text.startswith(" "):
            self._is_traceback = False
            if _EXCEPTION.match(text):
                self._exceptions.append(text)

    def _note_network(self, text: str) -> None:
        if match := _MODULES.match(text):
            self._modules = (self._modules or 0) + int(match["count"])
        elif self._modules is not None and _NETWORK_DONE.match(text):
            # One line per part of the model; a text encoder with none is as usual.
            self._events.append(NetworkBuilt(self._modules))
            self._modules = None

    def _enter(self, phase: PhaseName) -> None:
        if phase != self._phase:
            self._phase = phase
            self._events.append(Phase(phase))


def _step(match: re.Match[str]) -> Step:
    metrics = {each["key"]: float(each["value"]) for each in _METRIC.finditer(match["post"] or "")}
    lr = metrics.pop("lr", None)
    loss = next((value for key, value in metrics.items() if "loss" in key), None)
    return Step(round(_count(match, "n")), round(_count(match, "total")), loss, lr, _pace(match), metrics)


def _pace(match: re.Match[str]) -> float | None:
    rate = _number(match["rate"])
    if not rate:
        return None
    return rate if match["unit"].startswith("s/") else 1.0 / rate


def _count(match: re.Match[str], key: str) -> float:
    return (_number(match[key]) or 0.0) * _UNITS[match[f"{key}_unit"]]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
