"""Files of a folder onto a Modal volume, in batches that Modal takes whole or not at all.

What arrives is what was read here: the SDK names every file (volumes of version 1) or every block of 8 MiB (version 2)
by its sha256, and the volume is put together of contents with these names (`modal/volume.py`, 1.6.4:
`_VolumeUploadContextManager._upload_file`, `_VolumeUploadContextManager2._put_file_specs`).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import aiohttp
import modal
import modal.exception as me

from comfymodal.errors import ComfymodalError, ServiceError, SyncRefusedError, TransferError
from comfymodal.storage.actions import Action
from comfymodal.storage.base import is_same_time
from comfymodal.storage.names import inside
from comfymodal.storage.rclone.log import Moving
from comfymodal.targets.modal.errors import translate
from comfymodal.targets.modal.volume_sent import SENT_FILE, Sent, SentFiles
from comfymodal.targets.modal.volume_side import VolumeSide
from comfymodal.targets.modal.volume_tally import AGAIN, Tally

BATCH_FILES = 200
BATCH_BYTES = 256 << 20
"""What a stop or a broken line costs, at most, unless one file is larger. Blocks that arrived are not sent again."""

HASHERS = 4
READ_BYTES = 1 << 20
POLL_S = 0.25
PAUSES_S = (2.0, 10.0)
"""Before a batch is tried again that Modal or the line to it failed; the SDK has tried each call several times."""

_TROUBLE = (me.Error, aiohttp.ClientError, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class _Item:
    action: Action
    path: Path
    full: str
    """From the volume's root."""


class _Stopped(Exception):
    pass


def upload(root: Path, target: VolumeSide, tally: Tally) -> None:
    """Send the tally's files; what Modal took is `copied` whatever happens afterwards."""
    for part in _parts(tally.actions):
        if tally.is_over:
            return
        _Upload(root, target, tally).send(part)


class _Upload:
    def __init__(self, root: Path, target: VolumeSide, tally: Tally) -> None:
        self._root, self._target, self._tally = root, target, tally

    def send(self, actions: Sequence[Action]) -> None:
        try:
            items = self._check(actions)
            hashes = self._hash(items) if items else {}
        except _Stopped:
            return
        except ComfymodalError as exc:
            self._tally.error = exc
            return
        items = [item for item in items if item.action.path in hashes]
        if items:
            self._try_to_put(items, hashes)

    def _try_to_put(self, items: Sequence[_Item], hashes: Mapping[str, str]) -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                self._put(items, hashes)
            except _Stopped:
                return
            except OSError as exc:
                self._blame(items, hashes, exc)
            except ServiceError as exc:
                if pause_s is not None and not self._pause(pause_s):
                    continue
                self._give_up(items, exc)
            except ComfymodalError as exc:
                self._give_up(items, exc)
            return

    def _check(self, actions: Sequence[Action]) -> list[_Item]:
        """The files that still are what was planned, on both sides."""
        new = [action.path for action in actions if action.target is None or action.keep_as]
        appeared = self._target.find_files(new)
        found = []
        for action in actions:
            try:
                item = _Item(action, inside(self._root, action.path), self._target.full(action.path))
            except SyncRefusedError as exc:
                self._tally.failed(action, exc.message)
                continue
            if action.path in appeared:
                self._tally.failed(action, "it appeared there while the sync ran; it was left alone")
            elif not item.path.is_file():
                self._tally.failed(action, "it is gone from its folder since it was listed", "missing")
            elif not _is_as_listed(item):
                self._tally.failed(action, "it changed since it was listed; the next sync takes the new one")
            else:
                found.append(item)
        return found

    def _hash(self, items: Sequence[_Item]) -> dict[str, str]:
        """The sha256 of each file that can be read."""
        stop = Event()
        with ThreadPoolExecutor(HASHERS) as pool:
            futures = {item.action.path: pool.submit(_sha256, item.path, stop) for item in items}
            while left := wait(futures.values(), POLL_S).not_done:
                names = [item.action for item in items if futures[item.action.path] in left][:HASHERS]
                self._tally.report({action.path: Moving(action.path, 0, action.size) for action in names})
                if self._tally.asks_to_stop():
                    stop.set()
        if stop.is_set():
            raise _Stopped
        found = {}
        for item in items:
            try:
                found[item.action.path] = futures[item.action.path].result()
            except OSError as exc:
                self._tally.failed(item.action, f"cannot read it: {exc.strerror or exc}")
        return found

    def _put(self, items: Sequence[_Item], hashes: Mapping[str, str]) -> None:
        """Send one batch. Raises `OSError` for a file at fault, ours for all else."""
        sent = self._target.sent.add(
            {item.full: Sent(item.action.size, hashes[item.action.path], _mtime_of(item.action)) for item in items}
        )
        try:
            asyncio.run(self._carry(items, sent))
        except (*_TROUBLE, _Stopped) as exc:
            # The answer may be lost, not the batch.
            if not self._has_arrived(sent):
                _raise_ours(exc, f"cannot write to the volume {self._target.name}")
                raise
        sent.written = self._target.sent_at()
        self._target.sent = sent
        self._settle(items)

    async def _carry(self, items: Sequence[_Item], sent: SentFiles) -> None:
        """Upload and commit, with reports meanwhile; on a stop what was not committed is left."""
        size, arrived = sum(item.action.size for item in items), 0

        def hear(*_: Any, advance: int = 0, **__: Any) -> str:
            nonlocal arrived
            arrived += advance
            return ""

        task = asyncio.create_task(_upload(self._target, items, sent, hear))
        name = items[0].action.path
        while not (await asyncio.wait({task}, timeout=POLL_S))[0]:
            self._tally.report({name: Moving(name, min(arrived, size), size)})
            if self._tally.asks_to_stop():
                task.cancel()
                await asyncio.wait({task})
                break
        if task.cancelled():
            raise _Stopped
        task.result()

    def _settle(self, items: Sequence[_Item]) -> None:
        """The batch is there. Its times are learned, and what changed while it was read is taken away again."""
        there = self._target.find_files([item.action.path for item in items])
        for item in items:
            state = there.get(item.action.path)
            if not _is_as_listed(item):
                self._target.remove(item.action.path)
                self._tally.failed(item.action, "it changed while it was copied; the next sync takes the new one")
            elif state is None or state.size != item.action.size:
                self._tally.failed(item.action, "it was sent, and is not there")
            else:
                self._tally.copied(item.action)

    def _has_arrived(self, sent: SentFiles) -> bool:
        try:
            return self._target.read_sent().batch == sent.batch
        except (ComfymodalError, OSError, aiohttp.ClientError):
            return False

    def _blame(self, items: Sequence[_Item], hashes: Mapping[str, str], exc: OSError) -> None:
        """One file spoils its whole batch; each is sent alone to find out which."""
        if len(items) == 1:
            self._tally.failed(items[0].action, f"cannot be copied: {exc.strerror or exc}")
            return
        for item in items:
            if self._tally.is_over:
                return
            self._try_to_put([item], hashes)

    def _give_up(self, items: Sequence[_Item], error: ComfymodalError) -> None:
        self._tally.error = error
        for item in items:
            self._tally.failed(item.action, error.message)

    def _pause(self, seconds: float) -> bool:
        """Whether it was stopped meanwhile."""
        for _ in range(int(seconds / POLL_S)):
            time.sleep(POLL_S)
            if self._tally.asks_to_stop():
                return True
        return False


async def _upload(target: VolumeSide, items: Sequence[_Item], sent: SentFiles, hear: Callable[..., str]) -> None:
    async with _batch(target, hear) as batch:
        for item in items:
            batch.put_file(str(item.path), f"/{item.full}")
        batch.put_file(io.BytesIO(sent.text()), f"/{SENT_FILE}")


def _batch(target: VolumeSide, hear: Callable[..., str]) -> Any:
    """`Volume.batch_upload(force=True)` with the progress that the SDK gives to its own command line alone.

    Where this SDK cannot be asked for that, without.
    """
    handle = target.handle
    try:
        from modal.volume import AbstractVolumeUploadContextManager as Batch

        return Batch.resolve(
            target.version,
            handle.object_id,
            handle.client,
            progress_cb=hear,
            force=True,
        )
    except (ImportError, AttributeError, TypeError):
        return handle.batch_upload.aio(force=True)


def _parts(actions: Sequence[Action]) -> Iterator[list[Action]]:
    part: list[Action] = []
    size = 0
    for action in actions:
        if part and (size + action.size > BATCH_BYTES or len(part) == BATCH_FILES):
            yield part
            part, size = [], 0
        part.append(action)
        size += action.size
    if part:
        yield part


def _is_as_listed(item: _Item) -> bool:
    planned = item.action.source
    try:
        found = item.path.stat()
    except OSError:
        return False
    if planned is None or found.st_size != planned.size:
        return False
    return planned.mtime is None or is_same_time(found.st_mtime, planned.mtime)


def _mtime_of(action: Action) -> float | None:
    return action.source.mtime if action.source else None


def _sha256(path: Path, stop: Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while not stop.is_set() and (block := stream.read(READ_BYTES)):
            digest.update(block)
    return digest.hexdigest()


def _raise_ours(exc: BaseException, doing: str) -> None:
    """For what Modal or the line failed; not for a file at fault, nor for a stop."""
    if isinstance(exc, modal.Error):
        raise translate(exc, doing) from exc
    if isinstance(exc, aiohttp.ClientError | TimeoutError | ConnectionError):
        hint = "is the network up? the same command may work later"
        raise ServiceError(f"{doing}: {exc or type(exc).__name__}", hint=hint) from exc
    if isinstance(exc, RuntimeError):
        raise TransferError(f"{doing}: {exc}", hint=AGAIN) from exc
