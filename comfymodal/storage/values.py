"""What a sync talks about: files as a listing tells them, and the two places it stands between. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class FileState:
    """One file as a listing tells it.

    `hashes` maps "sha1", "md5" or "sha256" to lower-case hex and may be empty: some remotes know none, and a
    folder's files are hashed only when asked for. `version` is the remote's id or etag of this very content; a
    remote that tells neither gives what it changes at every upload (its own time of it, as text).
    """

    size: int
    hashes: Mapping[str, str] = field(default_factory=dict)
    mtime: float | None = None
    """Unix seconds; decides nothing where hashes or versions can."""
    version: str | None = None


Listing = Mapping[str, FileState]
"""By POSIX path relative to the place's root."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A bucket, or a folder in one, that rclone reaches."""

    name: str
    kind: Literal["b2", "s3"]
    bucket: str
    prefix: str = ""
    """Without slashes at its ends; empty for the whole bucket."""
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.prefix}" if self.prefix else f"{self.name}:"


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens a remote; never printed."""

    key_id: str = field(repr=False)
    key: str = field(repr=False)

    def __str__(self) -> str:
        return "Keys(hidden)"


@dataclass(frozen=True, slots=True)
class Folder:
    """A volume's mount, or a folder on a local disk."""

    path: Path
    volume_version: int | None = None
    """1 or 2; None for a local disk."""

    def __str__(self) -> str:
        return str(self.path)


Place = Remote | Folder
