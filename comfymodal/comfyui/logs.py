"""An engine's log as lines: the last ones, and those that are still being written."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from comfymodal.comfyui.server import read_from

FOLLOW_EVERY_S = 0.2
LINE_BYTES = 200
"""How long a line usually is: how much of a long log is read first."""

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINE_END = re.compile(rb"\r\n|\r|\n")


def read_last(log: Path, count: int) -> tuple[str, ...]:
    """The last lines of a log; none when there is no log."""
    size = log.stat().st_size if log.exists() else 0
    window = count * LINE_BYTES
    while True:
        start = max(0, size - window)
        lines = read_from(log, start).splitlines()
        # The first line of a window is cut somewhere.
        whole = lines[1:] if start else lines
        if start == 0 or len(whole) >= count:
            return tuple(whole[-count:])
        window *= 4


def follow_lines(log: Path, *, is_alive: Callable[[], bool], from_start: bool = False) -> Iterator[str]:
    """Lines as they are written, from now on or from the log's start, also into the log of the next start.

    Ends when nothing lives any more.
    """
    stream = _open(log)
    rest = b""
    if stream is not None and not from_start:
        stream.seek(0, os.SEEK_END)
    try:
        while True:
            was_alive = is_alive()
            stream = stream or _open(log)
            data = stream.read() if stream is not None else b""
            *lines, rest = _LINE_END.split(rest + data)
            yield from (_ANSI.sub("", line.decode("utf-8", "replace")) for line in lines)
            if data:
                continue
            if stream is not None and _is_replaced(stream, log):
                stream.close()
                stream = None
                if rest:
                    yield rest.decode("utf-8", "replace")
                rest = b""
            elif not was_alive:
                break
            else:
                time.sleep(FOLLOW_EVERY_S)
        if rest:
            yield rest.decode("utf-8", "replace")
    finally:
        if stream is not None:
            stream.close()


def _open(log: Path) -> BinaryIO | None:
    try:
        return log.open("rb")
    except OSError:
        return None


def _is_replaced(stream: BinaryIO, log: Path) -> bool:
    """Whether the file of that name is another one by now: each start begins a new one."""
    try:
        return os.fstat(stream.fileno()).st_ino != log.stat().st_ino
    except OSError:
        return False
