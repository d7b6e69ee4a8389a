"""Small changes in a volume or a remote: to the trash and back, under another name, and out of the trash for good."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from comfymodal.errors import (
    ComfymodalError,
    ConflictError,
    NotFoundError,
    PartialError,
    TransferError,
    error_from_dict,
)
from comfymodal.jobs.contract import VERSION, StoragePlace
from comfymodal.storage import trash
from comfymodal.storage.ends import RemoteEnd, end_from_dict
from comfymodal.storage.names import inside, stamp_of
from comfymodal.storage.values import Remote

Item = Mapping[str, Any]
Result = dict[str, Any]


def run(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    """Do what the job's `action` says with each of its `items`; return the outcome. Failures are in it.

    job: `{version, kind: "tidy", run_id, action: trash|move|restore|empty|list, role or remote, items, mounts, secrets,
    deadline_s, origin}`; items: `{path, size_bytes}`, for move also `to`, for restore and empty also `stamp`; `remote`
    is an end as in `storage.ends`, of which only restore, empty and list are known.
    outcome: `{version, run_id, status, result, error, started_at, ended_at}`; result: `{action, stamp, files,
    size_bytes, paths: [{path, stamp, result: trashed|moved|restored|deleted|listed|failed|skipped, size_bytes, to,
    error}]}`.
    """
    started_at = time.time()
    paths: list[Result] = []
    error: ComfymodalError | None = None
    stamp = stamp_of(started_at)
    try:
        # One by one: what was done before an error is told as well.
        for result in _in_remote(job, place) if job.get("remote") else _in_volume(job, place, stamp):
            paths.append(result)
    except ComfymodalError as exc:
        error = exc
    except OSError as exc:
        error = TransferError(f"cannot write {exc.filename or ''}: {exc.strerror or exc}")
    status, error = _verdict(paths, error)
    done = [each for each in paths if not each.get("error") and each["result"] != "skipped"]
    return {
        "version": VERSION,
        "run_id": job["run_id"],
        "status": status,
        "result": {
            "action": job["action"],
            "stamp": stamp if job["action"] == "trash" else None,
            "files": len(done),
            "size_bytes": sum(int(each["size_bytes"] or 0) for each in done),
            "paths": paths,
        },
        "error": error.to_dict() if error else None,
        "started_at": started_at,
        "ended_at": time.time(),
    }


def _verdict(paths: Sequence[Result], error: ComfymodalError | None) -> tuple[str, ComfymodalError | None]:
    failed = [each for each in paths if each.get("error")]
    if error is None and not failed:
        return ("cancelled" if any(each["result"] == "skipped" for each in paths) else "succeeded"), None
    if error is not None or len(failed) == len(paths):
        first = error or error_from_dict(failed[0]["error"])
        return "failed", first
    told = f"{len(failed)} of {len(paths)} files: {failed[0]['path']!r}: {failed[0]['error']['message']}"
    return "partial", PartialError(f"not everything was done; {told}", hint=failed[0]["error"].get("hint"))


def _in_volume(job: Mapping[str, Any], place: StoragePlace, stamp: str) -> Iterator[Result]:
    role, action = str(job["role"]), str(job["action"])
    root = place.volumes[role]
    acts: dict[str, Callable[[Item], Result]] = {
        "trash": lambda item: _put_away(root, item, stamp),
        "move": lambda item: _move(root, item),
        "restore": lambda item: _restore(root, item),
        "empty": lambda item: _delete(root, item),
    }
    act = acts[action]
    with place.lease(role):
        place.reload(role)
        place.emit({"type": "phase", "phase": action})
        for item in job["items"]:
            yield _done(act, item, place)
        place.emit({"type": "phase", "phase": "commit"})
        place.commit(role)


def _done(act: Callable[[Item], Result], item: Item, place: StoragePlace) -> Result:
    about = {"path": item["path"], "size_bytes": item.get("size_bytes"), "stamp": item.get("stamp")}
    if place.control() is not None:
        return {**about, "result": "skipped"}
    try:
        return {**about, **act(item)}
    except ComfymodalError as exc:
        return {**about, "result": "failed", "error": exc.to_dict()}
    except OSError as exc:
        error = TransferError(f"cannot move {item['path']!r}: {exc.strerror or exc}")
        return {**about, "result": "failed", "error": error.to_dict()}


def _put_away(root: Path, item: Item, stamp: str) -> Result:
    path = str(item["path"])
    place = inside(root, path)
    if not os.path.lexists(place):
        raise NotFoundError(f"there is no {path} any more", hint="comfymodal models list", path=path)
    size, expected = place.lstat().st_size, item.get("size_bytes")
    # A link goes there as a link: its own size is that of a name.
    if expected is not None and size != expected and not place.is_symlink():
        raise ConflictError(
            f"{path} is no longer what it was: it has {size} bytes, not {expected}; it was left alone",
            hint="run the same command again",
            path=path,
        )
    name = trash.put_away(root, path, stamp)
    _remove_empty_parents(root, place)
    return {"result": "trashed", "to": name, "stamp": name.removeprefix(f"{trash.TRASH}/").partition("/")[0]}


def _move(root: Path, item: Item) -> Result:
    source, target = inside(root, str(item["path"])), inside(root, str(item["to"]))
    if not source.is_file():
        raise NotFoundError(f"there is no {item['path']} any more", hint="comfymodal models list", path=item["path"])
    if os.path.lexists(target) and not (target.exists() and target.samefile(source)):
        raise ConflictError(
            f"there is a {item['to']} already", hint=f"first: comfymodal models rm {item['to']}", path=item["to"]
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    _remove_empty_parents(root, source)
    return {"result": "moved", "to": str(item["to"])}


def _restore(root: Path, item: Item) -> Result:
    trash.restore(root, _trashed(item))
    return {"result": "restored"}


def _delete(root: Path, item: Item) -> Result:
    trash.empty(root, [_trashed(item)])
    return {"result": "deleted"}


def _trashed(item: Item) -> trash.Trashed:
    return trash.Trashed(str(item["stamp"]), str(item["path"]), int(item.get("size_bytes") or 0))


def _remove_empty_parents(root: Path, file: Path) -> None:
    """Folders below one of ComfyUI's that a file left empty; ComfyUI's own stay."""
    for folder in file.parents:
        if root in (folder, folder.parent):
            return
        try:
            folder.rmdir()
        except OSError:
            return


def _in_remote(job: Mapping[str, Any], place: StoragePlace) -> Iterator[Result]:
    from comfymodal.jobs.sync import RCLONE_VARIABLE
    from comfymodal.storage.keys import find_keys
    from comfymodal.storage.rclone import trashing
    from comfymodal.storage.rclone.find import find_rclone
    from comfymodal.storage.rclone.listing import list_folder
    from comfymodal.storage.rclone.session import open_session

    end = end_from_dict(job["remote"])
    if not isinstance(end, RemoteEnd):
        raise TypeError(f"{end} is no remote")
    remote: Remote = end.remote
    rclone = find_rclone(place.environ.get(RCLONE_VARIABLE))
    session = open_session(rclone, {remote.name: (remote, find_keys(remote, place.environ))}, os.environ)
    place.emit({"type": "phase", "phase": str(job["action"])})
    if job["action"] == "list":
        for name, state in sorted(list_folder(session, remote, trash.TRASH).items()):
            stamp, slash, path = name.partition("/")
            if slash:
                yield {"path": path, "stamp": stamp, "size_bytes": state.size, "result": "listed"}
        return
    for stamp, items in _by_stamp(job["items"]).items():
        by_name = {str(item["path"]): item for item in items}
        if job["action"] == "restore":
            done = trashing.restore(session, remote, list(by_name), stamp, control=place.control)
        else:
            names = [trash.trash_name(stamp, path) for path in by_name]
            done = trashing.delete(session, remote, names, forever=True, control=place.control)
        for path, each in zip(by_name, done.results, strict=True):
            yield {
                "path": path,
                "stamp": stamp,
                "size_bytes": by_name[path].get("size_bytes"),
                **_remote_result(each.result, each.error, job["action"], path),
            }


def _by_stamp(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[str(item["stamp"])].append(item)
    return found


Word = Literal["restored", "deleted"]


def _remote_result(result: str, error: str | None, action: str, path: str) -> Result:
    word: Word = "restored" if action == "restore" else "deleted"
    # What is gone from the trash is deleted, whoever did it.
    if result == "copied" or (result == "missing" and word == "deleted"):
        return {"result": word}
    if result == "skipped":
        return {"result": "skipped"}
    failed = TransferError(f"{path!r}: {error or 'it is gone'}", hint="comfymodal trash list", path=path)
    return {"result": "failed", "error": failed.to_dict()}
