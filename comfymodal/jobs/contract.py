"""What crosses between the operator's side and a job: plain JSON down, events up, control down; nothing else.

A job is `run(job: dict, place: Place) -> dict`. It runs unchanged in a process of this machine and in a
Modal container, so this module and everything `jobs` imports load with the standard library alone.
Failures of a job are returned in its outcome, never raised: an exception means the infrastructure failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from comfymodal.storage.side import Mover, Side

API_OWNER = "modal:"
"""Before the names of volumes that are not mounted, where a lease is asked for."""

VERSION = 1
"""Raised when a job, event or outcome changes in a way an older reader would misread."""

RUNS_FOLDER = "runs"
"""Folder on the outputs volume with one folder per run, named by the run id."""

JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
OUTCOME_FILE = "outcome.json"
MANIFEST_FILE = "manifest.jsonl"
"""One line per finished prompt, appended: a batch of thousands is not rewritten for each."""

SNAPSHOT_EVENTS = 100
"""How many of the newest events a snapshot carries; a reader that slept longer still has the state."""

Control = Literal["stop", "save", "abort"]
"""`stop`: keep what there is, then end; `abort`: end now, keep what is kept already (only trainings tell them apart);
`save`: keep what there is, and go on.
"""


class Engine(Protocol):
    """A ComfyUI server that answers, whoever started it."""

    @property
    def url(self) -> str:
        """Base address without a trailing slash, e.g. `http://127.0.0.1:8188`."""

    def death(self) -> str | None:
        """Why the server is gone, with its last log lines; None while it lives or when that cannot be known.

        Called when a request fails or an answer looks as if the server restarted.
        """

    def folder_of(self, kind: str) -> Path | None:
        """Where the server keeps its `output` or `temp` files, when this place can read them; None: ask the server."""

    def log_position(self) -> int:
        """Where the server's log ends now, in bytes; 0 for a server whose log cannot be read."""

    def log_since(self, position: int) -> str:
        """What the server logged after `position`; empty for a server whose log cannot be read."""


class Place(Protocol):
    """All that differs between a container and this machine. Job code never asks where it runs."""

    @property
    def volumes(self) -> Mapping[str, Path]:
        """Folders by role: `models`, `inputs`, `outputs`; where files are moved also `datasets`, `training`."""

    @property
    def deadline(self) -> float | None:
        """Unix time at which the job must have stopped by itself; None without a limit."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Hand one event up. Only buffers, never blocks on a network; one thread delivers."""

    def commit(self, volume: str) -> None:
        """Make what was written to the volume durable and visible. Called with no file open on it."""

    def reload(self, volume: str) -> None:
        """See what others committed to the volume. Called with no file open on it."""

    def control(self) -> Control | None:
        """What the operator asked for last: after `save` may come `stop`, then `abort`. Cheap: twice a second."""

    def engine(self) -> Engine:
        """A ComfyUI that answers, started when needed. Raises `EngineDiedError` or `NotReadyError`."""


class StoragePlace(Place, Protocol):
    """A place where files are moved between volumes, folders and buckets."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Where keys of remotes and tokens are looked for. Never part of an event, an outcome or a log."""

    @property
    def is_leaving(self) -> bool:
        """Whether this place is being taken away, and the same job will be run on in another one: then `control` says
        `stop`, and nobody asked for it.
        """

    def lease(self, owner: str) -> AbstractContextManager[None]:
        """Be the only writer while the block runs: of a volume (by role), of a folder (by absolute path), or of a
        volume behind Modal's API (`modal:<environment>/<name>`).

        Raises `BusyError` when somebody else is; a holder that died does not count.
        """

    def volume_version(self, volume: str) -> int | None:
        """1 or 2 of a mounted volume; None for a folder of this machine."""

    def volume_name(self, volume: str) -> str:
        """Which volume has the role: its name, or its folder on this machine."""

    def side_of(self, volume: Mapping[str, Any]) -> tuple[Side, Mover]:
        """A Modal volume that is not mounted here, through Modal's API, and what copies to and from it.

        `volume` is a `storage.ends.ApiEnd` as JSON.

        Raises `NotReadyError` where there is no Modal to ask.
        """


def heard(before: Control | None, word: str | None) -> Control | None:
    """What `control` says after this word of the operator's: a stop stays, unless it is to be at once."""
    if word == "abort" or before == "abort":
        return "abort"
    if word == "save" and before != "stop":
        return "save"
    return "stop" if word and word != "save" else before


def run_folder(place_volumes: Mapping[str, Path], run_id: str) -> Path:
    """The run's folder on the outputs volume."""
    return place_volumes["outputs"] / RUNS_FOLDER / run_id
