"""What an operation may say to, and ask of, the person at the terminal while it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from comfymodal.targets.base import Setup

__all__ = ["Desk", "Question", "Setup"]


@dataclass(frozen=True, slots=True)
class Question:
    """Something that cannot be taken back; the answer without a word is no."""

    summary: str
    details: tuple[str, ...]
    ask: str
    is_over_budget: bool = False
    """Only a person may say yes: `--yes` never raises a budget."""


class Desk(Protocol):
    """Implemented by `output`; a script that uses operations brings its own."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Something happened: a phase, a node, a step."""

    def warn(self, message: str) -> None:
        """Something is off but does not stop the command."""

    def agree(self, setup: Setup) -> bool:
        """Ask whether to go ahead with a setup. Raises `NotReadyError` where nobody can be asked."""

    def confirm(self, question: Question) -> bool:
        """Ask whether to do what cannot be taken back.

        Raises `NotReadyError`, or `BudgetError` if it is about a budget, where nobody can be asked.
        """
