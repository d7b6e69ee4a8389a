"""Why a ComfyUI did not come up, read from its log; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST = 300

_TRACEBACK = "Traceback (most recent call last):"
_LINES_AFTER = 6
"""An exception's message may have lines; after more than these ComfyUI had caught it and gone on."""

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")
_NAMED_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt): .+")
_BARE_REASONS = (
    # argparse, the interpreter, the dynamic loader: none of them leaves a traceback.
    re.compile(r"\S+: error: (?P<reason>.+)"),
    re.compile(r".*(?P<reason>can't open file .+)"),
    re.compile(r".*(?P<reason>error while loading shared libraries.*)"),
    re.compile(r"(?P<reason>Fatal Python error: .+)"),
)
_HINTS = (
    (re.compile(r"unrecognized arguments|expected (one|at least one) argument|invalid choice"), "correct comfyui.args"),
    (re.compile(r"No module named"), "a package is missing in the Python that runs ComfyUI: {python}"),
    (
        re.compile(r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|libcuda|No HIP GPUs", re.IGNORECASE),
        "this PyTorch finds no GPU that it can use; comfyui.args: [--cpu] does without",
    ),
    (
        re.compile(r"driver .* (is )?(insufficient|too old)", re.IGNORECASE),
        "update the NVIDIA driver, or do without: comfyui.args: [--cpu]",
    ),
    (re.compile(r"out of memory|OutOfMemoryError", re.IGNORECASE), "end what else uses the memory, then try again"),
    (re.compile(r"address already in use|only one usage of each socket", re.IGNORECASE), "run the command again"),
    (re.compile(r"can't open file|No such file"), "is the installation still whole? see comfymodal engine status"),
)


def reason_in(log: str) -> str | None:
    """The line of a boot's log that says why it ended; None when no line does.

    An exception counts only at the end of the log: ComfyUI prints those of custom nodes too, and goes on.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    return _short(_uncaught(lines) or _bare(lines[-3:]))


def hint_for(reason: str | None, *, python: str) -> str | None:
    """What the operator can do about it, where that is known."""
    found = [hint for pattern, hint in _HINTS if reason and pattern.search(reason)]
    return found[0].format(python=python) if found else None


def _uncaught(lines: Sequence[str]) -> str | None:
    end = len(lines)
    for start in reversed([number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]):
        is_ignored = start > 0 and lines[start - 1].startswith("Exception ignored in")
        if not is_ignored:
            return _exception(lines[start + 1 : end])
        end = start - 1
    return None


def _exception(lines: Sequence[str]) -> str | None:
    for number, line in enumerate(lines):
        if line.startswith(" ") or not _EXCEPTION.match(line):
            continue
        after = lines[number + 1 :]
        is_fatal = len(after) <= _LINES_AFTER and not any(text.startswith("Cannot import ") for text in after)
        return line if is_fatal else None
    return None


def _bare(lines: Sequence[str]) -> str | None:
    for line in reversed(lines):
        for pattern in _BARE_REASONS:
            if found := pattern.match(line):
                return found["reason"]
    return lines[-1] if lines and _NAMED_EXCEPTION.match(lines[-1]) else None


def _short(reason: str | None) -> str | None:
    return reason if reason is None or len(reason) <= LONGEST else f"{reason[:LONGEST]}..."
