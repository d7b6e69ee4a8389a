"""The frozen values of `train` and `datasets`. Field names are keys of `--json`: adding is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.operations.results import OutputFile, RunView


@dataclass(frozen=True, slots=True)
class ProblemView:
    """One finding; `severity` is error, warning or info. `files` of a dataset are all it is about, `message` names the
    first. `runs` names the variants of a sweep that have it; empty: all.
    """

    severity: str
    kind: str
    place: str
    key: str
    message: str
    hint: str | None = None
    files: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One value of a config that becomes another, as JSON text; None where there was none, or is none any more."""

    key: str
    old: str | None
    new: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class DatasetView:
    """One dataset. What was not looked at has no counts: it is on a volume elsewhere, or its settings are wrong.

    `tables` hold the buckets of each resolution, `sha256` is of names and contents in any order.
    """

    path: str
    place: str
    is_checked: bool
    pictures: int = 0
    videos: int = 0
    captions: int = 0
    size_bytes: int = 0
    sha256: str = ""
    tables: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class CostView:
    """Dollars as text, of one GPU container: `usd` is likely, `low` and `high` are as unsure as the time is, `worst` is
    what its timeout allows.
    """

    usd: str
    low_usd: str
    high_usd: str
    words: str
    per_hour: str
    as_of: str
    worst_usd: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsView:
    """What a run needs; GB are 10^9 bytes. None where no figure is known. A certainty is measured, documented or
    estimate; `verdict` is fits, tight or too_small. `gpus` are all of Modal's that hold it, the cheapest first.
    """

    gpu: str
    gpu_from: str
    vram_gb: int
    memory_gb: float | None
    memory_certainty: str | None
    memory_source: str
    verdict: str | None
    gpus: tuple[str, ...]
    host_memory_gb: int | None
    download_gb: float | None
    scratch_gb: float | None
    volume_gb: float | None
    step_s: float | None
    run_s: float | None
    run_low_s: float | None
    run_high_s: float | None
    time_certainty: str | None
    risk_s: float | None
    cost: CostView | None = None


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """One run: what it trains, what it needs, what is changed in its config. `settings` tell variants of a sweep apart.

    `training` and `needs` are None where the config is wrong, `needs` also where no GPU is named. `changes` only with
    `--dry-run`. `steps_per_epoch` counts only datasets that were all looked at.
    """

    name: str
    settings: str
    training: Mapping[str, Any] | None
    needs: NeedsView | None
    steps_per_epoch: float | None
    epochs: float | None
    datasets: tuple[DatasetView, ...]
    changes: tuple[ValueChange, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainChecked:
    """All that is known before anything is paid for. `form` is native or short; `can_fix`: `--fix` mends some of it."""

    config: str
    form: str
    problems: tuple[ProblemView, ...]
    plans: tuple[TrainPlan, ...]
    can_fix: bool
    error: Mapping[str, Any] | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class TrainFixed:
    """`written` is the corrected copy, None where nothing was to be mended or nothing was to be written. `problems` are
    those of the corrected config.
    """

    config: str
    written: str | None
    changes: tuple[ValueChange, ...]
    notes: tuple[str, ...]
    problems: tuple[ProblemView, ...]
    error: Mapping[str, Any] | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class DatasetChecked:
    """`rules` says whose: the config's, or those of a model."""

    dataset: DatasetView
    rules: str
    problems: tuple[ProblemView, ...]
    error: Mapping[str, Any] | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class DatasetPushed:
    """A folder that was checked and sent. `path` is what a config says of it, `volume:/people`; `place`: where that is.

    Counts are of files; nothing was sent where `error` says that the check found problems.
    """

    path: str
    place: str
    dataset: DatasetView
    rules: str
    problems: tuple[ProblemView, ...]
    copied: int
    same: int
    deleted: int
    copied_bytes: int
    is_dry_run: bool
    error: Mapping[str, Any] | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One folder of the datasets volume, with all below it: at its top, or one of those named by their contents."""

    folder: str
    pictures: int
    videos: int
    captions: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetsListed:
    place: str
    datasets: tuple[DatasetRow, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TrainReport:
    """One training, with all that came of it. `training` is what its attempt says of itself (`training.supervisor`),
    None before it has ended; `published` are `{path, action, sha256, size_bytes}` on the models volume. `outputs` are
    the trained weights (kind `lora`) and samples (kind `sample`), where they were written.
    """

    run: RunView
    name: str
    settings: str
    training: Mapping[str, Any] | None
    published: tuple[Mapping[str, Any], ...]
    outputs: tuple[OutputFile, ...]
    folder: str | None
    receipt: str | None
    resumes: str | None
    """The run it went on from."""
    error: Mapping[str, Any] | None
    exit_code: int
    push: Mapping[str, Any] | None = None
    """What `--push` came to: a pair as in `sync`."""
    sheet: str | None = None
    """What `--eval` made."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The runs of a sweep. `page` compares them."""

    runs: tuple[TrainReport, ...]
    error: Mapping[str, Any] | None
    exit_code: int
    page: str | None = None
