"""The lines an image build prints, as events: minutes of silence would look like a hang."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import modal

from comfymodal.targets.base import OnEvent


@contextlib.contextmanager
def told(on_event: OnEvent) -> Iterator[None]:
    """Turn on the SDK's output for the block and catch it line by line.

    The SDK can only print, so standard output is ours meanwhile; a script's answer must stay clean.
    """
    catcher = _Lines(on_event)
    with contextlib.redirect_stdout(catcher), modal.enable_output():
        yield
    catcher.close_line()


class _Lines(io.TextIOBase):
    def __init__(self, on_event: OnEvent) -> None:
        self._on_event, self._rest = on_event, ""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._tell(line)
        return len(text)

    def close_line(self) -> None:
        self._tell(self._rest)
        self._rest = ""

    def _tell(self, line: str) -> None:
        if line.strip():
            self._on_event({"type": "build_log", "line": line.rstrip()})
