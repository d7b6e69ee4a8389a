"""The board: a `modal.Dict` with an entry per run, overwritten as it goes on. Every client is only a reader of it.

Not a queue: reading one consumes, and it blocks when full. Entries vanish after days without use; what must last lies
on the outputs volume. Used on both sides, so it imports nothing but `modal` and the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import modal


class Board:
    """One project's board. Methods raise Modal's exceptions; their callers know what was attempted."""

    def __init__(self, name: str, environment: str | None) -> None:
        self._dict = modal.Dict.from_name(name, environment_name=environment, create_if_missing=True)

    def read(self, run_id: str) -> dict[str, Any] | None:
        """The newest snapshot: `{seq, events, call_id, container, outcome}`; None before a container took the run."""
        found = self._dict.get(_run(run_id))
        return found if isinstance(found, dict) else None

    def write(self, run_id: str, snapshot: Mapping[str, Any]) -> None:
        self._dict.put(_run(run_id), dict(snapshot))

    def announce(self, run_id: str, submitted: Mapping[str, Any]) -> None:
        """`{call_id, job}` by whoever submitted the run: others find it here while no container has it yet.

        An entry of its own, because the container may write the other one at the same moment.
        """
        self._dict.put(_announced(run_id), dict(submitted))

    def announced(self, run_id: str) -> dict[str, Any]:
        found = self._dict.get(_announced(run_id))
        return found if isinstance(found, dict) else {}

    def ask(self, run_id: str, word: str) -> None:
        """`stop` or `save`; the run obeys within a second or two."""
        self._dict.put(_control(run_id), word)

    def asked(self, run_id: str) -> str | None:
        found = self._dict.get(_control(run_id))
        return str(found) if found else None

    def ask_to_stop(self, run_id: str) -> None:
        self.ask(run_id, "stop")

    def note(self, key: str, value: Any) -> None:
        """Something that concerns no single run, e.g. until when a container is kept warm."""
        self._dict.put(f"note:{key}", value)

    def get(self, key: str) -> Any:
        return self._dict.get(f"note:{key}")


def _run(run_id: str) -> str:
    return f"run:{run_id}"


def _announced(run_id: str) -> str:
    return f"submitted:{run_id}"


def _control(run_id: str) -> str:
    return f"control:{run_id}"
