"""Which files of a listing a sync is about: globs as rclone reads them, decided before the plan, never by rclone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from comfymodal.errors import UsageError
from comfymodal.storage.names import OWN_FOLDER
from comfymodal.storage.values import FileState, Listing

ALWAYS_EXCLUDED = ("*.partial", f"{OWN_FOLDER}/**", ".cache/huggingface/**")
"""Half-written files of rclone (a later push would upload them), what we keep for ourselves, download caches."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is meant: everything, or what an `include` names, less what an `exclude` names.

    Globs are rclone's: `*` stays within a folder, `**` does not, `{a,b}` and `[a-z]` choose, a leading `/` means the
    root, a trailing one a whole folder. Raises `UsageError` for a glob that is none.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for glob in (*self.include, *self.exclude):
            compile_glob(glob)

    def accepts(self, path: str) -> bool:
        if _matches_any(ALWAYS_EXCLUDED, path) or _matches_any(self.exclude, path):
            return False
        return not self.include or _matches_any(self.include, path)

    def select(self, listing: Listing) -> dict[str, FileState]:
        return {path: state for path, state in listing.items() if self.accepts(path)}

    def __str__(self) -> str:
        globs = [f"include {glob}" for glob in self.include] + [f"exclude {glob}" for glob in self.exclude]
        return ", ".join(globs) or "everything"


@lru_cache(maxsize=512)
def compile_glob(glob: str) -> re.Pattern[str]:
    """The pattern that a whole path must match. Raises `UsageError`."""
    if not glob.strip("/"):
        raise _bad(glob, "it names nothing")
    if "{{" in glob:
        raise _bad(glob, "regular expressions between {{ and }} are rclone's, not ours")
    anchored = glob.startswith("/")
    body = glob.lstrip("/") + ("**" if glob.endswith("/") else "")
    translated = "".join(_translate(body, glob))
    try:
        return re.compile(("" if anchored else "(?:.*/)?") + translated, re.DOTALL)
    except re.error as error:
        raise _bad(glob, str(error)) from error


def _translate(body: str, glob: str) -> Iterator[str]:
    position, depth = 0, 0
    while position < len(body):
        character = body[position]
        step = 1
        if character == "*":
            step = len(body[position:]) - len(body[position:].lstrip("*"))
            yield ".*" if step > 1 else "[^/]*"
        elif character == "[":
            step = _class_length(body, position, glob)
            yield _character_class(body[position : position + step])
        elif character == "\\":
            step = 2
            yield re.escape(_escaped(body, position, glob))
        elif character in "{},?":
            depth += {"{": 1, "}": -1}.get(character, 0)
            yield _special(character, depth)
        else:
            yield re.escape(character)
        if depth < 0:
            raise _bad(glob, "a } without {")
        position += step
    if depth:
        raise _bad(glob, "a { without }")


def _special(character: str, depth: int) -> str:
    if character == ",":
        return "|" if depth else ","
    return {"{": "(?:", "}": ")", "?": "[^/]"}[character]


def _class_length(body: str, start: int, glob: str) -> int:
    # As everywhere: a ] right after the opening, or after its negation, is a member.
    first = start + (2 if body[start + 1 : start + 2] in ("!", "^") else 1)
    end = body.find("]", first + 1)
    if end < 0:
        raise _bad(glob, "a [ without ]")
    return end - start + 1


def _character_class(text: str) -> str:
    members = text[1:-1]
    negated = members[:1] in ("!", "^")
    members = members[1:] if negated else members
    # Escaped, so that no member has a second meaning to `re`; the ranges' dashes stay.
    members = re.sub(r"([\\\[\]^&~|])", r"\\\1", members).replace("--", r"-\-")
    return f"[^/{members}]" if negated else f"(?!/)[{members}]"


def _escaped(body: str, position: int, glob: str) -> str:
    if position + 1 >= len(body):
        raise _bad(glob, "it ends in a backslash")
    return body[position + 1]


def _matches_any(globs: tuple[str, ...], path: str) -> bool:
    return bool(globs) and _compile_any(globs).fullmatch(path) is not None


@lru_cache(maxsize=64)
def _compile_any(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{compile_glob(glob).pattern})" for glob in globs), re.DOTALL)


def _bad(glob: str, why: str) -> UsageError:
    return UsageError(
        f"{glob!r} is no pattern for files: {why}", hint="examples: *.ckpt  loras/**  /checkpoints/*.safetensors"
    )
