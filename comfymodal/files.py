"""JSON files that are never half-written; importable by every room, imports nothing of ours."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Replace `path` whole or leave it as it was. Raises `OSError`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent))


def write_text(path: Path, text: str) -> None:
    """Replace `path` whole or leave it as it was. Raises `OSError`, also for a device or a pipe."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(_utf8(text))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when there is no such file or it holds no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def append_json_line(path: Path, value: Any) -> None:
    """Append one line in a single write, so that a killed writer tears at most the last line. Raises `OSError`."""
    line = _utf8(json.dumps(value, ensure_ascii=False)) + b"\n"
    with path.open("ab+") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        # A killed writer's half line must not swallow this one.
        stream.write(line if stream.read(1) in (b"", b"\n") else b"\n" + line)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of `path` that is a JSON object; empty when there is no such file. A torn line is skipped."""
    try:
        return parse_json_lines(path.read_bytes())
    except OSError:
        return []


def parse_json_lines(text: bytes) -> list[dict[str, Any]]:
    """Every whole line that is a JSON object."""
    found = []
    for line in text.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _utf8(text: str) -> bytes:
    # Half a surrogate pair (in a node's text, in a file name) becomes its own JSON escape instead of an exception.
    return text.encode("utf-8", "backslashreplace")
