"""What an operation may say to, and ask of, the person at the terminal while it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from comfymodal.targets.base import Setup

__all__ = ["Desk", "Setup"]


class Desk(Protocol):
    """Implemented by `output`; a script that uses operations brings its own."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Something happened: a phase, a node, a step."""

    def warn(self, message: str) -> None:
        """Something is off but does not stop the command."""

    def agree(self, setup: Setup) -> bool:
        """Ask whether to go ahead with a setup. Raises `NotReadyError` where nobody can be asked."""
