"""Copies exactly the planned files and accounts for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from comfymodal.errors import ComfymodalError, TransferError
from comfymodal.storage.rclone.explain import explain, explain_text, is_final, meaning_of
from comfymodal.storage.rclone.listing import find_files, require_bucket
from comfymodal.storage.rclone.log import LogLine, Moving, moving_files, speed
from comfymodal.storage.rclone.names import plan_bytes, why_refused
from comfymodal.storage.rclone.presets import Preset
from comfymodal.storage.rclone.process import Control, Ended, Listener, run
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.values import Folder, Place, Remote

FEW_PATHS = 200
"""Up to so many, the source is asked for each path; above, it is listed once, which is cheaper and faster."""

FATAL_CODE = 7
"""The server refused one request in a way that makes all others senseless, e.g. because of a cap."""
_CUT_CODES = frozenset({8, 10})
"""A limit of bytes or of time is reached."""
_FINAL_CODES = frozenset({2, 3, FATAL_CODE}) | _CUT_CODES
"""Exit codes after which another attempt makes no sense."""

Outcome = Literal["copied", "failed", "missing", "skipped"]


@dataclass(frozen=True, slots=True)
class PathResult:
    path: str
    result: Outcome
    """`copied`: whole and under its final name. `missing`: gone from the source since it was listed.
    `skipped`: not done when the copy was stopped, its time was up or the server refused everything; nothing of it is
    under its final name."""
    size: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    bytes: int
    """Of the whole copy: finished files and what has arrived of the others."""
    speed: float
    """Bytes per second, now."""
    files_done: int
    files: int
    moving: tuple[Moving, ...]
    copied: tuple[PathResult, ...]
    """Finished since the last report."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is copied, by path relative to both places."""

    source: Place
    target: Place
    paths: Sequence[str]
    preset: Preset


@dataclass(frozen=True, slots=True)
class CopyResult:
    results: tuple[PathResult, ...]
    """One for each path of the order, in its order."""
    is_stopped: bool
    error: ComfymodalError | None
    """Why not everything was copied, in one error; None when everything was."""
    seconds: float

    @property
    def copied(self) -> tuple[PathResult, ...]:
        return tuple(each for each in self.results if each.result == "copied")


@dataclass(slots=True)
class Tally:
    """What is known of each path so far."""

    order: Order
    on_progress: OnProgress
    is_done: Callable[[LogLine], bool]
    done: dict[str, PathResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    fresh: list[PathResult] = field(default_factory=list)

    def hear(self, line: LogLine) -> None:
        if line.path is not None and line.is_copied and line.size is not None:
            self.sizes[line.path] = line.size
        if line.path is not None and self.is_done(line):
            result = PathResult(line.path, "copied", self.sizes.get(line.path))
            self.done[line.path] = result
            self.failed.pop(line.path, None)
            self.fresh.append(result)
        elif line.path is not None and line.is_error and line.path not in self.done and not _is_consequence(line):
            self.failed[line.path] = line.message
        if line.stats is not None:
            self.report(line.stats)

    def report(self, stats: Mapping[str, Any]) -> None:
        moving = tuple(each for each in moving_files(stats) if each.path not in self.done)
        finished = sum(each.size or 0 for each in self.done.values())
        self.on_progress(
            Progress(
                bytes=finished + sum(each.bytes for each in moving),
                speed=speed(stats),
                files_done=len(self.done),
                files=len(self.order.paths),
                moving=moving,
                copied=tuple(self.fresh),
            )
        )
        self.fresh.clear()

    def pending(self) -> list[str]:
        """What another attempt may still bring."""
        return [
            path
            for path in self.order.paths
            if path not in self.done
            and not why_refused(path)
            and not (path in self.failed and is_final(self.failed[path]))
        ]


def _ignore_progress(_: Progress) -> None:
    return None


def copy(
    session: Session, order: Order, *, on_progress: OnProgress = _ignore_progress, control: Control | None = None
) -> CopyResult:
    """Copy the files of the order, over whatever has their names at the target; no other file is touched.

    Half-written files have names of their own (`*.partial`). Files that fail are tried again as the preset
    says. Nothing is raised for a file or a server that fails: every path has its result, and `error` sums up.
    Raises `NotReadyError` when rclone cannot be started or there are no keys, what `require_bucket` raises for a
    target on B2, and what the callbacks raise.
    """
    return carry_out(session, "copy", Tally(order, on_progress, lambda line: line.is_copied), control)


def carry_out(session: Session, verb: str, tally: Tally, control: Control | None) -> CopyResult:
    """Run `verb` (`copy`, `move`, `delete`) on the tally's order until everything is done or nothing more can be."""
    began = time.monotonic()
    if _is_b2(tally.order.target):
        # rclone would make a bucket that is not there, and call a mistyped name a success.
        require_bucket(session, tally.order.target)
    ended = _attempts(session, verb, tally, control or (lambda: None))
    tally.report({})
    return _account(session, tally, ended, seconds=time.monotonic() - began)


def _attempts(session: Session, verb: str, tally: Tally, control: Control) -> Ended | None:
    """How the last attempt ended; None when there was nothing to do."""
    preset, began = tally.order.preset, time.monotonic()
    ended: Ended | None = None
    for attempt in range(preset.attempts):
        if not (pending := tally.pending()):
            break
        if attempt and _pause(preset.pause_s, control):
            return Ended(130, b"", (), is_stopped=True)
        limits: tuple[str, ...] = ()
        if preset.max_s is not None:
            if (left_s := preset.max_s - (time.monotonic() - began)) <= 0:
                return Ended(10, b"", (), is_stopped=False)
            limits = ("--max-duration", f"{left_s:.3f}s", "--cutoff-mode", "HARD")
        looks = _how_to_look(tally.order, is_few=attempt == 0 and len(pending) <= FEW_PATHS)
        ended = _attempt(session, verb, tally, pending, flags=(*looks, *limits), control=control)
        if ended.is_stopped or ended.code == 0 or ended.code in _FINAL_CODES:
            break
    return ended


def _attempt(
    session: Session, verb: str, tally: Tally, pending: Sequence[str], *, flags: Sequence[str], control: Control
) -> Ended:
    order = tally.order
    places = [order.source] if verb == "delete" else [order.source, order.target]
    arguments = [verb, *order.preset.flags, *flags, "--files-from-raw", "-", *map(session.address, places)]
    return run(session, arguments, stdin=plan_bytes(pending), listener=Listener(tally.hear, control))


def _how_to_look(order: Order, *, is_few: bool) -> list[str]:
    # The plan has decided what is copied: rclone's own comparison would skip a change that keeps time and size.
    if _is_b2(order.target):
        # Only a listing of the target tells rclone that the bucket exists; without one it tries to make it, which
        # fails for a key that may not.
        return ["--fast-list", "--ignore-times"]
    # Asked for one by one, a single path that may not be read ends the whole attempt; a listing does not have that.
    asks_each = isinstance(order.source, Folder) or is_few
    return ["--no-traverse" if asks_each else "--fast-list", "--no-check-dest"]


def _is_consequence(line: LogLine) -> bool:
    """One file ended everything (on B2 a 403, which is how it tells a cap): nothing is wrong with the others."""
    return "context canceled" in line.message


def _is_b2(place: Place) -> TypeGuard[Remote]:
    return isinstance(place, Remote) and place.kind == "b2"


def _pause(seconds: float, control: Control) -> bool:
    """Whether it was stopped meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if control() is not None:
            return True
        time.sleep(0.1)
    return False


def _account(session: Session, tally: Tally, ended: Ended | None, *, seconds: float) -> CopyResult:
    gone: set[str] = set()
    if ended is not None and ended.code == 0 and not ended.is_stopped:
        # rclone says nothing of a listed file that is not there.
        silent = [path for path in tally.pending() if path not in tally.failed]
        gone = set(silent) - set(find_files(session, tally.order.source, silent))
    results = tuple(
        tally.done.get(path) or _undone(path, tally, is_gone=path in gone, ended=ended) for path in tally.order.paths
    )
    is_stopped = ended is not None and ended.is_stopped
    return CopyResult(results, is_stopped, _error(results, ended, tally), seconds)


def _undone(path: str, tally: Tally, *, is_gone: bool, ended: Ended | None) -> PathResult:
    if refusal := why_refused(path):
        return PathResult(path, "failed", error=refusal)
    if ended is not None and (ended.is_stopped or ended.code in _CUT_CODES):
        return PathResult(path, "skipped")
    if path in tally.failed:
        return PathResult(path, "failed", error=explain_text(tally.failed[path]))
    if is_gone:
        return PathResult(path, "missing", error="it is gone from the source since it was listed")
    if ended is not None and ended.code == FATAL_CODE:
        return PathResult(path, "skipped")
    return PathResult(path, "failed", error="it was not copied")


def _error(results: Iterable[PathResult], ended: Ended | None, tally: Tally) -> ComfymodalError | None:
    undone = [each for each in results if each.result != "copied"]
    if not undone:
        return None
    place = f"{tally.order.source} to {tally.order.target}"
    if ended is not None and (ended.is_stopped or ended.code != 0):
        return explain(130 if ended.is_stopped else ended.code, ended.lines, place=place)
    first = undone[0]
    meaning = meaning_of(first.error or "")
    return (meaning.kind if meaning else TransferError)(
        f"{place}: {len(undone)} of {len(tally.order.paths)} files were not copied; {first.path!r}: {first.error}",
        hint=meaning.hint if meaning else "look at each file's error",
    )
