"""Puts what was trained among the models, each file with a note beside it of where it comes from.

Nothing is overwritten but what the same run put there before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import BusyError, ConflictError, TransferError
from comfymodal.files import read_json, write_json
from comfymodal.jobs.contract import StoragePlace
from comfymodal.storage.library import PARTIAL_SUFFIX, SIDECAR_SUFFIX
from comfymodal.storage.names import inside
from comfymodal.training.ai_toolkit.layout import list_samples
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.state import Checkpoint, StoredFile

ROLE = "models"
FOLDER = "loras"
VERSION = 1
"""Of the note; raised when an older reader would misread it."""

BUSY_PATIENCE_S = 120.0
"""For whoever writes to the models: a download ends sooner or later, and a GPU waits at a price."""

BUSY_AGAIN_S = 2.0
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Publication:
    """`store` is the run's folder on the training volume, `final` its last checkpoint."""

    job: Mapping[str, Any]
    store: Path
    final: Checkpoint

    def targets(self) -> Iterator[tuple[StoredFile, str]]:
        """Each file with its path on the models volume. A model in two halves has two."""
        wanted, trained_as = self.job["publish"], str(self.job["config"]["config"]["name"])
        for file in self.final.weights:
            end = file.name.removeprefix(trained_as)
            yield file, f"{wanted.get('folder') or FOLDER}/{wanted.get('name') or trained_as}{end}"

    def source(self, file: StoredFile) -> Path:
        return self.store / self.final.folder / file.name

    def note(self, file: StoredFile, path: str) -> dict[str, Any]:
        """JSON. `samples` are paths on the training volume."""
        values = read_values(dict(self.job["config"]))
        prompts = [prompt.text for prompt in values.sample_prompts]
        folder = str(self.job["folder"])
        return {
            "version": VERSION,
            "file": path.rpartition("/")[2],
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
            "run": {"run_id": self.job["run_id"], "folder": folder},
            "trigger": values.trigger_word,
            "base": {"model": values.base_model, "arch": values.arch},
            "steps": self.final.step,
            "rank": values.rank,
            "alpha": values.alpha,
            "trained_at": self.final.saved_at,
            "engine": values.engine,
            "datasets": [
                {"images": each.get("images"), "sha256": each.get("sha256")}
                for each in self.job.get("locations") or ()
                if each.get("copies")
            ],
            "samples": [
                {
                    "path": f"{folder}/{sample.path.relative_to(self.store).as_posix()}",
                    "step": sample.step,
                    "index": sample.index,
                    "prompt": prompts[sample.index] if sample.index < len(prompts) else None,
                }
                for sample in list_samples(self.store)
            ],
            "config": self.job["config"],
            "more": self.job["publish"].get("more") or {},
        }


def publish(publication: Publication, place: StoragePlace) -> list[dict[str, Any]]:
    """Copy the weights, write the notes, commit; `[{path, action: published|already_there, sha256, size_bytes}]`.

    Doing it again changes nothing and completes what was cut off. Raises `ConflictError`, `BusyError`,
    `TransferError`, `SyncRefusedError` and what `commit` raises.
    """
    place.emit({"type": "phase", "phase": "publishing"})
    with _leased(place):
        place.reload(ROLE)
        root = place.volumes[ROLE]
        try:
            done = [_publish_one(publication, root, file, path) for file, path in publication.targets()]
        except OSError as exc:
            where = f" {exc.filename}" if exc.filename else ""
            raise TransferError(f"cannot write{where}: {exc.strerror or exc}", hint="free some space") from exc
        place.commit(ROLE)
    for each in done:
        place.emit({"type": "published", **each})
    return done


def _publish_one(publication: Publication, root: Path, file: StoredFile, path: str) -> dict[str, Any]:
    target = inside(root, path)
    sidecar = target.with_name(f"{target.name.removesuffix(target.suffix)}{SIDECAR_SUFFIX}")
    action = "already_there"
    if not os.path.lexists(target) or not _is_same(target, file):
        if os.path.lexists(target):
            _require_own(target, sidecar, publication, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(publication.source(file), target, file)
        action = "published"
    # Written last: what is told of weights is never of those that were there before.
    write_json(sidecar, publication.note(file, path), indent=1)
    return {"path": path, "action": action, "sha256": file.sha256, "size_bytes": file.size_bytes}


def _require_own(target: Path, sidecar: Path, publication: Publication, path: str) -> None:
    """An earlier result of the same run may be replaced: its checkpoint stays with the run."""
    note = read_json(sidecar) or {}
    is_own = (note.get("run") or {}).get("folder") == publication.job["folder"]
    if not (is_own and target.is_file() and note.get("sha256") == _hash(target)):
        raise ConflictError(
            f"there is another {path} among the models",
            hint=f"publish it under another name, or move that one to the trash: comfymodal models rm {path}",
            path=path,
        )


def _is_same(target: Path, file: StoredFile) -> bool:
    return target.is_file() and target.stat().st_size == file.size_bytes and _hash(target) == file.sha256


def _copy(source: Path, target: Path, file: StoredFile) -> None:
    part, digest = target.with_name(f"{target.name}{PARTIAL_SUFFIX}"), hashlib.sha256()
    try:
        with source.open("rb") as read, part.open("wb") as write:
            while chunk := read.read(_COPY_BYTES):
                write.write(chunk)
                digest.update(chunk)
            write.flush()
            os.fsync(write.fileno())
        if digest.hexdigest() != file.sha256:
            raise TransferError(f"{source} is not as it was stored", hint="train again: it goes on from the one before")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _leased(place: StoragePlace) -> Iterator[None]:
    give_up_at = time.monotonic() + BUSY_PATIENCE_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(place.lease(ROLE))
                break
            except BusyError:
                is_late = place.deadline is not None and time.time() + BUSY_AGAIN_S > place.deadline
                if is_late or time.monotonic() > give_up_at or place.control() in ("stop", "abort"):
                    raise
            place.emit({"type": "phase", "phase": "waiting_for_models"})
            time.sleep(BUSY_AGAIN_S)
        yield
