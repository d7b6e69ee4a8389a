"""What a person reads of a sync: the paths that matter as lines of columns, and a line for each pair; pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from comfymodal.operations.sync_results import PairView, PathView, SyncReport
from comfymodal.output.words import bytes_in_words, cost_in_words, count, seconds_in_words

Rows = list[tuple[str, ...]]

SHOWN_PATHS = 50
"""On a terminal; a pipe gets them all."""

TOLD_SPEED_BYTES = 1_000_000
"""Less than that tells of the start, not of the speed."""

_SETTLED = ("same", "adopt")
_LEFT_ALONE = (*_SETTLED, "only_here", "only_there", "kept")
_ACTIONS = (
    ("new", "new"),
    ("changed", "changed"),
    ("delete_here", "to delete here"),
    ("delete_there", "to delete there"),
    ("only_here", "only here"),
    ("only_there", "only there"),
    ("unread", "to be read"),
    ("kept", "kept as it is"),
    ("refused", "refused"),
    ("conflict", "in conflict"),
)


def sync_table(result: Any, *, limit: int | None, is_verbose: bool) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of the paths of a sync, at most `limit`; None for any other result.

    What somebody has to do something about comes last, and is the last to be left out.
    """
    if not isinstance(result, SyncReport):
        return None
    pairs = {pair["name"]: pair for pair in result.pairs}
    hidden = {name: _hidden(pair, is_verbose=is_verbose) for name, pair in pairs.items()}
    shown = sorted(
        (path for path in result.paths if path["action"] not in hidden[path["pair"]]),
        key=lambda path: (_urgency(path), path["pair"], path["path"]),
    )
    left_out = sum(pair["paths_left_out"] for pair in result.pairs)
    if limit is not None and len(shown) > limit:
        left_out += len(shown) - limit
        shown = shown[len(shown) - limit :]
    has_pairs = len(result.pairs) > 1
    titles = ("path", "is", "size", "why", *(("pair",) if has_pairs else ()))
    rows: Rows = [(f"... and {left_out} more", "", "", "", *(("",) if has_pairs else ()))] if left_out else []
    return titles, [*rows, *(_row(path, pairs[path["pair"]], has_pairs=has_pairs) for path in shown)]


def sync_lines(report: SyncReport) -> list[str]:
    """The last lines after a sync: of each pair what came of it, and the next command."""
    return [line for pair in report.pairs for line in _pair_lines(pair, _deleted(report, pair))]


def sync_errors(report: SyncReport) -> list[Mapping[str, Any]]:
    """What went wrong, with the pair's name where there are several."""
    found = [(pair["name"], pair["error"]) for pair in report.pairs]
    if len(found) == 1:
        return [error for _, error in found if error]
    return [{**error, "message": f"{name}: {error.get('message')}"} for name, error in found if error]


def sync_details(report: SyncReport) -> Rows:
    """What `runs show` says of a sync before its paths."""
    (pair,) = report.pairs
    copied = f"{count(pair['copied_files'], 'file')}, {bytes_in_words(pair['copied_bytes'])}{_speed(pair)}"
    return [
        ("from", pair["from"]),
        ("to", pair["to"]),
        ("here", pair["here"]),
        ("there", pair["there"]),
        ("copied", copied if pair["copied_files"] else ""),
    ]


def _pair_lines(pair: PairView, deleted: int) -> list[str]:
    name, run = pair["name"], pair["run"]
    if pair["status"] in ("running", "submitting") and run is not None:
        return [f"{name}: run {run.id} goes on; watch it: comfymodal runs attach {run.id}"]
    if pair["is_in_step"] is None:
        return []
    if pair["mode"] == "run":
        parts = _done_parts(pair, deleted)
    elif pair["mode"] == "status":
        parts = _status_parts(pair)
    else:
        parts = _plan_parts(pair)
    if run is not None and run.cost is not None:
        parts.append(cost_in_words(run.cost))
    stopped = "stopped; " if pair["status"] == "cancelled" else ""
    following = _next(pair)
    lines = [f"{name}: {stopped}{', '.join(parts) or 'nothing to do'}{f'; next: {following}' if following else ''}"]
    return [*lines, *(f"  {line}" for line in (pair["cost"] or {}).get("lines", ()))]


def _done_parts(pair: PairView, deleted: int) -> list[str]:
    parts = []
    if pair["copied_files"]:
        parts.append(f"{pair['copied_files']} copied ({bytes_in_words(pair['copied_bytes'])}{_speed(pair)})")
    if missing := pair["copy_files"] - pair["copied_files"]:
        parts.append(f"{missing} not copied")
    if deleted:
        parts.append(f"{deleted} moved to the trash")
    rest = {action: number for action, number in pair["counts"].items() if action not in ("new", "changed")}
    return [*parts, *_count_parts({key: number for key, number in rest.items() if not key.startswith("delete_")})]


def _status_parts(pair: PairView) -> list[str]:
    if pair["is_in_step"]:
        return [f"in step ({count(pair['files'].get('here', 0), 'file')} here)"]
    return ["not in step", *_count_parts(pair["counts"])]


def _plan_parts(pair: PairView) -> list[str]:
    parts = []
    if pair["copy_files"]:
        eta = pair["eta_s"]
        how_long = "how long is not known" if eta is None else f"about {seconds_in_words(eta)} by earlier syncs"
        parts.append(f"{pair['copy_files']} to copy ({bytes_in_words(pair['copy_bytes'])}, {how_long})")
    return [*parts, *_count_parts(pair["counts"])]


def _count_parts(counts: Mapping[str, int]) -> list[str]:
    in_step = sum(counts.get(action, 0) for action in _SETTLED)
    told = [f"{in_step} in step"] if in_step else []
    return told + [f"{counts[action]} {word}" for action, word in _ACTIONS if counts.get(action)]


def _next(pair: PairView) -> str | None:
    command = f"comfymodal sync {_words(pair)}"
    if pair["status"] in ("cancelled", "failed"):
        return command
    if pair["counts"].get("conflict"):
        return f"{command} --prefer here|there|both"
    if pair["status"] == "partial":
        return command
    if pair["mode"] == "status":
        return None if pair["is_in_step"] else f"{command} --dry-run"
    has_deletions = any(action.startswith("delete_") for action in pair["counts"])
    if pair["mode"] == "plan" and (pair["copy_files"] or has_deletions):
        return f"{command} --delete" if has_deletions else command
    return None


def _words(pair: PairView) -> str:
    """The pair as it is typed."""
    is_typed = pair["name"] == f"{pair['from']} -> {pair['to']}"
    return shlex.join((pair["from"], pair["to"])) if is_typed else pair["name"]


def _speed(pair: PairView) -> str:
    speed = pair["bytes_per_s"]
    return f", {bytes_in_words(int(speed))}/s" if speed and pair["copied_bytes"] >= TOLD_SPEED_BYTES else ""


def _deleted(report: SyncReport, pair: PairView) -> int:
    return sum(path["result"] == "deleted" and path["pair"] == pair["name"] for path in report.paths)


def _hidden(pair: PairView, *, is_verbose: bool) -> Sequence[str]:
    """Actions whose paths are not worth a line: what was found in step, and after a run what it left alone."""
    if is_verbose:
        return ()
    return _LEFT_ALONE if pair["mode"] == "run" else _SETTLED


def _urgency(path: PathView) -> int:
    if path["action"] == "conflict":
        return 2
    return 1 if path["result"] == "failed" or path["action"] == "refused" else 0


def _row(path: PathView, pair: PairView, *, has_pairs: bool) -> tuple[str, ...]:
    unverified = "; not verified: the other side tells no hash" if path["verified"] is False else ""
    kept = f"; the other one is kept as {path['keep_as']}" if path["keep_as"] else ""
    # Of a file that was copied because it was missing, or that was not reached, nothing more is to be said.
    is_clear = (path["result"] == "copied" and path["action"] == "new") or _is_unreached(path, pair)
    reason = "" if is_clear and not kept else path["why"]
    why = f"{reason}{kept}{unverified}".removeprefix("; ")
    end = (path["pair"],) if has_pairs else ()
    return (path["path"], _state(path, pair), bytes_in_words(path["size_bytes"]), why, *end)


def _is_unreached(path: PathView, pair: PairView) -> bool:
    return pair["status"] == "cancelled" and path["result"] == "failed" and path["direction"] is not None


def _state(path: PathView, pair: PairView) -> str:
    if _is_unreached(path, pair):
        return "not copied"
    is_done = path["result"] in ("copied", "deleted", "failed")
    word = str(path["result"]) if is_done else path["action"].replace("_", " ")
    if pair["direction"] != "both" or path["direction"] is None or path["action"] in ("refused", "conflict"):
        return word
    return f"{word}, to {'here' if path['direction'] == 'pull' else 'there'}"
