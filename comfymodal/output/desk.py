"""The operator's terminal as operations see it: progress, warnings, questions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from comfymodal.errors import BudgetError, ComfymodalError, NotReadyError
from comfymodal.operations.desk import Question, Setup
from comfymodal.output.envelope import dump
from comfymodal.output.progress import Progress, now_s
from comfymodal.output.screen import LiveScreen, PlainScreen, Screen, SilentScreen, Ticker, write_stderr


class TerminalDesk:
    """Fulfils `operations.desk.Desk`. A context manager: on leaving it the live line is gone."""

    def __init__(self, *, as_json: bool, as_events: bool, assume_yes: bool, is_quiet: bool) -> None:
        self.as_json = as_json
        self.as_events = as_events
        self.is_quiet = is_quiet
        self.warnings: list[str] = []
        self._assume_yes = assume_yes
        self._progress = Progress()
        self._screen = _choose_screen(as_events=as_events, is_quiet=is_quiet)
        self._lock = threading.Lock()
        self._ticker: Ticker | None = None

    def __enter__(self) -> TerminalDesk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(self, event: Mapping[str, Any]) -> None:
        if self.as_events:
            sys.stdout.write(dump(event) + "\n")
            sys.stdout.flush()
            return
        with self._lock:
            if (line := self._progress.take(event, now_s())) is not None:
                self._screen.keep(line)
        if self._ticker is None:
            self._ticker = Ticker(self._screen, self._progress, self._lock)
            self._ticker.start()

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        if self.as_events:
            self.event({"type": "warning", "message": message})
        elif not self.as_json:
            with self._lock:
                self._screen.keep(f"warning   {message}")

    def agree(self, setup: Setup) -> bool:
        """Show what would be set up and ask. Raises `NotReadyError` when there is nobody to ask."""
        self._present(setup.summary, setup.details)
        unasked = NotReadyError(setup.summary, hint="run the same command with --yes to do so")
        return self._ask(setup.ask, default=True, unasked=unasked)

    def confirm(self, question: Question) -> bool:
        """Show what would be done and ask. Raises `NotReadyError` or `BudgetError` when there is nobody to ask."""
        if question.is_over_budget:
            if self._is_anybody_there():
                self._present(question.summary, question.details)
            hint = "; or ".join(("answer at a terminal, without --yes", *question.details))
            unpaid = BudgetError(question.summary, hint=hint)
            return self._ask(question.ask, default=False, unasked=unpaid, may_assume=False)
        self._present(question.summary, question.details)
        details = "; ".join(question.details)
        unasked = NotReadyError(f"needs a yes: {question.summary} ({details})", hint="run the same command with --yes")
        return self._ask(question.ask, default=False, unasked=unasked)

    def _is_anybody_there(self) -> bool:
        return not self._assume_yes and sys.stdin.isatty() and sys.stderr.isatty()

    def _present(self, summary: str, details: tuple[str, ...]) -> None:
        self.close()
        if not self.as_events:
            write_stderr(summary)
            for detail in details:
                write_stderr(f"  {detail}")

    def _ask(self, question: str, *, default: bool, unasked: ComfymodalError, may_assume: bool = True) -> bool:
        if self._assume_yes and may_assume:
            return True
        if not self._is_anybody_there():
            raise unasked
        import typer

        return typer.confirm(question, default=default, err=True)

    def close(self) -> None:
        """Take the live line off the screen; the next event brings it back."""
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
        with self._lock:
            self._screen.close()


def _choose_screen(*, as_events: bool, is_quiet: bool) -> Screen:
    if as_events or is_quiet:
        return SilentScreen()
    return LiveScreen() if sys.stderr.isatty() else PlainScreen()
