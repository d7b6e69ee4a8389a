"""Which paths rclone can be given in a list, and the list itself. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence


def why_refused(path: str) -> str | None:
    """Why this path cannot be copied by name; None when it can."""
    if not path or path != posixpath.normpath(path) or path.startswith(("/", "../")) or path in (".", ".."):
        return "it is no path inside the folder"
    # The list has one path a line, and rclone writes control characters under another name.
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "its name holds a line break or another control character; rename it"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return None


def plan_bytes(paths: Sequence[str]) -> bytes:
    """The paths as `--files-from-raw` reads them. Call with paths that are not refused."""
    return "".join(f"{path}\n" for path in paths).encode()
