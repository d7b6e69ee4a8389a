"""The values of a plan: the rules it follows, its actions, the plan itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from comfymodal.storage.base import Carry
from comfymodal.storage.filters import Filter
from comfymodal.storage.values import FileState

Direction = Literal["pull", "push", "both"]
Side = Literal["here", "there"]
Kind = Literal[
    "new",  # missing on the receiving side: copied
    "changed",  # replaces what the receiving side has
    "same",  # in step, as the base says
    "adopt",  # in step, and the base does not know it yet
    "only_here",
    "only_there",
    "delete_here",
    "delete_there",
    "conflict",  # nothing happens until the operator says which side to prefer
    "unread",  # equal in size, and nobody read it: only a look at the listings was asked for
    "kept",  # differs, and the operator prefers what the receiving side has
    "refused",  # a name that no place may be given
]


@dataclass(frozen=True, slots=True)
class Rules:
    """How the operator wants this sync to go."""

    direction: Direction
    delete: bool = False
    """Carry deletions over, into the trash; without it nothing is ever deleted."""
    prefer: Literal["here", "there", "both"] | None = None
    allow_empty: bool = False
    filter: Filter = field(default_factory=Filter)
    conflict_mark: str = "conflict"
    """Goes into the names of conflict copies: `conflict-<host>-<stamp>`."""
    ignores_case: bool = False
    """Whether a place that is written to takes `A` and `a` for one file."""

    def allows(self, carry: Carry) -> bool:
        return self.direction in (carry, "both")


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to one path, and why."""

    path: str
    kind: Kind
    size: int
    why: str
    direction: Carry | None = None
    """Set when the file is copied."""
    here: FileState | None = None
    there: FileState | None = None
    keep_as: str | None = None
    """The receiving side's own file is renamed to this before the copy."""

    @property
    def source(self) -> FileState | None:
        return {"pull": self.there, "push": self.here, None: None}[self.direction]

    @property
    def target(self) -> FileState | None:
        """What the copy replaces."""
        return {"pull": self.here, "push": self.there, None: None}[self.direction]

    def to_dict(self) -> dict[str, Any]:
        found = {"path": self.path, "action": self.kind, "size_bytes": self.size, "why": self.why}
        return found | {"direction": self.direction} | ({"keep_as": self.keep_as} if self.keep_as else {})


@dataclass(frozen=True, slots=True)
class Plan:
    """Every path of both listings (and of the base, as far as the filter reaches) exactly once, sorted."""

    pair: str
    direction: Direction
    actions: tuple[Action, ...]
    listed_at: float
    here_files: int
    there_files: int
    notices: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """How much is copied."""
        return sum(action.size for action in self.actions if action.direction)

    @property
    def counts(self) -> Mapping[str, int]:
        return Counter(action.kind for action in self.actions)

    def copies(self, carry: Carry) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.direction == carry)

    def deletions(self, side: Side) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.kind == f"delete_{side}")

    @property
    def conflicts(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.kind == "conflict")

    @property
    def is_in_step(self) -> bool:
        """Whether there is nothing to do, to decide or to repair."""
        settled = {"same", "adopt", "kept"} | ({"only_here", "only_there"} if self.direction != "both" else set())
        return all(action.kind in settled for action in self.actions)
