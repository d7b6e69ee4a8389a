"""Progress bars as tqdm draws them: on stderr, rewritten in place, never ended by a line of their own.

A new step is drawn ten times a second at most, a new postfix always; the rate is that of the steps drawn last.
"""

from __future__ import annotations

import sys
import time

_WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DRAW_EVERY_S = 0.1


class Bar:
    """`is_below`: under another one that is open, with the cursor taken down and up again."""

    def __init__(self, label: str, total: int, *, done: int = 0, is_below: bool = False) -> None:
        self._label, self._total, self._done = label, total, done
        self._is_below = is_below
        self._began_at = self._drawn_at = time.monotonic()
        self._drawn, self._rate = done, 0.0
        self._paused_at: float | None = None
        self._postfix = ""
        self._draw()

    def postfix(self, text: str) -> None:
        self._postfix = text
        self._draw()

    def update(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._drawn_at >= _DRAW_EVERY_S:
            self._rate = (self._done - self._drawn) / (now - self._drawn_at)
            self._drawn, self._drawn_at = self._done, now
            self._draw()

    def pause(self) -> None:
        """Time that does not count: of a save, or of samples."""
        self._paused_at = self._paused_at or time.monotonic()

    def unpause(self) -> None:
        if self._paused_at is not None:
            self._began_at += time.monotonic() - self._paused_at
            self._drawn_at, self._paused_at = time.monotonic(), None

    def close(self) -> None:
        """It stays where it is, as with `leave=True`."""
        self._draw()
        write("\n")

    def clear(self) -> None:
        self._put("\r" + " " * 64)
        if not self._is_below:
            write("\r")

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._began_at
        rate = self._rate
        left = _clock((self._total - self._done) / rate) if rate else "?"
        pace = "?it/s" if not rate else (f"{rate:5.2f}it/s" if rate >= 1 else f"{1 / rate:5.2f}s/it")
        share = self._done / max(1, self._total)
        postfix = f", {self._postfix}" if self._postfix else ""
        label = f"{self._label}: " if self._label else ""
        if not self._total:
            self._put(f"\r{label}{self._done}it [{_clock(elapsed)}, {pace}]")
            return
        self._put(
            f"\r{label}{100 * share:3.0f}%|{_blocks(share)}| {self._done}/{self._total} "
            f"[{_clock(elapsed)}<{left}, {pace}{postfix}]"
        )

    def _put(self, text: str) -> None:
        write(f"\n{text}\x1b[A" if self._is_below else text)

    @property
    def speed(self) -> str:
        """As the control database has it; empty while nothing was drawn."""
        rate = self._rate
        return "" if not rate else (f"{rate:.2f} iter/sec" if rate >= 1 else f"{1 / rate:.2f} sec/iter")


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
