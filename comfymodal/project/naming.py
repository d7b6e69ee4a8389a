"""The template of an output file's name: which fields it may use. Standard library only; fills nothing in."""

from __future__ import annotations

import re
from string import Formatter

NAMING_FIELDS = ("run_id", "prompt", "node_id", "title", "class_type", "index", "stem", "ext", "seed", "workflow")

_LEGAL = f"fields: {', '.join(NAMING_FIELDS)}"


def check_naming(template: str) -> str:
    """Return the template when `str.format_map` can fill it and it stays below a folder. Raises ValueError."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as exc:
        raise ValueError(f"is not a name template ({exc}); write {{{{ for a plain brace") from exc
    for _, name, spec, conversion in parts:
        if name is not None:
            _check_field(name, spec or "", conversion)
    literal = "".join(text + ("x" if name is not None else "") for text, name, _, _ in parts)
    if re.search(r"[\x00-\x1f\x7f\\]", literal):
        raise ValueError("must not contain backslashes or control characters; use / for subfolders")
    if literal.startswith(("/", "~")) or re.match(r"[A-Za-z]:", literal):
        raise ValueError("must be relative: it is placed under render.output_dir")
    # A part is also ".." when a field could complete it to one, but then it is text from a file's own name.
    if any(part.strip(" ") in ("", ".", "..") for part in literal.split("/")):
        raise ValueError("must not contain empty parts, `.` or `..` between slashes")
    return template


def _check_field(name: str, spec: str, conversion: str | None) -> None:
    # `{stem.__class__}` and `{stem[0]}` are not in the list either: a template reads values, nothing else.
    if name not in NAMING_FIELDS:
        raise ValueError(f"has no field {{{name}}}; {_LEGAL}")
    # Only the index is always a number; a wide width would build a huge name.
    if conversion or (spec and (name != "index" or re.fullmatch(r"0?[1-9]d?", spec) is None)):
        raise ValueError(f"cannot format {{{name}}} that way; only {{index:03}} and the like are formatted")
