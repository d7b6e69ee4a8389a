"""The rest of a file on a volume, from any byte on.

Modal's API serves ranges, its SDK only whole files (1.6.4: `Volume.read_file`). So this asks the API for the range,
through the one part of the SDK that is not public; where that is missing the file is read from its beginning and what
is there already is skipped: slower, never wrong. Callers verify the whole by its sha256.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import modal

from comfymodal.errors import TransferError

READ_BYTES = 1024 * 1024
TIMEOUT_S = 60.0
ATTEMPTS = 4


def read_from(volume: modal.Volume, path: str, start: int) -> Iterator[bytes]:
    """Bytes of the file from `start` on. Raises `FileNotFoundError`, `TransferError`, and Modal's exceptions."""
    if start == 0:
        yield from volume.read_file(path)
        return
    blocks = _locate(volume, path, start)
    if blocks is None:
        yield from _skip(volume.read_file(path), start)
        return
    for url, length in blocks:
        yield from _read_block(url, length)


def read_range(volume: modal.Volume, path: str, start: int, count: int) -> bytes:
    """At most `count` bytes of the file from `start` on; little more than those travels. Raises as `read_from`."""
    blocks = _locate(volume, path, start, count)
    pieces: Iterator[bytes] = (
        _skip(volume.read_file(path), start)
        if blocks is None
        else (piece for url, length in blocks for piece in _read_block(url, length))
    )
    found = b""
    for piece in pieces:
        found += piece
        if len(found) >= count:
            break
    return found[:count]


def _locate(volume: modal.Volume, path: str, start: int, count: int = 0) -> list[tuple[str, int]] | None:
    """Address and length of each block of the range (0: to the end); None when this SDK cannot be asked."""
    volume.hydrate()
    try:
        from modal._utils.async_utils import synchronizer
        from modal_proto import api_pb2

        request = api_pb2.VolumeGetFile2Request(volume_id=volume.object_id, path=path, start=start, len=count)

        async def ask(client: Any) -> Any:
            return await client._stub.VolumeGetFile2(request)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = synchronizer.create_blocking(ask)(volume.client)
    except (ImportError, AttributeError, TypeError):
        return None
    except modal.exception.NotFoundError as exc:
        raise FileNotFoundError(path) from exc
    if answer.start != start:
        return None
    return _with_lengths(list(answer.get_urls), start, int(answer.len))


def _with_lengths(urls: list[str], start: int, length: int) -> list[tuple[str, int]]:
    # Blocks end at multiples of 8 MiB of the file, so the first one of a range may be short.
    block = 8 * 1024 * 1024
    found, position, end = [], start, start + length
    for url in urls:
        stop = min(end, (position // block + 1) * block)
        found.append((url, stop - position))
        position = stop
    return found


def _read_block(url: str, length: int) -> Iterator[bytes]:
    got, failures = 0, 0
    while got < length:
        try:
            request = urllib.request.Request(url, headers={"Range": f"bytes={got}-"} if got else {})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                skip = got if answer.status == 200 else 0
                while data := answer.read(READ_BYTES):
                    fresh, skip = data[skip:], max(0, skip - len(data))
                    got += len(fresh)
                    if fresh:
                        yield fresh
            if got < length:
                raise http.client.IncompleteRead(b"", length - got)
        except (OSError, http.client.HTTPException, urllib.error.URLError) as exc:
            failures += 1
            if failures == ATTEMPTS:
                raise TransferError(f"the download was cut: {exc}", hint="go on: comfymodal runs fetch") from exc


def _skip(blocks: Any, count: int) -> Iterator[bytes]:
    for block in blocks:
        rest, count = block[count:], max(0, count - len(block))
        if rest:
            yield rest
