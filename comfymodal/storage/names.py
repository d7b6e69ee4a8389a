"""Names of files and of what a sync writes beside them: which are refused, how copies are called, what stays inside."""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from comfymodal.errors import SyncRefusedError

OWN_FOLDER = ".comfymodal"
"""What sync keeps for itself at the root of a place: bases and trash. Never part of a listing."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_SEGMENT_BYTES = 255
_MAX_PATH_BYTES = 1024


def refusal_of(path: str) -> str | None:
    """Why no place may be given a file of this name; None when any may.

    A listing is somebody else's text: a bucket may hold keys that climb out of the folder they are written to.
    """
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if _CONTROL.search(path):
        return "its name holds a control character (a line break, a tab ...)"
    if "\\" in path:
        return "its name holds a backslash, a separator on other systems"
    if path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "its name is absolute, or has empty, '.' or '..' parts"
    if len(encoded) > _MAX_PATH_BYTES or any(len(part) > _MAX_SEGMENT_BYTES for part in encoded.split(b"/")):
        return f"its name is too long (at most {_MAX_SEGMENT_BYTES} bytes a part, {_MAX_PATH_BYTES} in all)"
    return None


def notice_of(path: str) -> str | None:
    """What is odd, though legal, about a name."""
    if any(segment.endswith((".", " ")) for segment in path.split("/")):
        return f"{path!r} ends in a dot or a space: Windows cannot store it"
    return None


def case_clashes(paths: Iterable[str]) -> dict[str, str]:
    """Each path that a place ignoring case (or the way accents are written) takes for another one -> that other one.

    Parts of a path count too: `Loras/a` and `loras/b` would end up in one folder, which harms nobody; `Loras/a` and
    `loras/A` in one file.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(set(paths)):
        groups[unicodedata.normalize("NFC", path).casefold()].append(path)
    clashes = {}
    for group in groups.values():
        if len(group) > 1:
            clashes.update({path: group[0] if path != group[0] else group[1] for path in group})
    return clashes


def file_folder_clashes(paths: Iterable[str]) -> dict[str, str]:
    """Each path that is a file on one side and a folder on the other -> a path that shows it."""
    known = set(paths)
    clashes = {}
    for path in sorted(known):
        folder = path.rpartition("/")[0]
        while folder:
            if folder in known:
                clashes[path] = folder
                clashes[folder] = path
            folder = folder.rpartition("/")[0]
    return clashes


def ignores_case(root: Path) -> bool:
    """Whether the disk under `root` takes `A` and `a` for one file. Creates our own folder to find out."""
    own = root / OWN_FOLDER
    own.mkdir(parents=True, exist_ok=True)
    return (root / OWN_FOLDER.upper()).exists()


def inside(root: Path, path: str) -> Path:
    """`path` under `root`. Raises `SyncRefusedError` for a name we refuse, and when a link leads out of `root`."""
    if (why := refusal_of(path)) is not None:
        raise SyncRefusedError(f"{path!r} was refused: {why}", path=path)
    found = root / path
    if not found.parent.resolve().is_relative_to(root.resolve()):
        raise SyncRefusedError(
            f"{path!r} was refused: a link leads out of {root}", hint="replace that link by a real folder", path=path
        )
    return found


def stamp_of(now: float) -> str:
    """The moment as part of a file's name, in UTC; sorts by time. `now` in Unix seconds."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def conflict_name(path: str, mark: str, taken: Iterable[str] = ()) -> str:
    """Where the side that gives way is kept: `a/b.ext` -> `a/b.<mark>.ext`, with a number when that is `taken`."""
    mark = re.sub(r"[^A-Za-z0-9_-]+", "-", mark)
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    for number in range(1, 10_000):
        tail = f".{mark}" + (f"-{number}" if number > 1 else "") + dot + extension
        found = _shortened(stem, _MAX_SEGMENT_BYTES - len(tail.encode())) + tail
        found = f"{folder}/{found}" if folder else found
        if found not in taken:
            return found
    raise SyncRefusedError(
        f"{path!r} has ten thousand conflict copies", hint="clear them up, then run again", path=path
    )


def pair_id(here: str, there: str) -> str:
    """What a base is the base *of*: both places in full. Another bucket under the same project name is another pair."""
    return f"{here} <-> {there}"


def base_file(root: Path, pair: str) -> Path:
    """Where the base of a pair lies; `root` is the root of the volume (or folder) that holds the lease."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", pair).strip("-")[:60]
    return root / OWN_FOLDER / "bases" / f"{readable}-{hashlib.sha256(pair.encode()).hexdigest()[:12]}.json"


def _shortened(text: str, room_bytes: int) -> str:
    return text.encode()[: max(1, room_bytes)].decode("utf-8", "ignore") or "_"
