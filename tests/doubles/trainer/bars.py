"""Progress bars as tqdm draws them: on stderr, rewritten in place, never ended by a line of their own."""

from __future__ import annotations

import sys
import time

_WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Bar:
    def __init__(self, label: str, total: int, *, done: int = 0) -> None:
        self._label, self._total, self._done, self._first = label, total, done, done
        self._started_at = time.monotonic()
        self._postfix = ""
        self._draw()

    def postfix(self, text: str) -> None:
        self._postfix = text
        self._draw()

    def update(self) -> None:
        self._done += 1
        self._draw()

    def close(self) -> None:
        """As with `leave=False`."""
        write("\r" + " " * 64 + "\r")

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._started_at
        done = self._done - self._first
        rate = done / elapsed if done and elapsed > 0 else None
        left = _clock((self._total - self._done) / rate) if rate else "?"
        pace = "?it/s" if rate is None else (f"{rate:5.2f}it/s" if rate >= 1 else f"{1 / rate:5.2f}s/it")
        share = self._done / self._total if self._total else 1.0
        postfix = f", {self._postfix}" if self._postfix else ""
        label = f"{self._label}: " if self._label else ""
        write(
            f"\r{label}{100 * share:3.0f}%|{_blocks(share)}| {self._done}/{self._total} "
            f"[{_clock(elapsed)}<{left}, {pace}{postfix}]"
        )


def write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _blocks(share: float) -> str:
    full, rest = divmod(round(share * _WIDTH * 8), 8)
    return ("█" * full + (_EIGHTHS[rest] if full < _WIDTH else "")).ljust(_WIDTH)[:_WIDTH]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
