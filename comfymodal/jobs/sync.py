"""Bring one pair of places up to date: a remote and a volume, two volumes, a folder and a volume.

A restarted job is a new look at both sides: what the first one finished is in step, the rest is copied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from comfymodal.errors import CancelledError, ComfymodalError, ConflictError, PartialError, TransferError
from comfymodal.files import write_json
from comfymodal.jobs.contract import API_OWNER, JOB_FILE, VERSION, StoragePlace, run_folder
from comfymodal.storage.actions import Action, Plan, Rules
from comfymodal.storage.ends import ApiEnd, End, FolderEnd, RemoteEnd, VolumeEnd, end_from_dict
from comfymodal.storage.filters import Filter
from comfymodal.storage.folder_side import FolderSide
from comfymodal.storage.keys import find_keys
from comfymodal.storage.mover import RcloneMover
from comfymodal.storage.names import stamp_of
from comfymodal.storage.rclone.find import find_rclone
from comfymodal.storage.rclone.presets import Limits
from comfymodal.storage.rclone.session import Session, open_session
from comfymodal.storage.remote_side import RemoteSide
from comfymodal.storage.settle import PathResult
from comfymodal.storage.side import Mover, Side
from comfymodal.storage.sync import Approved, Sync, Wish, summary_of

CLOSING_S = 30.0
"""Before the deadline copying ends, so that what has arrived is recorded."""

RCLONE_VARIABLE = "COMFYMODAL_RCLONE"
"""Path of the rclone to use; without it the one installed beside us, then the one on PATH."""

Mode = Literal["run", "plan", "status"]


def run(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    """Sync the job's pair, or only say what that would do; return the outcome. Failures are in it.

    job: `{version, kind: "sync", run_id, mode: run|plan|status, is_verify, pair: {name, from, to}, here, there,
    direction, rules: {delete, prefer, allow_empty, include, exclude}, limits: {transfers, bwlimit},
    approved: {here, there, force} or null, host, mounts, secrets, deadline_s, origin}`; ends as in `storage.ends`.
    outcome: `{version, run_id, status, mode, pair, here, there, plan, paths, copied_files, copied_bytes, rclone_s,
    error, started_at, ended_at}`.
    """
    outcome = _Outcome(job, time.time())
    try:
        folder = run_folder(place.volumes, str(job["run_id"]))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JOB_FILE, job)
        _sync(job, place, outcome)
    except ComfymodalError as exc:
        outcome.fail(exc)
    except OSError as exc:
        where = f" {exc.filename}" if exc.filename else ""
        outcome.fail(
            TransferError(
                f"cannot write{where}: {exc.strerror or exc}",
                hint="free some space, then run it again: it goes on with what is missing",
            )
        )
    return outcome.to_dict()


def _sync(job: Mapping[str, Any], place: StoragePlace, outcome: _Outcome) -> None:
    here, there = end_from_dict(job["here"]), end_from_dict(job["there"])
    outcome.here, outcome.there = str(here), str(there)
    session = _session((here, there), place)
    mover: Mover = RcloneMover(session, _limits(job), None if place.deadline is None else place.deadline - CLOSING_S)
    far: Side
    if isinstance(there, ApiEnd):
        far, mover = place.side_of(job["there"])
    else:
        far = _side(there, place, session, is_far=True)
    near = _side(here, place, session)
    if not isinstance(near, FolderSide):
        raise TypeError(f"{here} cannot keep the base")
    sync = Sync(near, far, mover, _wish(job), place.emit, place.control)
    outcome.sync = sync
    roles = [end.role for end in (here, there) if isinstance(end, VolumeEnd)]
    if job["mode"] != "run":
        _reload(roles, place)
        outcome.plan = sync.look()
        outcome.actions = outcome.plan.actions
        return
    # Also the lease of the other volume, if it is one: a two-way pair writes to both.
    # Two folders of one volume have one lease.
    owners = list(dict.fromkeys(_owner(end, place) for end in (here, there) if not isinstance(end, RemoteEnd)))
    if not isinstance(there, VolumeEnd) and job["direction"] == "pull":
        # A folder that is only read may lie on a disk that cannot be written to.
        owners = owners[:1]
    with place.lease(owners[0]), place.lease(owners[1]) if len(owners) > 1 else nullcontext():
        # What the last holder committed.
        _reload(roles, place)
        outcome.plan = sync.look()
        outcome.plan, outcome.results = sync.run(outcome.plan)


def _reload(roles: Sequence[str], place: StoragePlace) -> None:
    for role in roles:
        place.reload(role)


class _Outcome:
    """What the job has to say, whenever it ends."""

    def __init__(self, job: Mapping[str, Any], started_at: float) -> None:
        self._job, self._started_at = job, started_at
        self.here = self.there = ""
        self.sync: Sync | None = None
        self.plan: Plan | None = None
        self.actions: tuple[Action, ...] = ()
        self.results: tuple[PathResult, ...] = ()
        self._error: ComfymodalError | None = None

    def fail(self, error: ComfymodalError) -> None:
        self._error = error

    def to_dict(self) -> dict[str, Any]:
        status, error = self._verdict()
        directions = {action.path: action.direction for action in self.plan.actions} if self.plan else {}
        paths = [action.to_dict() for action in self.actions]
        paths += [{**result.to_dict(), "direction": directions.get(result.path)} for result in self.results]
        copied = [result for result in self.results if result.result == "copied"]
        return {
            "version": VERSION,
            "run_id": self._job["run_id"],
            "status": status,
            "mode": self._job["mode"],
            "pair": self._job["pair"],
            "here": self.here,
            "there": self.there,
            "plan": summary_of(self.plan) if self.plan else None,
            "paths": paths,
            "copied_files": len(copied),
            "copied_bytes": sum(result.size_bytes for result in copied),
            "rclone_s": round(self.sync.moving_s, 3) if self.sync else 0.0,
            "error": error.to_dict() if error else None,
            "started_at": self._started_at,
            "ended_at": time.time(),
        }

    def _verdict(self) -> tuple[str, ComfymodalError | None]:
        if isinstance(self._error, CancelledError):
            return "cancelled", self._error
        if self._error is not None:
            return "failed", self._error
        if self.sync is None or self._job["mode"] != "run":
            return "succeeded", None
        if self.sync.fatal is not None:
            return "failed", self.sync.fatal
        if self.sync.is_stopped and any(_is_undone(result) for result in self.results):
            return "cancelled", None
        return _judge(self.results, self.sync.error)


def _judge(results: tuple[PathResult, ...], why: ComfymodalError | None) -> tuple[str, ComfymodalError | None]:
    failed = [result for result in results if result.result == "failed"]
    conflicts = [result for result in results if result.result == "conflict"]
    if failed:
        first = failed[0]
        told = f"{len(failed)} of {_files(len(results))} failed: {first.path!r}: {first.why}"
        hint = "run it again: what is finished is kept"
        if conflicts or any(result.result in ("copied", "deleted") for result in results) or why is None:
            return "partial", PartialError(f"not everything was done; {told}", hint=hint)
        return "failed", why
    if conflicts:
        first = conflicts[0]
        return "partial", ConflictError(
            f"{_files(len(conflicts))} in conflict and left alone: {first.path!r}: {first.why}",
            hint="choose a side with --prefer here, there or both (both keeps the other under a second name)",
        )
    return "succeeded", None


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def _is_undone(result: PathResult) -> bool:
    return result.result == "failed"


def _session(ends: tuple[End, ...], place: StoragePlace) -> Session:
    found = [end.remote for end in ends if isinstance(end, RemoteEnd)]
    remotes = {remote.name: (remote, find_keys(remote, place.environ)) for remote in found}
    return open_session(find_rclone(place.environ.get(RCLONE_VARIABLE)), remotes, os.environ)


def _side(end: End, place: StoragePlace, session: Session, *, is_far: bool = False) -> FolderSide | RemoteSide:
    if isinstance(end, RemoteEnd):
        return RemoteSide(session, end.remote)
    if isinstance(end, VolumeEnd):
        root, role = place.volumes[end.role], end.role
        # By its path in a container a volume would be another one than by its name elsewhere.
        identity = f"volume:{end.role}:/{end.path}"
        if is_far:
            # The record lies here: it must not be taken for that of another volume which has the role now.
            identity += f" in {place.volume_name(role)}"
        return FolderSide(session, root, end.path, identity, lambda: place.commit(role), place.volume_version(end.role))
    if isinstance(end, FolderEnd):
        return FolderSide(session, Path(end.path), "", end.path, lambda: None)
    raise TypeError(f"{end} is reached by an API only")


def _owner(end: VolumeEnd | FolderEnd | ApiEnd, place: StoragePlace) -> str:
    if isinstance(end, ApiEnd):
        return f"{API_OWNER}{end.environment or ''}/{end.name}"
    if isinstance(end, VolumeEnd):
        return end.role
    # A folder in a volume of this machine is that volume's, by whichever name it was reached.
    folder = Path(end.path).resolve()
    roles = (role for role, root in place.volumes.items() if folder.is_relative_to(root.resolve()))
    return next(roles, end.path)


def _wish(job: Mapping[str, Any]) -> Wish:
    rules, now = job["rules"], time.time()
    approved = job.get("approved") or {}
    stamp = stamp_of(now)
    return Wish(
        rules=Rules(
            direction=job["direction"],
            delete=bool(rules.get("delete")),
            prefer=rules.get("prefer"),
            allow_empty=bool(rules.get("allow_empty")),
            filter=Filter(tuple(rules.get("include") or ()), tuple(rules.get("exclude") or ())),
            conflict_mark=f"conflict-{job.get('host') or 'unknown'}-{stamp}",
        ),
        # A bucket is not ours alone: two runs of one second must not put their files over each other in its trash.
        stamp=f"{stamp}-{str(job['run_id']).rpartition('-')[2]}",
        is_verify=bool(job.get("is_verify")),
        reads_files=job["mode"] != "status",
        approved=Approved(
            frozenset(approved.get("here") or ()),
            frozenset(approved.get("there") or ()),
            is_forced=bool(approved.get("force")),
        ),
    )


def _limits(job: Mapping[str, Any]) -> Limits:
    limits = job.get("limits") or {}
    return Limits(transfers=limits.get("transfers"), bwlimit=limits.get("bwlimit"))
