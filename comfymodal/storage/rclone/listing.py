"""What lies in a place, by path."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError, ServiceError, TransferError
from comfymodal.storage.rclone.explain import explain, is_final
from comfymodal.storage.rclone.names import plan_bytes
from comfymodal.storage.rclone.process import Control, Ended, Listener, run
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.values import FileState, Folder, Listing, Place, Remote

OWN_FOLDER = ".comfymodal"
PARTIAL_SUFFIX = ".partial"
FEW_PATHS = 50
"""Up to so many, each path is asked for, which costs a call each; above, the folder is listed, a call per thousand."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
PAUSES_S = (1.0, 4.0)
"""Before a listing that failed is asked for again."""

# With `--hash`, only large files whose hash the listing does not tell cost a question each (s3); with the server's
# time and no media type, nothing else does.
_FLAGS = (
    "--use-json-log",
    *("--log-level", "NOTICE"),
    "--files-only",
    "--hash",
    "--use-server-modtime",
    "--no-mimetype",
    *("--low-level-retries", "3"),
    *("--retries", "1"),
    *("--timeout", "60s"),
    *("--contimeout", "15s"),
    *("--checkers", "16"),
)


def list_files(session: Session, place: Place, *, control: Control | None = None) -> Listing:
    """Every file of the place but half-written ones and our own folder; empty when there is none.

    A folder's files carry no hashes; links to files and folders are followed, other special files are left out.
    Raises `NotFoundError` when the folder or the bucket does not exist (in a bucket, a folder that does not exist
    is an empty one: ask `folders_beside`), and what `explain` says for everything else.
    """
    if isinstance(place, Folder):
        return dict(_walk(place.path))
    arguments = [*_FLAGS, "--fast-list", "--exclude", f"*{PARTIAL_SUFFIX}", "--exclude", f"/{OWN_FOLDER}/**"]
    return _ask(session, place, ["-R", *arguments], control=control)


def find_files(session: Session, place: Place, paths: Sequence[str]) -> Listing:
    """Those of `paths` that exist, wherever in the place they are. Raises as `list_files`."""
    if not paths:
        return {}
    if isinstance(place, Folder):
        top = str(place.path)
        return {path: state for path in paths if (state := _state(os.path.join(top, path))) is not None}
    how = "--no-traverse" if len(paths) <= FEW_PATHS else "--fast-list"
    return _ask(session, place, ["-R", *_FLAGS, "--files-from-raw", "-", how], stdin=plan_bytes(paths))


def list_folder(session: Session, remote: Remote, folder: str) -> Listing:
    """Every file under `folder`, our own folder's too, by path relative to `folder`. Raises as `list_files`."""
    prefix = "/".join(part for part in (remote.prefix, folder) if part)
    return _ask(session, replace(remote, prefix=prefix), ["-R", "--fast-list", *_FLAGS])


def require_bucket(session: Session, remote: Remote) -> None:
    """Raises `NotFoundError` when the bucket does not exist, else as `list_files`."""
    # A listing of the bucket itself, but of one page at most: nothing lies there.
    nowhere = "/".join(part for part in (remote.prefix, OWN_FOLDER, "nothing") if part)
    _ask(session, replace(remote, prefix=nowhere), [*_FLAGS, "--max-depth", "1"], named=str(remote))


def folders_beside(session: Session, remote: Remote) -> tuple[str, ...]:
    """The folders in the bucket next to the remote's own, for whoever mistyped it. Raises as `list_files`."""
    parent = remote.prefix.rpartition("/")[0]
    above = replace(remote, prefix=parent)
    arguments = [each for each in _FLAGS if each not in ("--files-only", "--hash")]
    ended = run(session, ["lsjson", *arguments, "--dirs-only", session.address(above)])
    if ended.code != 0:
        raise explain(ended.code, ended.lines, place=str(above))
    return tuple(sorted("/".join(filter(None, (parent, str(entry["Path"])))) for entry in _entries(ended.output)))


def _ask(
    session: Session,
    remote: Remote,
    flags: Sequence[str],
    *,
    stdin: bytes = b"",
    control: Control | None = None,
    named: str = "",
) -> Listing:
    place = named or str(remote)
    for pause_s in (*PAUSES_S, None):
        listener = Listener(control=control) if control else None
        ended = run(session, ["lsjson", *flags, session.address(remote)], stdin=stdin, listener=listener)
        if pause_s is None or ended.is_stopped or not _may_pass(ended):
            break
        time.sleep(pause_s)
    if ended.code != 0:
        error = explain(ended.code, ended.lines, place=place)
        if ended.code == 3:
            raise NotFoundError(
                f"{place}: there is no bucket {remote.bucket}, or the key may not see it", **error.details
            )
        raise error
    # A page that could not be read is logged, and what was read is no listing.
    if errors := [line for line in ended.lines if line.level in ("error", "critical")]:
        raise explain(1, errors, place=place)
    # S3 tells when an object came to it, which says nothing about the file it was.
    has_times = remote.kind == "b2"
    return {str(entry["Path"]): _remote_state(entry, has_times=has_times) for entry in _entries(ended.output)}


def _may_pass(ended: Ended) -> bool:
    """Whether it failed in a way that may be over in a moment."""
    errors = [line.message for line in ended.lines if line.level in ("error", "critical")]
    return ended.code in (1, 5) and not any(is_final(message) for message in errors)


def _entries(output: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(output)
    except ValueError as exc:
        raise ServiceError("rclone's listing is damaged", hint="run it again") from exc
    return [entry for entry in found if isinstance(entry, dict)]


def _remote_state(entry: dict[str, Any], *, has_times: bool) -> FileState:
    hashes = {str(kind): str(value).lower() for kind, value in (entry.get("Hashes") or {}).items() if value}
    modified = str(entry.get("ModTime") or "")
    # Where the remote gives no id, the time of the upload is what changes with each upload.
    version = entry.get("ID") or (f"modified:{modified}" if modified else None)
    return FileState(int(entry["Size"]), hashes, _seconds(modified) if has_times else None, version)


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _walk(root: Path) -> Iterator[tuple[str, FileState]]:
    if not root.is_dir():
        raise NotFoundError(f"there is no folder {root}", path=str(root))

    def refuse(exc: OSError) -> None:
        raise _unreadable(exc) from exc

    # Plain text and not `Path`: of 20,000 files that is seconds. Followed links may lead back to where they came from.
    top = str(root)
    trail: dict[str, tuple[tuple[int, int], ...]] = {top: (_identity(top),)}
    for folder, names, files in os.walk(top, onerror=refuse, followlinks=True):
        above = trail.pop(folder)
        if folder == top and OWN_FOLDER in names:
            names.remove(OWN_FOLDER)
        for name in list(names):
            identity = _identity(os.path.join(folder, name))
            if identity in above:
                names.remove(name)
            else:
                trail[os.path.join(folder, name)] = (*above, identity)
        inner = folder[len(top) :].strip(os.sep).replace(os.sep, "/")
        for name in files:
            if not name.endswith(PARTIAL_SUFFIX) and (state := _listed_state(os.path.join(folder, name))) is not None:
                yield f"{inner}/{name}" if inner else name, state


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _listed_state(path: str) -> FileState | None:
    try:
        found = os.stat(path)
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            # Removed a moment ago, or a link that leads nowhere.
            return None
        # A file that cannot be looked at is there: left out, it would count as deleted.
        raise _unreadable(exc) from exc
    return _of_stat(found)


def _unreadable(exc: OSError) -> TransferError:
    return TransferError(f"cannot read {exc.filename}: {exc.strerror}", hint="look at its permissions")


def _state(path: str) -> FileState | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _of_stat(found)


def _of_stat(found: os.stat_result) -> FileState | None:
    return FileState(found.st_size, {}, found.st_mtime) if stat.S_ISREG(found.st_mode) else None
