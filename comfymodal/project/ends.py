r"""The ends of a sync as text: `REMOTE:folder`, `ROLE:/folder`, or a local folder (`./x`, `~/x`, `C:\x`).

Reads no files and knows no settings but the names it is given.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfymodal.project.problems import Mistake, printable
from comfymodal.project.values import expand_path

ROLES = ("models", "inputs", "outputs", "datasets", "training", "cache")
"""What the volumes of a project are called in an end."""

_OWN_FOLDER = ".comfymodal"
_FORMS = "write REMOTE:folder, VOLUME:/folder or a folder of this machine (./folder)"


@dataclass(frozen=True, slots=True)
class WrittenEnd:
    """A remote or the role of a volume, with a folder in it; without a `name`, a folder of this machine.

    `path` is without slashes at its ends in the first case, as it was written in the second.
    """

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Known:
    """What an end can name: remotes, and volumes by role with their names (two roles may share one volume)."""

    remotes: tuple[str, ...]
    volumes: Mapping[str, str]


def split_end(text: str) -> WrittenEnd:
    """Tell the name from the path. Raises `Mistake` for text that is no end, whatever the project has."""
    if not text.strip():
        raise Mistake("must name a place", hint=_FORMS)
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        raise Mistake("must be UTF-8 text without control characters")
    name, colon, path = text.partition(":")
    if is_drive(text):
        return WrittenEnd("", text)
    if re.match("[A-Za-z]:", text):
        raise Mistake(f"must be a whole path, as in {name}:\\models", hint="names of remotes have more than one letter")
    if not colon or re.search(r"[/\\]", name):
        return _folder(text)
    if path.startswith("//"):
        hint = "name its bucket under `remotes` (or use one that is there), then write REMOTE:folder without the bucket"
        raise Mistake("must be a place of the project, not an address", hint=hint)
    return WrittenEnd(name, check_folder(path))


def is_drive(text: str) -> bool:
    """Whether the text is a path of Windows with its drive, on whichever system this is."""
    return re.match(r"[A-Za-z]:[\\/]", text) is not None


def check_folder(text: str) -> str:
    """Give a folder in a bucket or on a volume without slashes at its ends. Raises `Mistake` when it climbs out."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\\]", text):
        raise Mistake("must not contain backslashes or control characters; write / between folders")
    path = text.removeprefix("/").removesuffix("/")
    parts = path.split("/") if path else []
    if ".." in parts:
        raise Mistake("must not climb out of its place with `..`")
    if not {"", "."}.isdisjoint(parts):
        raise Mistake("must not contain empty parts or `.` between slashes")
    if parts[:1] == [_OWN_FOLDER]:
        raise Mistake(f"must not be {_OWN_FOLDER}: comfymodal keeps its own files there")
    return path


def absolute_end(text: str, *, base: Path | None) -> str:
    """Give the end with a relative folder put under `base`; all else stays as written. Raises ValueError."""
    written = split_end(text)
    if written.name or is_drive(text):
        return text
    # Not resolved: a link may point elsewhere tomorrow, and its name is what the operator knows.
    return os.path.abspath(expand_path(text, base=base))


def require_known(end: WrittenEnd, known: Known) -> None:
    """Raise `Mistake` for a name the project does not have."""
    if not end.name:
        if end.path in known.remotes:
            raise _bare(end.path, f"{end.path}:folder for the remote")
        return
    names = (*known.remotes, *known.volumes)
    if end.name in names:
        return
    near = difflib.get_close_matches(end.name[:200].lower(), names, n=1, cutoff=0.5)
    remotes = f"remotes: {', '.join(known.remotes)}" if known.remotes else "there are no remotes yet"
    question = f"did you mean `{near[0]}:`? " if near else ""
    raise Mistake(
        f"has no remote and no volume called {printable(end.name)}",
        hint=f"{question}{remotes}; volumes: {', '.join(known.volumes)}",
    )


def require_apart(source: WrittenEnd, target: WrittenEnd, known: Known) -> None:
    """Raise `Mistake` for two remotes, and for two ends of which one holds the other."""
    if source.name in known.remotes and target.name in known.remotes:
        raise Mistake(
            f"has two remotes ({source.name}, {target.name}): one end must be a volume or a folder",
            hint="sync the first to a volume, then the volume to the second",
        )
    if _place(source, known) == _place(target, known):
        refuse_nested(_parts(source), _parts(target))


def refuse_nested(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    """Raise `Mistake` when one path, as its parts, is the other or lies in it."""
    if source == target:
        raise Mistake("has the same place at both ends")
    shorter = min(len(source), len(target))
    if source[:shorter] == target[:shorter]:
        inner = "source lies in its target" if len(source) > len(target) else "target lies in its source"
        raise Mistake(f"has one end inside the other: the {inner}", hint="choose folders beside each other")


def _folder(text: str) -> WrittenEnd:
    if text in ROLES:
        raise _bare(text, f"{text}:/ for the volume")
    return WrittenEnd("", text)


def _bare(text: str, other: str) -> Mistake:
    return Mistake("must say which place it is", hint=f"write {other}, or ./{text} for a folder here")


def _place(end: WrittenEnd, known: Known) -> tuple[str, str]:
    if not end.name:
        return "folder", end.path[:2].lower() if is_drive(end.path) else ""
    return ("volume", known.volumes[end.name]) if end.name in known.volumes else ("remote", end.name)


def _parts(end: WrittenEnd) -> tuple[str, ...]:
    # Of a path of Windows, both separators and either case.
    path = end.path.replace("\\", "/").lower() if is_drive(end.path) else end.path
    return tuple(part for part in path.split("/") if part)
