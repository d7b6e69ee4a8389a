"""Half-written files that nobody will finish."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

ORPHAN_AGE_S = 3600.0

_PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.partial")
"""As rclone names them; the digits follow from the source, so that the same source goes on with its own."""


def sweep_partials(folder: Path, *, now: float | None = None) -> int:
    """Remove what rclone left half-written an hour ago or longer; return how many files that were.

    After a kill the next sync goes on with such a file, unless its source has changed: then it would stay for ever.
    Call it when nothing is being copied there.
    """
    removed = 0
    before = (time.time() if now is None else now) - ORPHAN_AGE_S
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if _PARTIAL.fullmatch(name):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < before:
                        path.unlink()
                        removed += 1
    return removed
