"""Where progress is drawn: one live line on a terminal, plain lines with a heartbeat elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from comfymodal.output.progress import Progress, now_s
from comfymodal.output.words import harmless

if TYPE_CHECKING:
    from rich.text import Text

LIVE_AFTER_S = 0.25
"""Loading Rich costs 0.1 s: a render that is over by then never needs it."""

HEARTBEAT_S = 10.0
BAR_CELLS = 24
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Screen(Protocol):
    def keep(self, line: str) -> None:
        """Print a line that stays."""

    def draw(self, progress: Progress, now: float) -> None:
        """Called several times a second."""

    def close(self) -> None: ...


class SilentScreen:
    """For `--quiet`, `--json` off a terminal, and `--json-events`."""

    def keep(self, line: str) -> None: ...

    def draw(self, progress: Progress, now: float) -> None: ...

    def close(self) -> None: ...


class PlainScreen:
    """A log: a line when the phase changes, and a heartbeat while nothing else is said."""

    def __init__(self) -> None:
        self._phase = ""
        self._said_at = now_s()

    def keep(self, line: str) -> None:
        write_stderr(line)
        self._said_at = now_s()

    def draw(self, progress: Progress, now: float) -> None:
        is_new = progress.phase != self._phase and now - progress.phase_since > 1.0
        if progress.phase and (is_new or now - self._said_at > HEARTBEAT_S):
            self._phase = progress.phase
            self.keep(progress.sentence(now))

    def close(self) -> None: ...


class LiveScreen:
    """One line that is redrawn in place, by Rich."""

    def __init__(self) -> None:
        self._live: Any = None
        self._began_at = now_s()

    def keep(self, line: str) -> None:
        if self._live is None:
            write_stderr(line)
        else:
            self._live.console.print(harmless(line), markup=False, highlight=False, soft_wrap=True)

    def draw(self, progress: Progress, now: float) -> None:
        if not progress.phase or now - self._began_at < LIVE_AFTER_S:
            return
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True),
                transient=True,
                auto_refresh=False,
                # Who prints meanwhile prints where it wants to: stdout is the answer's.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(_line(progress, now, self._live.console.width), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class Ticker:
    """Draws from a thread of its own, so that waiting shows even when nothing happens."""

    def __init__(self, screen: Screen, progress: Progress, lock: threading.Lock) -> None:
        self._screen, self._progress, self._lock = screen, progress, lock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            with self._lock:
                self._screen.draw(self._progress, now_s())


def write_stderr(line: str) -> None:
    """Print to stderr whatever the name of a file may contain."""
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(harmless(line).encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stderr.flush()


def _line(progress: Progress, now: float, width: int) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{SPINNER[int(now * 10) % len(SPINNER)]} ", style="cyan")
    text.append(f"{progress.phase:<9}", style="bold")
    text.append(_elapsed(now - progress.phase_since), style="dim")
    if (bar := progress.bar()) is not None and width >= 60:
        _append_bar(text, *bar)
    # The most telling parts first: what does not fit is cut at the end of the line.
    for part in (progress.counts(), progress.position(), progress.text):
        if part:
            text.append("  ")
            text.append(harmless(part).replace("\n", " "))
    text.truncate(max(10, width - 1), overflow="ellipsis")
    return text


def _append_bar(text: Text, done: float, total: float) -> None:
    full = min(BAR_CELLS, int(BAR_CELLS * done / total))
    text.append("  ")
    text.append("━" * full, style="green")
    text.append("─" * (BAR_CELLS - full), style="dim")


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
