"""What is told: one document, of which each kind of receiver makes its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Event = Literal["finished", "failed", "budget", "test"]

SCHEMA = "comfymodal/notification/1"


@dataclass(frozen=True, slots=True)
class Picture:
    """A small JPEG of the first picture a run left; `title` says of which file."""

    name: str
    title: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing that happened. Free of secrets: whoever makes one takes care of that.

    `run`: `{id, kind, status, target, title, gpu, seconds, cost}`, `cost` in US dollars as text, None where it is not
    known; `cost_text` says it to people. `outputs`: `{count, names}` of files that were brought to this machine, None
    where none were. `error`: `{code, message, hint}`. `budget`: `{name, limit, spent, threshold, since}`, dollars as
    text, `since` as ISO 8601, `threshold` as a part of 1. `next` is a command.
    """

    event: Event
    project: str
    at: str
    run: Mapping[str, Any] | None = None
    cost_text: str | None = None
    summary: str | None = None
    outputs: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    log_tail: str | None = None
    budget: Mapping[str, Any] | None = None
    next: str | None = None
    picture: Picture | None = None

    def document(self) -> dict[str, Any]:
        """As a plain webhook gets it. Keys are never renamed under this schema; further ones may come."""
        keys = ("event", "project", "at", "run", "summary", "outputs", "error", "log_tail", "budget", "next")
        return {"schema": SCHEMA, **{key: getattr(self, key) for key in keys}}

    @property
    def headline(self) -> str:
        """One line without any markup."""
        if self.event == "test":
            return f"comfymodal: a test from project {self.project}"
        if self.budget is not None:
            part = f"{float(self.budget['threshold']):.0%}"
            return f"comfymodal: project {self.project} has spent {part} of its budget {self.budget['name']}"
        run = self.run or {}
        word = "finished" if self.event == "finished" else str(run.get("status") or "failed")
        return f"comfymodal: {run.get('kind')} {run.get('title')} {word} ({run.get('id')})"
