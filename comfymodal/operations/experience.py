"""How long the next run will take, by the project's own earlier ones; what it is based on, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from comfymodal.costs.estimate import TYPICAL_STARTUP_S, Span
from comfymodal.runs.ledger import Ledger

UNMEASURED_STARTUP = Span.exactly(TYPICAL_STARTUP_S)


@dataclass(frozen=True, slots=True)
class Experience:
    """`run` is None where no run is like it; `samples` runs say so. `elsewhere`: typical seconds on other GPUs, which
    say nothing certain of this one.
    """

    run: Span | None = None
    startup: Span = UNMEASURED_STARTUP
    samples: int = 0
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    estimated_by: str = ""
    """What says so where no runs do: arithmetic."""

    @property
    def typical_s(self) -> float | None:
        return self.run.typical if self.run else None

    @property
    def basis(self) -> str:
        """E.g. `12 runs`, or `not known: no run on it yet, 20 s on L40S`."""
        if self.run is None:
            others = ", ".join(f"{seconds:.0f} s on {gpu}" for gpu, seconds in self.elsewhere.items())
            return f"not known: no run of it there yet{f', {others}' if others else ''}"
        return self.estimated_by or ("1 run" if self.samples == 1 else f"{self.samples} runs")


def experience_of_render(ledger: Ledger, fingerprint: str, gpus: Sequence[str], *, prompts: int = 1) -> Experience:
    """What a run of so many prompts took on any of these GPUs; `fingerprint` is the workflow file's hash.

    Runs of any number of prompts count: loading once, then each prompt.
    """
    samples = ledger.history(fingerprint)
    here = [each.seconds_for(prompts) for each in samples if each.gpu in gpus]
    others: dict[str, list[float]] = {}
    for each in samples:
        if each.gpu and each.gpu not in gpus:
            others.setdefault(each.gpu, []).append(each.seconds_for(prompts))
    started = Span.of(ledger.start_ups("render", gpus))
    return Experience(
        run=Span.of(here),
        startup=started or UNMEASURED_STARTUP,
        samples=len(here),
        elsewhere={gpu: median(seconds) for gpu, seconds in sorted(others.items())},
    )


def experience_of_sync(ledger: Ledger, kind: str, title: str, startup_limit_s: float) -> Experience:
    """What the same sync took on Modal. Its container has nothing to load: seconds, where they were not measured."""
    runs = [each.run_s for each in ledger.history_of(kind, title, "modal")]
    started = Span.of(ledger.start_ups(kind, [""]))
    unmeasured = Span(0.0, min(SYNC_START_S, startup_limit_s), startup_limit_s)
    return Experience(Span.of(runs), started or unmeasured, len(runs))


SYNC_START_S = 3.0
"""Until a small container without a GPU begins, where none was measured. Modal: "containers boot in about a second"."""


def experience_of_training(
    run_s: float | None, low_s: float | None, high_s: float | None, certainty: str | None
) -> Experience:
    """What `train --check` says of its time, which has the start of the container in it."""
    if run_s is None:
        return Experience(startup=Span.exactly(0.0))
    span = Span(run_s if low_s is None else low_s, run_s, run_s if high_s is None else high_s)
    words = {"measured": "by the steps of an earlier run"}.get(certainty or "", "an estimate, nothing measured")
    return Experience(span, Span.exactly(0.0), estimated_by=words)
