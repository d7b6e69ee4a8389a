"""Where what a training config names lies for the run that reads it, and which of it has to be sent there first.

On this machine everything stays where it is. On Modal what is here goes to the datasets volume, each under the hash of
what it holds: a picture more is another folder, nobody's run is changed under it, nothing is sent twice. A dataset is
`sets/HASH` with exactly the files that training reads of it; any other file or folder (control pictures, a LoRA to go
on from, a model that is on no volume) is `files/HASH/NAME`. HASH is the first 16 digits of the SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import InputFileError, TrainingConfigError
from comfymodal.operations.desk import Desk
from comfymodal.operations.train_datasets import Looked
from comfymodal.training.ai_toolkit.layout import CACHE_FOLDERS
from comfymodal.training.ai_toolkit.paths import Found
from comfymodal.training.ai_toolkit.subject import Subject
from comfymodal.training.config import KeyPath
from comfymodal.training.dataset import DatasetFile
from comfymodal.training.dataset_report import DatasetReport, fingerprint

ROLE = "datasets"
SETS, FILES = "sets", "files"
"""Folders on the datasets volume whose contents are named by their hash."""

HASH_DIGITS = 16

_NOT_SENT = CACHE_FOLDERS | {"_controls"}
"""What a trainer left in a folder; it makes them again, as its config of today wants them."""

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SentFile:
    """One file of this machine and what it is called below the folder it is sent to."""

    path: str
    source: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Send:
    """A folder of the datasets volume, by hash, and the files of this machine that it is to hold."""

    source: Path
    """The folder or the file as the operator knows it."""
    folder: str
    """On the volume: `sets/0123456789abcdef`."""
    sha256: str
    files: tuple[SentFile, ...] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Placed:
    """`locations` as `jobs.train_stage` takes them; `mounts`: roles they are on; `sends`: what is to go there first."""

    locations: tuple[Mapping[str, Any], ...]
    mounts: tuple[str, ...]
    sends: tuple[Send, ...]

    @property
    def texts(self) -> dict[KeyPath, str]:
        """What the config may say meanwhile; the job puts in where it finds them."""
        return {tuple(each["at"]): _text(each["from"]) for each in self.locations}


@dataclass(slots=True)
class Hashes:
    """What was read of files that no report has: runs of a sweep share them, and a model of gigabytes takes seconds,
    while the desk hears how far it is. Mutable; lives as long as one command.
    """

    desk: Desk
    known: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    """By path, size and time of change."""

    def read(self, folder: Path, paths: Iterable[str]) -> Iterator[DatasetFile]:
        """Raises `InputFileError`."""
        try:
            states = {path: (folder / path).stat() for path in paths}
            total, before = sum(state.st_size for state in states.values()), 0
            for path, state in states.items():
                key = (folder / path, state.st_size, state.st_mtime_ns)
                if key not in self.known:
                    self.known[key] = hash_file(folder / path, self._teller(path, before, total))
                before += state.st_size
                yield DatasetFile("media", folder, path, state.st_size, self.known[key])
        except OSError as exc:
            raise InputFileError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc

    def _teller(self, path: str, before: int, total: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            told = {"done_bytes": before + done, "total_bytes": total, "name": path}
            self.desk.event({"type": "hashing", **told})

        return tell


def place_files(looked: Looked, subject: Subject, target: str, hashes: Hashes) -> Placed:
    """Settle where each path of a checked config lies for a run on `target`. Reads what nobody has hashed yet.

    Raises `TrainingConfigError` for a path that names a whole volume, `InputFileError` for a file that cannot be read.
    """
    sends: dict[str, Send] = {}
    locations: list[dict[str, Any]] = []
    for found in looked.paths:
        if found.kind not in ("local", "volume"):
            continue
        report = _report_of(found, looked, subject)
        images, sha256 = (len(report.items), report.sha256) if report and _is_main(found, report) else (None, None)
        where: dict[str, str] = {"folder": found.at}
        if found.kind == "volume":
            where = _on_volume(found, subject)
        elif target != "local":
            send, where = _sent(found, report, hashes)
            sends[send.folder] = send
            sha256 = sha256 or send.sha256
        locations.append(
            {
                "at": list(found.use.path),
                "from": where,
                "copies": found.use.purpose == "dataset",
                "images": images,
                "sha256": sha256,
            }
        )
    roles = dict.fromkeys(each["from"]["role"] for each in locations if "role" in each["from"])
    return Placed(tuple(locations), tuple(roles), tuple(sends.values()))


def files_below(folder: Path) -> Iterator[str]:
    """POSIX paths of what is worth sending of a folder: nothing hidden, no caches of a trainer, not behind links to
    folders. Raises `InputFileError` for one that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputFileError(f"cannot read {error.filename}: {error.strerror or error}") from error

    for root, names, files in os.walk(folder, onerror=refuse):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _NOT_SENT)
        below = Path(root).relative_to(folder)
        yield from ((below / name).as_posix() for name in sorted(files) if not name.startswith("."))


def _text(where: Mapping[str, str]) -> str:
    return where["folder"] if "folder" in where else f"/{where['role']}/{where['path']}"


def _on_volume(found: Found, subject: Subject) -> dict[str, str]:
    role, _, path = found.at.partition(":/")
    if not path:
        raise TrainingConfigError(
            f"{subject.where(found.use.path)}: {found.use.text} is a whole volume", hint=f"name a folder: {role}:/NAME"
        )
    return {"role": role, "path": path}


def _is_main(found: Found, report: DatasetReport) -> bool:
    """Whether it is where the pictures are, not what lies beside them: masks, controls."""
    is_here = found.kind == "volume" or Path(found.at) == report.settings.folder
    return is_here and found.use.path[-1] in ("folder_path", "dataset_path")


def _report_of(found: Found, looked: Looked, subject: Subject) -> DatasetReport | None:
    for (index, _), report in zip(subject.datasets, looked.reports, strict=True):
        at = subject.at(f"datasets[{index}]")
        if found.use.path[: len(at)] == at:
            return report
    return None


def _sent(found: Found, report: DatasetReport | None, hashes: Hashes) -> tuple[Send, dict[str, str]]:
    source = Path(found.at)
    own = [file for file in report.files if file.folder == source] if report else []
    if own:
        # Of a folder that was looked at exactly what is read: whatever else lies there stays here.
        send = _send(source, SETS, own)
        return send, {"role": ROLE, "path": send.folder}
    is_folder = source.is_dir()
    paths = list(files_below(source)) if is_folder else [source.name]
    files = list(hashes.read(source if is_folder else source.parent, paths))
    if is_folder and found.use.purpose == "dataset":
        send = _send(source, SETS, files)
        return send, {"role": ROLE, "path": send.folder}
    # What a model's file or folder is called may matter to who loads it.
    prefix = f"{source.name}/" if is_folder else ""
    send = _send(source, FILES, files, prefix)
    return send, {"role": ROLE, "path": f"{send.folder}/{source.name}"}


def _send(source: Path, top: str, files: Sequence[DatasetFile], prefix: str = "") -> Send:
    if not files:
        raise InputFileError(f"there is nothing to send in {source}", hint="hidden files and caches are not sent")
    sha256 = fingerprint(files)
    # A caption that two pictures share is one file.
    unique = {file.path: file for file in files}
    sent = tuple(
        SentFile(f"{prefix}{path}", file.folder / path, file.size_bytes, file.sha256) for path, file in unique.items()
    )
    return Send(source, f"{top}/{sha256[:HASH_DIGITS]}", sha256, sent)


_TELL_EVERY = 256
"""Blocks."""


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file. Raises `OSError`."""
    digest, done, blocks = hashlib.sha256(), 0, 0
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
            done, blocks = done + len(block), blocks + 1
            if on_bytes is not None and blocks % _TELL_EVERY == 0:
                on_bytes(done)
    return digest.hexdigest()
