"""The lines an image build prints, as events: minutes of silence would look like a hang."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

import modal

from comfymodal.targets.base import OnEvent


@contextlib.contextmanager
def told(on_event: OnEvent) -> Iterator[None]:
    """Turn on the SDK's output for the block and catch it line by line.

    The SDK can only print, so standard output is ours meanwhile; a script's answer must stay clean.
    """
    answer = sys.stdout

    def tell(line: str) -> None:
        # Whoever hears of it may print it: there, not back into the catcher.
        with contextlib.redirect_stdout(answer):
            on_event({"type": "build_log", "line": line})

    catcher = _Lines(tell)
    with contextlib.redirect_stdout(catcher), modal.enable_output():
        yield
    catcher.close_line()


class _Lines(io.TextIOBase):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell_line, self._rest = tell, ""

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
            self._tell_line(line.rstrip())
