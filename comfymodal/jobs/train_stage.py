"""What a training reads, where it can read and write: datasets are copied to the local disk, models stay.

A trainer writes its caches beside the pictures, and several runs may read one dataset at a time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import CancelledError, NotFoundError, TransferError
from comfymodal.jobs.contract import Place
from comfymodal.storage.names import inside
from comfymodal.training.config import KeyPath

REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Location:
    """One place of the config that names files. `at` is where the trainer is to find what lies in `source`."""

    path: KeyPath
    source: Path
    at: Path
    images: int | None
    """How many there are for the trainer to find; None where nobody counted."""


@dataclass(frozen=True, slots=True)
class Staging:
    """`locations` as they will be; `skips` are names of folders with a trainer's caches."""

    locations: tuple[Location, ...]
    skips: Collection[str]
    place: Place

    @property
    def texts(self) -> dict[KeyPath, str]:
        """What the config is to say, by path."""
        return {each.path: str(each.at) for each in self.locations}

    def bring(self) -> None:
        """Copy what is to be copied. Raises `NotFoundError`, `TransferError`, and `CancelledError` once asked to."""
        wanted = {each.at: each.source for each in self.locations}
        for source in wanted.values():
            if not source.exists():
                raise NotFoundError(
                    f"{source} is not there", hint="send the dataset again, or name another folder", path=str(source)
                )
        copies = {at: source for at, source in wanted.items() if at != source}
        if not copies:
            return
        self.place.emit({"type": "phase", "phase": "staging"})
        files = [pair for at, source in copies.items() for pair in _files(source, at, self.skips)]
        report = _Report(self.place, len(files))
        for source, at in files:
            if self.place.control() in ("stop", "abort"):
                raise CancelledError("stopped before the training began", hint="train again")
            report(_copy(source, at))


def plan_staging(job: Mapping[str, Any], place: Place, folder: Path, skips: Collection[str]) -> Staging:
    """Where everything will lie. `folder` is an empty one of a local disk; a job's `locations` are

    `{at: path in the config, from: {role, path} or {folder}, copies: true for datasets, images: count or null}`.

    Raises `SyncRefusedError` for a path that leads out of its volume.
    """
    sources = [_source(each["from"], place) for each in job.get("locations") or ()]
    # One folder that is named twice is copied once.
    numbers = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    return Staging(tuple(_locations(job, sources, numbers, folder)), skips, place)


def _locations(
    job: Mapping[str, Any], sources: Sequence[Path], numbers: Mapping[Path, int], folder: Path
) -> Iterator[Location]:
    for each, source in zip(job.get("locations") or (), sources, strict=True):
        # What a single file is called may matter; whatever a folder is called may lead a trainer astray.
        copied = folder / str(numbers[source]) / (source.name if source.is_file() else "files")
        yield Location(tuple(each["at"]), source, copied if each.get("copies") else source, each.get("images"))


def _source(data: Mapping[str, Any], place: Place) -> Path:
    if "folder" in data:
        return Path(data["folder"])
    return inside(place.volumes[str(data["role"])], str(data["path"]))


def _files(source: Path, at: Path, skips: Collection[str]) -> Iterator[tuple[Path, Path]]:
    if source.is_file():
        yield source, at
        return
    # As trainers look for them: not behind links to folders, nothing hidden.
    for root, folders, names in os.walk(source, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in skips)
        below = at / Path(root).relative_to(source)
        yield from ((Path(root, name), below / name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise TransferError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _copy(source: Path, at: Path) -> int:
    """Returns the bytes."""
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, at)
        return at.stat().st_size
    except OSError as exc:
        raise TransferError(
            f"cannot copy {source} to the local disk: {exc.strerror or exc}",
            hint="free some space there, or see why the file cannot be read",
        ) from exc


class _Report:
    """Turns copied files into events, two a second."""

    def __init__(self, place: Place, files: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._files, self._clock = place, files, clock
        self._done = self._bytes = 0
        self._at = -REPORT_EVERY_S

    def __call__(self, size: int) -> None:
        self._done, self._bytes = self._done + 1, self._bytes + size
        if self._done < self._files and self._clock() - self._at < REPORT_EVERY_S:
            return
        self._at = self._clock()
        told = {"files_done": self._done, "files": self._files, "done_bytes": self._bytes}
        self._place.emit({"type": "staged", **told})
