"""Files of a Modal volume into a folder: some at a time, each under its final name only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import BinaryIO

import aiohttp

from comfymodal.errors import ComfymodalError, ConflictError, NotReadyError, ServiceError, TransferError
from comfymodal.storage.actions import Action
from comfymodal.storage.base import is_same_time
from comfymodal.storage.names import inside
from comfymodal.storage.rclone.log import Moving
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.ranges import READ_BYTES, read_from
from comfymodal.targets.modal.volume_side import PARTIAL_SUFFIX, VolumeSide
from comfymodal.targets.modal.volume_tally import AGAIN, Tally

AT_ONCE = 4
BLOCK_BYTES = 8 << 20
"""Of a volume's files; a half-written one is taken up at such a border, because its end may be torn."""

ATTEMPTS = 3
PAUSE_S = 2.0
POLL_S = 0.25

_MAX_NAME_BYTES = 255
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Stopped(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Work:
    source: VolumeSide
    root: Path
    stop: Event = field(default_factory=Event)
    """Set when no thread may go on."""
    arrived: dict[str, int] = field(default_factory=dict)


def download(source: VolumeSide, root: Path, tally: Tally) -> None:
    """Fetch the tally's files. What was begun stays as `*.partial` and is taken up by the next sync."""
    work = _Work(source, root)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_fetch, work, action): action for action in tally.actions}
        while running:
            done = wait(running, POLL_S, return_when="FIRST_COMPLETED").done
            for future in done:
                _settle(future, running.pop(future), work, tally)
            moving = {
                action.path: Moving(action.path, work.arrived[action.path], action.size)
                for action in running.values()
                if action.path in work.arrived
            }
            tally.report(moving)
            if tally.is_over:
                work.stop.set()


def _settle(future: Future[None], action: Action, work: _Work, tally: Tally) -> None:
    try:
        future.result()
    except _Stopped:
        return
    except FileNotFoundError as exc:
        if exc.filename is None:
            tally.failed(action, "it is gone from the volume since it was listed", "missing")
        else:
            tally.failed(action, f"cannot be written: {exc.strerror}")
    except OSError as exc:
        tally.failed(action, f"cannot be written: {exc.strerror or exc}")
        if exc.errno in _NO_ROOM:
            tally.error = TransferError(f"there is no room left in {work.root}", hint=f"make room, then {AGAIN}")
            work.stop.set()
    except (ServiceError, NotReadyError) as exc:
        # Modal does not answer, or not us: it will not for the others.
        tally.failed(action, exc.message)
        tally.error = exc
        work.stop.set()
    except ComfymodalError as exc:
        tally.failed(action, exc.message)
    else:
        tally.copied(action)


def _fetch(work: _Work, action: Action) -> None:
    if work.stop.is_set():
        raise _Stopped
    target = inside(work.root, action.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(target, action)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _bring(work, action, partial)
        except (ServiceError, TransferError):
            if attempt == ATTEMPTS or work.stop.wait(PAUSE_S):
                raise
        else:
            break
    if action.source is not None and action.source.mtime is not None:
        os.utime(partial, (action.source.mtime, action.source.mtime))
    _require_untouched(target, action)
    partial.replace(target)


def _require_untouched(target: Path, action: Action) -> None:
    """Raise `ConflictError` when somebody wrote to the file while its successor was on its way."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    planned = None if action.keep_as else action.target
    if planned is None or found.st_size != planned.size or not is_same_time(found.st_mtime, planned.mtime):
        raise ConflictError(f"{action.path!r} changed while the sync ran; it was left alone", hint=AGAIN)


def _bring(work: _Work, action: Action, partial: Path) -> None:
    """Append what the partial lacks, and prove the whole. Raises `TransferError` when it is not what was listed."""
    digest = hashlib.sha256()
    with partial.open("r+b" if partial.exists() else "w+b") as stream:
        position = _take_up(stream, action.size, digest)
        for block in _blocks(work.source, action.path, position, action.size):
            if work.stop.is_set():
                raise _Stopped
            stream.write(block)
            digest.update(block)
            position += len(block)
            work.arrived[action.path] = position
    wanted = action.source.hashes.get("sha256") if action.source else None
    if position != action.size or (wanted is not None and digest.hexdigest() != wanted):
        partial.unlink()
        raise TransferError("what arrived is not what was listed; it was thrown away", hint=AGAIN)


def _take_up(stream: BinaryIO, size: int, digest: hashlib._Hash) -> int:
    """Where to go on: behind the last whole block that is there."""
    there = min(stream.seek(0, os.SEEK_END), size)
    position = there - there % BLOCK_BYTES
    stream.truncate(position)
    stream.seek(0)
    left = position
    while left and (block := stream.read(min(READ_BYTES, left))):
        digest.update(block)
        left -= len(block)
    return position


def _blocks(source: VolumeSide, path: str, position: int, size: int) -> Iterator[bytes]:
    doing = f"cannot read {path!r} from {source}"
    if position == size and position:
        return
    try:
        with translated(doing):
            yield from read_from(source.handle, source.full(path), position)
    except TransferError as exc:
        raise TransferError(f"{doing}: {exc.message}", hint=AGAIN) from exc
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
        raise ServiceError(
            f"{doing}: {exc or type(exc).__name__}", hint="is the network up? the same command may work later"
        ) from exc
    except FileNotFoundError:
        raise FileNotFoundError(path) from None


def _partial_of(target: Path, action: Action) -> Path:
    """Named after what was listed, as rclone does: the rest of another version is never put behind it."""
    version = action.source.version if action.source else None
    mark = zlib.crc32(f"{action.path} {action.size} {version}".encode())
    tail = f".{mark:08x}{PARTIAL_SUFFIX}"
    stem = target.name.encode()[: _MAX_NAME_BYTES - len(tail)].decode("utf-8", "ignore")
    return target.with_name(stem + tail)
