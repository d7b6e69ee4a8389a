"""Bring one model straight into a volume: from the web, or one file of a remote.

A restarted job goes on with what the first one left half-written beside the final name.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfymodal.errors import (
    CancelledError,
    ComfymodalError,
    ConflictError,
    NotFoundError,
    ServiceError,
    TransferError,
)
from comfymodal.files import write_json
from comfymodal.jobs.contract import JOB_FILE, VERSION, StoragePlace, run_folder
from comfymodal.storage.download import Download, Downloaded, Progress, Watch, give_name, hash_file
from comfymodal.storage.model_source import Source, look_up
from comfymodal.storage.names import OWN_FOLDER, inside
from comfymodal.storage.web import TryAgainError

CLOSING_S = 30.0
"""Before the deadline the download ends, so that what has come is committed."""

REPORT_EVERY_S = 0.5


def run(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    """Download the job's file; return the outcome. Failures are in it.

    job: `{version, kind: "download", run_id, role, path, source or remote, hashes, size_bytes, mounts, secrets,
    deadline_s, origin}`; `source` as `model_source.Source`, `remote` as `{end, file}`, `path` on the volume.
    outcome: `{version, run_id, status, result, error, started_at, ended_at}`; result: `{path, action: downloaded or
    already_there, size_bytes, sha256, verified, resumed_from_bytes, seconds}`.
    """
    started_at = time.time()
    status, result, error = "succeeded", None, None
    try:
        folder = run_folder(place.volumes, str(job["run_id"]))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JOB_FILE, job)
        result = {**_bring(job, place), "seconds": round(time.time() - started_at, 3)}
    except CancelledError as exc:
        status, error = "cancelled", exc.to_dict()
    except ComfymodalError as exc:
        status, error = "failed", exc.to_dict()
    except OSError as exc:
        where = f" {exc.filename}" if exc.filename else ""
        hint = "free some space, then run the same command: it goes on with what has come"
        status, error = "failed", TransferError(f"cannot write{where}: {exc.strerror or exc}", hint=hint).to_dict()
    return {
        "version": VERSION,
        "run_id": job["run_id"],
        "status": status,
        "result": result,
        "error": error,
        "started_at": started_at,
        "ended_at": time.time(),
    }


def _bring(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    role, path = str(job["role"]), str(job["path"])
    root = place.volumes[role]
    with place.lease(role):
        place.reload(role)
        root.mkdir(parents=True, exist_ok=True)
        target = inside(root, path)
        if target.is_dir():
            raise ConflictError(f"{path} is a folder", hint="give the file another name with --to", path=path)
        if os.path.lexists(target):
            return {"path": path, **_compare(job, place, target)}
        try:
            brought = _from_remote(job, place, target) if job.get("remote") else _from_web(job, place, target)
        except BaseException:
            # A later command goes on with what has come, wherever that one runs.
            place.commit(role)
            raise
        if not give_name(brought.file, target):
            raise ConflictError(
                f"{path} appeared while it was downloaded", hint="run the same command again", path=path
            )
        place.emit({"type": "phase", "phase": "commit"})
        place.commit(role)
    return {
        "path": path,
        "action": "downloaded",
        "size_bytes": brought.size_bytes,
        "sha256": brought.sha256,
        "verified": brought.verified,
        "resumed_from_bytes": brought.resumed_from_bytes,
    }


def _from_web(job: Mapping[str, Any], place: StoragePlace, target: Path) -> Downloaded:
    source = Source(**job["source"])
    _require_room(job, place, target)
    place.emit({"type": "phase", "phase": "download"})
    until = None if place.deadline is None else place.deadline - CLOSING_S
    watch = Watch(_Report(place, str(job["path"])), lambda: place.control() is not None, until)
    hashes = dict(job.get("hashes") or {})
    return Download(source, target, source.access(place.environ), watch, hashes, job.get("size_bytes")).run()


def _require_room(job: Mapping[str, Any], place: StoragePlace, target: Path) -> None:
    size = job.get("size_bytes")
    # A Modal volume tells figures that mean nothing.
    if size is None or place.volume_version(str(job["role"])) is not None:
        return
    part = target.with_name(f"{target.name}.partial")
    folder = next(each for each in target.parents if each.is_dir())
    needed = int(size) - (part.stat().st_size if part.is_file() else 0)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise TransferError(
            f"{job['path']} needs {needed} bytes more, and the disk of {folder} has {free} free",
            hint="free some space, or move the volume: volumes.models.path in comfymodal.yaml",
        )


class _Report:
    """Turns progress into events, a few a second."""

    def __init__(self, place: StoragePlace, name: str) -> None:
        self._place, self._name, self._at = place, name, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        is_end = progress.done_bytes == progress.total_bytes
        if now - self._at < REPORT_EVERY_S and not is_end:
            return
        self._at = now
        self._place.emit(
            {
                "type": "transfer",
                "done_bytes": progress.done_bytes,
                "total_bytes": progress.total_bytes or 0,
                "files_done": int(is_end),
                "files": 1,
                "names": [self._name],
                "speed": progress.speed,
            }
        )


def _compare(job: Mapping[str, Any], place: StoragePlace, target: Path) -> dict[str, Any]:
    """What is there under that name: the same file, or one that must not be overwritten."""
    path, size = str(job["path"]), target.stat().st_size
    hashes, expected_size = _expected(job, place)
    refusal = ConflictError(
        f"there is another {path} already ({size} bytes)",
        hint=f"choose another name with --to, or move that one to the trash: comfymodal models rm {path}",
        path=path,
    )
    if expected_size not in (None, size):
        raise refusal
    if not hashes:
        raise ConflictError(
            f"there is a {path} already, and no hash tells whether it is the same",
            hint=f"give --sha256, another name with --to, or: comfymodal models rm {path}",
            path=path,
        )
    place.emit({"type": "phase", "phase": "hashing"})
    found = hash_file(target, sorted({*hashes, "sha256"}), lambda: place.control() is not None)
    if any(found[name] != value.lower() for name, value in hashes.items()):
        raise refusal
    return {
        "action": "already_there",
        "size_bytes": size,
        "sha256": found["sha256"],
        "verified": True,
        "resumed_from_bytes": 0,
    }


def _expected(job: Mapping[str, Any], place: StoragePlace) -> tuple[dict[str, str], int | None]:
    hashes, size = dict(job.get("hashes") or {}), job.get("size_bytes")
    if hashes or job.get("remote"):
        return hashes, size
    try:
        found = look_up(Source(**job["source"]), place.environ)
    except TryAgainError as exc:
        raise ServiceError(exc.error.message, hint=exc.error.hint) from exc
    return dict(found.hashes), found.size_bytes or size


def _from_remote(job: Mapping[str, Any], place: StoragePlace, target: Path) -> Downloaded:
    """Copy into a folder of our own first: under its name in the bucket, and then under the one it is to have."""
    from comfymodal.jobs.sync import RCLONE_VARIABLE
    from comfymodal.storage.ends import RemoteEnd, end_from_dict
    from comfymodal.storage.keys import find_keys
    from comfymodal.storage.rclone.copying import Order, copy
    from comfymodal.storage.rclone.copying import Progress as CopyProgress
    from comfymodal.storage.rclone.find import find_rclone
    from comfymodal.storage.rclone.presets import choose_preset
    from comfymodal.storage.rclone.session import open_session
    from comfymodal.storage.values import Folder

    end, file = end_from_dict(job["remote"]["end"]), str(job["remote"]["file"])
    if not isinstance(end, RemoteEnd):
        raise TypeError(f"{end} is no remote")
    remote, role = end.remote, str(job["role"])
    rclone = find_rclone(place.environ.get(RCLONE_VARIABLE))
    session = open_session(rclone, {remote.name: (remote, find_keys(remote, place.environ))}, os.environ)
    place.emit({"type": "phase", "phase": "download"})
    arriving = place.volumes[role] / OWN_FOLDER / "arriving" / str(job["run_id"])
    folder = Folder(arriving, place.volume_version(role))
    size, report = job.get("size_bytes"), _Report(place, str(job["path"]))

    def on_progress(progress: CopyProgress) -> None:
        report(Progress(progress.bytes, size, progress.speed))

    try:
        arriving.mkdir(parents=True, exist_ok=True)
        order = Order(remote, folder, [file], choose_preset(remote, folder, [size or 0]))
        copied = copy(session, order, on_progress=on_progress, control=place.control)
        if copied.is_stopped:
            raise CancelledError("stopped; nothing is kept of a file that comes from a remote", hint="run it again")
        if copied.results[0].result == "missing":
            raise NotFoundError(f"{remote}/{file} is not there", hint="upper and lower case count")
        if copied.error is not None:
            raise copied.error
        target.parent.mkdir(parents=True, exist_ok=True)
        return _checked(job, arriving / file, target, place)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def _checked(job: Mapping[str, Any], arrived: Path, target: Path, place: StoragePlace) -> Downloaded:
    """The hash that the remote knows was compared by rclone; the one that the operator gave is compared here."""
    sha256 = hash_file(arrived, ("sha256",), lambda: place.control() is not None)["sha256"]
    expected = dict(job.get("hashes") or {}).get("sha256")
    if expected is not None and sha256 != expected.lower():
        raise TransferError(
            f"{job['path']} is not what it should be: its sha256 is {sha256}, expected was {expected}",
            hint="is it the right file, and the right hash? nothing of it was kept",
        )
    part = target.with_name(f"{target.name}.partial")
    arrived.replace(part)
    return Downloaded(part, part.stat().st_size, sha256, True, 0)
