"""The base of a pair: what both sides held when they were last in step; one JSON file, replaced whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from comfymodal.errors import ConflictError, NotReadyError
from comfymodal.files import write_text
from comfymodal.storage.values import FileState, Listing

BASE_VERSION = 1

_T = TypeVar("_T")

# A file written in the same tick of a coarse clock in which it was hashed may change again without a new time.
_CLOCK_TICK_S = 2.0

Carry = Literal["pull", "push"]
"""pull: from there to here; push: from here to there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as both sides held it at `synced_at` (Unix seconds)."""

    size: int
    hashes: Mapping[str, str]
    version: str | None
    """Of the copy there: an id or etag."""
    mtime: float | None
    """Of the copy here; None where it proves nothing (see `recall`)."""
    synced_at: float
    verified: bool
    """Whether a hash of each side was compared; False where one side has none to compare."""

    @property
    def here(self) -> FileState:
        return FileState(self.size, self.hashes, self.mtime)

    @property
    def there(self) -> FileState:
        return FileState(self.size, self.hashes, version=self.version)


@dataclass(frozen=True, slots=True)
class Base:
    """The common past of a pair. `generation` counts the writes; `entries` are by path."""

    pair: str
    generation: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)
    pending: Mapping[str, Carry] = field(default_factory=dict)
    """Files whose copy was begun: what is missing, or new, on the receiving side may be our own doing."""
    digest: str = field(default="", compare=False)
    """Of the text this was read from or written as; how another writer is noticed."""


def read_base(path: Path, pair: str) -> Base | None:
    """The base in `path`; None when it is lost, damaged or that of another pair: then nothing may be deleted.

    Raises `NotReadyError` when a newer comfymodal wrote it: it must not be taken for damaged and overwritten.
    """
    text = _read(path)
    if text is None:
        return None
    try:
        base = _parse(json.loads(text), digest=_digest(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return base if base.pair == pair else None


def write_base(path: Path, base: Base) -> Base:
    """Write `base` as the next generation and return it as written; `path` is replaced whole or left as it was.

    Raises `ConflictError` when the file is no longer what `base` was read from, `OSError` when it cannot be written.
    The data it speaks of must be in place (on a volume: committed) before.
    """
    known = _read(path)
    if (_digest(known) if known is not None else "") != base.digest:
        # Another writer; or damaged, or of another pair, and so nothing that `base` could have been read from.
        current = read_base(path, base.pair)
        if current is not None or base.digest:
            raise ConflictError(
                f"the record of this sync was changed by another sync while it ran ({path.name})",
                hint="run the sync again: it goes on from what both have done",
                generation=current.generation if current else None,
            )
    written = replace(base, generation=base.generation + 1)
    text = _text(written)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return replace(written, digest=_digest(text.encode()))


def recall(here: Listing, base: Base | None) -> dict[str, FileState]:
    """`here` with the hashes that the base knows of files whose size and time are as they were.

    Sparing a library of hundreds of GB from being read at each sync; `--verify` skips it.
    """
    entries = base.entries if base else {}
    known = dict(here)
    for path, state in here.items():
        entry = entries.get(path)
        if entry is not None and not state.hashes and is_untouched(state, entry):
            known[path] = FileState(state.size, entry.hashes, state.mtime, state.version)
    return known


def to_hash(
    here: Listing, there: Listing, base: Base | None, *, trusts_time: bool = False
) -> dict[str, tuple[str, ...]]:
    """The files here whose sameness only their bytes can tell -> the names of the hashes to take of each.

    Give the listing that `recall` returned. What differs in size, or is missing where it would be compared, is not
    named: no hash would change what happens to it. With `trusts_time` files of one size and time that no base knows
    are not named either: a library that rclone brought before us need not be read whole.
    """
    entries = base.entries if base else {}
    wanted = {}
    for path, state in here.items():
        entry, other = entries.get(path), there.get(path)
        if trusts_time and entry is None and other is not None and is_same_time(state.mtime, other.mtime):
            continue
        rivals = [rival for rival in (entry.here if entry else None, other) if rival is not None]
        names = {name for rival in rivals if same_content(state, rival) is None for name in rival.hashes}
        if names:
            wanted[path] = tuple(sorted(names))
    return wanted


def is_untouched(state: FileState, entry: Entry) -> bool:
    """Whether size and time say that nobody wrote to this file here since the base."""
    return state.size == entry.size and is_same_time(state.mtime, entry.mtime)


def is_same_time(one: float | None, other: float | None) -> bool:
    """Equal to the millisecond (rclone's and B2's precision), or to the second where one side keeps no fractions."""
    if one is None or other is None:
        return False
    if one.is_integer() or other.is_integer():
        return int(one) == int(other)
    return abs(one - other) <= 0.001


def lasting_time(mtime: float | None, *, listed_at: float) -> float | None:
    """`mtime` where it will prove that a file was not touched; None when the file was too young when listed."""
    return mtime if mtime is not None and mtime + _CLOCK_TICK_S < listed_at else None


def matches(one: FileState, other: FileState) -> bool | None:
    """Whether two states of one place are the same content; None when nothing tells.

    Size first, then any hash both have, then the remote's version.
    """
    content = same_content(one, other)
    if content is None and one.version is not None and other.version is not None:
        return one.version == other.version
    return content


def same_content(one: FileState, other: FileState) -> bool | None:
    """Whether two files are equal, wherever they are; None when they are of one size and no hash is known of both."""
    if one.size != other.size:
        return False
    if one.size == 0:
        return True
    # Written out: a plan asks this five times a file.
    is_known = False
    for name, value in one.hashes.items():
        rival = other.hashes.get(name)
        if rival is None:
            continue
        if value != rival and value.lower() != rival.lower():
            return False
        is_known = True
    return True if is_known else None


def _text(base: Base) -> str:
    return json.dumps(
        {
            "version": BASE_VERSION,
            "generation": base.generation,
            "pair": base.pair,
            "pending": dict(base.pending),
            "entries": {path: _entry_dict(entry) for path, entry in base.entries.items()},
        },
        sort_keys=True,
    )


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "size": entry.size,
        "hashes": dict(entry.hashes),
        "etag": entry.version,
        "mtime": entry.mtime,
        "synced_at": entry.synced_at,
        "verified": entry.verified,
    }


def _parse(value: Any, *, digest: str) -> Base:
    if value["version"] > BASE_VERSION:
        raise NotReadyError(
            f"the record of this sync has format {value['version']}, this comfymodal knows {BASE_VERSION}",
            hint="upgrade comfymodal (and deploy again), then run the sync again",
        )
    return Base(
        pair=_a(str, value["pair"]),
        generation=_a(int, value["generation"]),
        entries={path: _parse_entry(entry) for path, entry in value["entries"].items()},
        pending={path: _parse_carry(carry) for path, carry in value["pending"].items()},
        digest=digest,
    )


def _parse_entry(value: Any) -> Entry:
    hashes = {_a(str, name): _a(str, found) for name, found in value["hashes"].items()}
    return Entry(
        size=_a(int, value["size"]),
        hashes=hashes,
        version=None if value["etag"] is None else _a(str, value["etag"]),
        mtime=None if value["mtime"] is None else float(value["mtime"]),
        synced_at=float(value["synced_at"]),
        verified=_a(bool, value["verified"]),
    )


def _parse_carry(value: Any) -> Carry:
    if value == "pull":
        return "pull"
    if value == "push":
        return "push"
    raise ValueError(value)


def _a(kind: type[_T], value: Any) -> _T:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
