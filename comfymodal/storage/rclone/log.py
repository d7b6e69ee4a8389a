"""What rclone says while it works: one JSON object a line (`--use-json-log`). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LogLine:
    level: str
    """debug, info, notice, error or critical; "" for a line that is no JSON."""
    message: str
    path: str | None = None
    """The file it is about, relative to the source."""
    size: int | None = None
    stats: Mapping[str, Any] | None = None

    @property
    def is_error(self) -> bool:
        # A panic or a complaint about flags comes as plain text; an attempt that succeeded is logged as an error.
        is_success = self.message.startswith("Attempt ") and self.message.endswith("succeeded")
        return self.level in ("error", "critical", "") and not is_success

    @property
    def is_copied(self) -> bool:
        """Said once for each file that is whole and under its final name."""
        return self.path is not None and self.level == "info" and "Copied (" in self.message

    @property
    def is_deleted(self) -> bool:
        return self.path is not None and self.level == "info" and self.message == "Deleted"


@dataclass(frozen=True, slots=True)
class Moving:
    """A file on its way."""

    path: str
    bytes: int
    size: int


def parse_line(text: str) -> LogLine:
    """One line of rclone's log; what is no JSON is kept as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return LogLine("", text.strip())
    path, size, stats = value.get("object"), value.get("size"), value.get("stats")
    return LogLine(
        level=str(value.get("level", "")),
        message=str(value.get("msg", "")).strip(),
        path=path if isinstance(path, str) else None,
        size=size if isinstance(size, int) else None,
        stats=stats if isinstance(stats, dict) else None,
    )


def moving_files(stats: Mapping[str, Any]) -> tuple[Moving, ...]:
    """The files on their way; rclone leaves the key out when there is none."""
    return tuple(
        Moving(str(each.get("name", "")), int(each.get("bytes") or 0), int(each.get("size") or 0))
        for each in stats.get("transferring") or []
        if isinstance(each, dict)
    )


def speed(stats: Mapping[str, Any]) -> float:
    """Bytes per second, as rclone measures them now."""
    return sum(float(each.get("speed") or 0) for each in stats.get("transferring") or [] if isinstance(each, dict))
