"""Names of runs and of the files they leave: sortable, unique, safe."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from comfymodal.comfyui.outputs import safe_name

NOT_RENDERS = "??????-??????-*-????"
"""Run ids of jobs that leave no outputs, as a pattern of `storage.filters`."""


def new_run_id(now: float, kind: str = "render") -> str:
    """E.g. `261121-093012-k7f3`: UTC date and time, four random letters; sorts by time.

    That of another job than a render names its kind: `261121-093012-sync-k7f3`.
    """
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    mark = "".join(secrets.choice(letters) for _ in range(4))
    return time.strftime("%y%m%d-%H%M%S-", time.gmtime(now)) + (mark if kind == "render" else f"{kind}-{mark}")


def name_outputs(
    outputs: Sequence[Mapping[str, Any]], *, template: str, fields: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], PurePosixPath]]:
    """Pair each output with its path below the output folder; two never get the same one.

    Template fields: those given, and `prompt node_id title class_type index stem ext` of each output.
    """
    # The receipt lies beside them.
    taken = {"receipt.json"}
    for index, output in enumerate(outputs):
        name = PurePosixPath(output["name"])
        values = {
            **fields,
            "prompt": output.get("prompt", 0),
            "node_id": safe_name(str(output["node_id"])),
            "title": safe_name(str(output["title"])),
            "class_type": safe_name(str(output["class_type"])),
            "index": index,
            "stem": name.stem,
            "ext": name.suffix,
        }
        wanted = PurePosixPath(*(safe_name(part) for part in template.format(**values).split("/") if part))
        yield output, _untaken(wanted, taken)


def _untaken(wanted: PurePosixPath, taken: set[str]) -> PurePosixPath:
    # Compared without case, as the file systems of macOS and Windows do.
    path, number = wanted, 1
    while str(path).lower() in taken:
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    taken.add(str(path).lower())
    return path


def media_type_of(path: Path) -> str:
    """The media type by content, else by extension, else `application/octet-stream`."""
    import mimetypes

    import puremagic

    guessed, _ = mimetypes.guess_type(path.name)
    try:
        found = puremagic.magic_file(str(path))
    except (puremagic.PureError, OSError, ValueError):
        found = []
    by_content = [match.mime_type for match in found if match.mime_type not in ("", "application/octet-stream")]
    # Containers share signatures (WebM and Matroska, MP4 and QuickTime): the extension chooses among the candidates.
    if guessed in by_content or (guessed and not by_content):
        return str(guessed)
    return str(by_content[0]) if by_content else "application/octet-stream"
