"""What every place that runs jobs can do for the operator's side; nothing here knows which place it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Setup:
    """Something that must be installed or deployed once before a run; needs a yes.

    `declined_hint` after a no; `forbidden_hint` where it must not be done, as in a dry run.
    """

    summary: str
    details: tuple[str, ...]
    ask: str
    declined_hint: str
    forbidden_hint: str


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The ComfyUI a run would use. `how` says why this one."""

    version: str
    device: str
    how: str
    url: str | None


Freshness = Literal["current", "outdated", "unreachable"]


@dataclass(frozen=True, slots=True)
class KnownNodes:
    """All that an engine said about its nodes and its model files by folder, at `fetched_at` (Unix seconds).

    `outdated`: nodes or files changed since, and it can be started to be asked; `unreachable`: it is not ours and
    does not answer. `models_root` is where a missing model is to be put; None on somebody else's server.
    """

    comfyui_version: str
    device: str
    how: str
    object_info: Mapping[str, Mapping[str, Any]]
    model_files: Mapping[str, Sequence[str]]
    models_root: str | None
    fetched_at: float
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Look:
    """A glance at a run: what was said since the last one, how it ended if it did, and whether it still works.

    Neither alive nor with an outcome means that the place lost it.
    """

    seq: int
    events: tuple[Mapping[str, Any], ...]
    outcome: Mapping[str, Any] | None
    is_alive: bool


class Target(Protocol):
    """A place that runs jobs."""

    @property
    def name(self) -> str: ...

    @property
    def look_every_s(self) -> float:
        """How often `look` may be called while a run is followed."""

    def needed_setup(self, kind: str = "render") -> Setup | None:
        """What is missing before a job of this kind can run; free, changes nothing. Raises `NotReadyError`."""

    def set_up(self, on_event: OnEvent, kind: str = "render") -> None:
        """Do what `needed_setup` described; goes on where a killed one stopped."""

    def engine_facts(self, on_event: OnEvent) -> EngineFacts:
        """Make sure a ComfyUI is there to be asked; start it when it costs nothing. Raises `EngineDiedError`."""

    def object_info(self, class_types: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """`/object_info` entries of these classes; absent ones are unknown. Called after `engine_facts`."""

    def known_classes(self) -> Sequence[str]:
        """Every node class; for near matches only, because it is slow."""

    def model_files(self) -> Mapping[str, Sequence[str]]:
        """Model files by folder; for hints only, because it is slow. Called after `engine_facts`."""

    def look_again_for_models(self, on_event: OnEvent) -> bool:
        """Look where only a slow look finds models; whether there is another than before. After `engine_facts`."""

    @property
    def models_root(self) -> str | None:
        """Where a missing model is to be put; None where that is not ours. Right after `engine_facts`."""

    def known_nodes(self, *, may_ask: bool) -> KnownNodes | None:
        """What is known of the engine's nodes, newest first, without starting anything; None when nothing is.

        With `may_ask` an engine that runs is asked, unless what it said before still holds.
        """

    def put_input(self, source: Path, name: str) -> None:
        """Bring a file into the inputs volume unless one of that (content-hashed) name is there."""

    def submit(self, job: Mapping[str, Any]) -> str:
        """Start the job; return the call id, with which any process can find it again."""

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        """Glance at a run; events newer than `after` come with it."""

    def cancel(self, run_id: str, call_id: str, *, at_once: bool = False) -> None:
        """Ask the run to stop and keep what is finished. Returns at once.

        A training saves before it stops, unless that is to be `at_once`.
        """

    def results(self, run_id: str) -> Mapping[int, Mapping[str, Any]]:
        """What the run's manifest says so far, by prompt index."""

    def find_call(self, run_id: str) -> str | None:
        """The call id of a run whose submission was never noted; None when nobody took the job."""

    def job_of(self, run_id: str) -> Mapping[str, Any] | None:
        """The job of a run that another machine submitted; None when there is no such run."""

    def fetch(self, role: str, path: str, destination: Path, on_bytes: Callable[[int], None]) -> None:
        """Copy one file of a volume; an interrupted copy is gone on with. `on_bytes` hears how many bytes are there.

        Raises `NotFoundError` when there is no such file, and `TransferError`.
        """

    def files(self, role: str, folder: str) -> Mapping[str, int]:
        """Bytes of every file below a folder of a volume, by path on the volume; empty where there is none."""
