"""Half-written files that nobody will finish."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Container
from pathlib import Path

from comfymodal.storage.names import OWN_FOLDER

ORPHAN_AGE_S = 3600.0

_PARTIAL = re.compile(r"(.+)\.[0-9a-f]{8}\.partial")
"""As rclone names them; the digits follow from the source, so that the same source goes on with its own."""


def sweep_partials(folder: Path, paths: Container[str], *, now: float | None = None) -> int:
    """Remove what rclone left half-written of these an hour ago or longer; return how many files that were.

    After a kill the next sync goes on with such a file, unless its source has changed: then it would stay for ever.
    A file of somebody else that only is called so stays, and all that lies in the trash. Call it when nothing is being
    copied there.
    """
    removed = 0
    before = (time.time() if now is None else now) - ORPHAN_AGE_S
    for place, folders, names in os.walk(folder):
        if OWN_FOLDER in folders:
            folders.remove(OWN_FOLDER)
        for name in names:
            path = Path(place, name)
            half = _PARTIAL.fullmatch(name)
            if half is not None and path.with_name(half[1]).relative_to(folder).as_posix() in paths:
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < before:
                        path.unlink()
                        removed += 1
    return removed
