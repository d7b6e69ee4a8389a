"""What the commands about running containers return. Field names are the keys of `--json`: adding one is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Does = Literal["runs", "warm", "minimum", "idle", "starting", "inspects", "keeps warm"]
Deployed = Literal["current", "differs", "unfinished", "no"]


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container that Modal bills, and why it lives. Dollars are strings; null: the price is not known."""

    id: str
    app: str
    does: Does
    why: str
    run_id: str | None
    gpu: str | None
    started_at: str | None
    age_s: float | None
    usd_per_hour: str | None
    per_hour: str | None


@dataclass(frozen=True, slots=True)
class DriftView:
    """A key of the project file that says something else than what is deployed; `effect` of the next deploy."""

    key: str
    deployed: str
    wanted: str
    effect: str


@dataclass(frozen=True, slots=True)
class StartView:
    """Median seconds from a submission to its first node, of so many runs."""

    seconds: float
    runs: int


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """`deployed` says whether the project file is what is deployed; `unfinished`: a deploy was not found sound.

    `drift` is empty also when nobody noted what was deployed. `cold`: in a container's first run; `warm`: in a later.
    """

    app: str
    deployed: Deployed
    deployed_at: str | None
    drift: tuple[DriftView, ...]
    containers: tuple[ContainerView, ...]
    usd_per_hour: str
    per_hour: str
    warm_until: str | None
    is_warm_overdue: bool
    cold: StartView | None
    warm: StartView | None
    end_command: str | None


@dataclass(frozen=True, slots=True)
class FleetStopped:
    """`asked` are runs that were asked to stop, `unfinished` those of them that had not ended when the apps were."""

    apps: tuple[str, ...]
    containers: tuple[ContainerView, ...]
    per_hour: str
    asked: tuple[str, ...]
    unfinished: tuple[str, ...]
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class KeptWarm:
    """`cost_usd` is what keeping it up for so long costs at most; `replaced`: another end was set before."""

    until: str
    gpu: str
    containers: int
    cost_usd: str
    cost: str
    per_hour: str
    replaced: bool
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class WarmthEnded:
    """`until` is when it would have ended; null: nothing was kept warm."""

    until: str | None
    scaledown_window_s: float
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class LogLineView:
    """`at` and `container_id` are null in a log that was kept: it has no times."""

    at: str | None
    container_id: str | None
    source: str | None
    text: str


@dataclass(frozen=True, slots=True)
class LogShown:
    """`origin`: Modal's log, or the file that the run kept beside its outputs."""

    run_id: str | None
    origin: Literal["modal", "kept"]
    lines: tuple[LogLineView, ...]


@dataclass(frozen=True, slots=True)
class ShellPlan:
    """The command that opens a shell; `container_id` null: in a container of its own."""

    argv: tuple[str, ...]
    container_id: str | None
    run_id: str | None
    per_hour: str
    ends: str
    notes: tuple[str, ...]
