"""Which runs ended while a command was at work, until whoever wants to know of them was told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comfymodal.errors import CancelledError, ComfymodalError

if TYPE_CHECKING:
    from comfymodal.operations.context import Context
    from comfymodal.operations.desk import Desk


@dataclass(slots=True)
class News:
    """Shared by all contexts of one command. `runs` are ids, in the order in which they ended."""

    runs: dict[str, None] = field(default_factory=dict)

    def add(self, run_id: str) -> None:
        self.runs[run_id] = None

    def take(self) -> tuple[str, ...]:
        taken = tuple(self.runs)
        self.runs.clear()
        return taken


@contextlib.contextmanager
def telling(context: Context, desk: Desk) -> Iterator[None]:
    """On leaving it, those named under `notify` hear of the runs that ended inside; after Ctrl-C they do not: somebody
    is there, and waits. Nothing that fails meanwhile is raised.
    """
    try:
        yield
    except CancelledError:
        raise
    except ComfymodalError:
        _tell(context, desk)
        raise
    _tell(context, desk)


def _tell(context: Context, desk: Desk) -> None:
    if context.news.runs and context.project.target == "modal":
        from comfymodal.operations.budgets import watch_budgets

        try:
            watch_budgets(context, desk)
        except ComfymodalError as exc:
            desk.warn(f"nobody looked how much of the budgets is left: {exc.message}")
    if context.news.runs and context.project.notify:
        # Nobody pays for importing it who wants to tell nobody.
        from comfymodal.operations.notify import notify_runs

        notify_runs(context, desk)
