"""Words for messages: values shown short, and names near to one that is unknown."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LONGEST_COMPARED = 200
"""difflib is quadratic: a prompt pasted where a name belongs must not cost seconds."""


def shown(value: Any, *, limit: int = 80) -> str:
    """Return *value* as one line of JSON, cut at *limit* characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."


def near_names(wanted: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to *count* of *known* that look like *wanted*, best first, whatever their case."""
    if len(wanted) > _LONGEST_COMPARED:
        return []
    by_folded: dict[str, list[str]] = {}
    for name in known:
        same = by_folded.setdefault(name.casefold(), [])
        if name not in same:
            same.append(name)
    matches = difflib.get_close_matches(wanted.casefold(), by_folded, n=count)
    return [name for match in matches for name in by_folded[match]][:count]


def near_files(path: Path) -> list[str]:
    """Return paths in *path*'s folder whose file names look like its own; none when the folder cannot be listed."""
    try:
        names = sorted(os.listdir(path.parent))
    except (OSError, ValueError):
        return []
    return [str(path.parent / name) for name in near_names(path.name, names)]


def did_you_mean(near: Iterable[str]) -> str | None:
    """Return the question a hint starts with, or None when nothing is near."""
    found = list(near)
    return f"did you mean {' or '.join(found)}?" if found else None


def listed(names: Iterable[str], *, limit: int = 12) -> str:
    """Return *names* joined by commas; beyond *limit* only how many more there are."""
    found = list(names)
    more = f" ... ({len(found) - limit} more)" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def sentences(*parts: str | None) -> str | None:
    """Join the parts of a hint that exist; None when none does."""
    return "; ".join(part for part in parts if part).replace("?; ", "? ") or None
