"""`comfymodal sync`: bring pairs of places up to date, one after the other, each as a run of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from comfymodal.errors import (
    CancelledError,
    ComfymodalError,
    NotReadyError,
    ProjectError,
    StillRunningError,
    SyncRefusedError,
    UsageError,
)
from comfymodal.jobs.contract import RUNS_FOLDER
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.ends import Pair, one_way_pairs, pair_of, typed_pair
from comfymodal.operations.follow import submit
from comfymodal.operations.money import price_sync
from comfymodal.operations.sync_end import SyncEnding, failed_pair, merged
from comfymodal.operations.sync_jobs import (
    Draft,
    Wish,
    check,
    draft_again,
    draft_of,
    place_words,
    surroundings,
)
from comfymodal.operations.sync_results import PairView, PathView, SyncReport
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.storage.ends import FolderEnd, VolumeEnd
from comfymodal.storage.plan import MAX_DELETED_SHARE

SHOWN_DELETIONS = 20
SHOWN_NOTICES = 5
"""About names that some systems cannot have; `--json` has them all."""

EXAMPLE = 'sync: {models: {from: "REMOTE:folder", to: "models:/"}}'


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One `sync` as asked for: names of pairs, or two places; none of either means every one-way pair."""

    words: tuple[str, ...] = ()
    wish: Wish = field(default_factory=Wish)
    cwd: Path = field(default_factory=Path)
    """What folders that were typed are relative to."""
    may_force: bool = True
    """Whether a yes may also mean the deletion of more than a fifth of a side: that of a person, not of `--yes`."""
    waiting: Waiting = field(default_factory=Waiting)


def sync(request: SyncRequest, context: Context, desk: Desk) -> SyncReport:
    """Sync each pair; one that fails does not keep the others from it, Ctrl-C ends them all.

    Raises any `ComfymodalError` before anything starts; after that failures are in the report.
    """
    for warning in context.warnings:
        desk.warn(warning)
    pairs = _pairs(request, context)
    if request.waiting.is_detached and len(pairs) > 1:
        raise UsageError("--detach goes with one pair", hint=f"comfymodal sync {pairs[0].name} --detach")
    drafts = [draft_of(pair, request.wish, context) for pair in pairs]
    return _carry_out(drafts, context, desk, waiting=request.waiting, may_force=request.may_force)


def again(run: Run, context: Context, desk: Desk, *, waiting: Waiting) -> SyncReport:
    """The sync of a run once more, of the same two places by the same rules."""
    return _carry_out([draft_again(run)], context, desk, waiting=waiting, may_force=False)


def plan_push(name: str, role: str, folder: str, context: Context, desk: Desk) -> Pair:
    """The pair by which files of a folder of a volume are to be pushed, once it is sure that they can be.

    Raises `NotFoundError`, `NotReadyError`, `UsageError` for a pair that does not begin there.
    """
    pair = pair_of(context.project, name)
    source = pair.source
    if not isinstance(source, VolumeEnd) or source.role != role or source.path not in ("", folder):
        raise UsageError(
            f"the pair {name} syncs {pair.from_text}; --push takes one from {role}:/ or {role}:/{folder}",
            hint=f'sync: {{{name}: {{from: "{role}:/{folder}", to: "REMOTE:{folder}"}}}}',
        )
    if isinstance(pair.target, VolumeEnd):
        raise UsageError(f"the pair {name} goes to {pair.to_text}; --push takes one to a remote or a folder")
    draft = draft_of(pair, Wish(), context)
    check(draft, surroundings(draft, context), desk)
    return pair


def bring(pair: Pair, wish: Wish, context: Context, desk: Desk, *, may_force: bool = False) -> SyncReport:
    """Sync one pair that another command needs in step; failures after its start are in the report."""
    draft = draft_of(pair, wish, context)
    around = surroundings(draft, context)
    check(draft, around, desk)
    # Of the folder the operator is told what the pair calls it: it may stand for others.
    ends = [end for end in (draft.here, draft.there) if not isinstance(end, FolderEnd)]
    there = place_words(ends[0], draft.target, around) if ends else pair.to_text
    desk.event({"type": "pair", "name": draft.name, "here": pair.from_text, "there": there})
    return _attempt(draft, around, desk, waiting=Waiting(), may_force=may_force)


def push(pair: Pair, run_id: str, context: Context, desk: Desk) -> SyncReport:
    """Push the folder of a run; failures are in the report, but for Ctrl-C pressed twice."""
    source = cast("VolumeEnd", pair.source)
    folder = f"/{run_id}/**" if source.path else f"/{RUNS_FOLDER}/{run_id}/**"
    return sync_one(replace(pair, is_two_way=False), Wish(include=(folder,)), context, desk)


def sync_one(pair: Pair, wish: Wish, context: Context, desk: Desk) -> SyncReport:
    """Sync this pair as part of something larger; failures are in the report, but for Ctrl-C pressed twice."""
    return _guarded(draft_of(pair, wish, context), context, desk, waiting=Waiting(), may_force=False)


def _pairs(request: SyncRequest, context: Context) -> tuple[Pair, ...]:
    words, project = request.words, context.project
    if len(words) == 2 and not all(word in project.sync for word in words) and any(map(_is_place, words)):
        return (typed_pair(words[0], words[1], project, request.cwd),)
    if places := [word for word in words if word not in project.sync and _is_place(word)]:
        raise UsageError(
            f"{places[0]} is a place, and one alone cannot be synced",
            hint="comfymodal sync FROM TO, or the names of pairs",
        )
    if words:
        return tuple(pair_of(project, name) for name in dict.fromkeys(words))
    if found := one_way_pairs(project):
        return found
    if project.sync:
        raise ProjectError(
            "the project has no one-way pairs, and two-way ones are synced by name only",
            hint=f"comfymodal sync {next(iter(project.sync))}",
        )
    raise ProjectError("the project has no sync pairs", hint=f"write one into comfymodal.yaml: {EXAMPLE}")


def _is_place(word: str) -> bool:
    return ":" in word or "/" in word or "\\" in word or word in (".", "..", "~")


def _carry_out(
    drafts: Sequence[Draft], context: Context, desk: Desk, *, waiting: Waiting, may_force: bool
) -> SyncReport:
    for draft in drafts:
        check(draft, surroundings(draft, context), desk)
    ends_at = None if waiting.wait_s is None else time.monotonic() + waiting.wait_s
    reports: list[SyncReport] = []
    for number, draft in enumerate(drafts):
        left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        done = _guarded(draft, context, desk, waiting=replace(waiting, wait_s=left), may_force=may_force)
        reports.append(done)
        if done.exit_code == CancelledError.exit_code:
            if rest := [other.name for other in drafts[number + 1 :]]:
                desk.warn(f"not begun: {', '.join(rest)}")
            break
    return merged(reports)


def _guarded(draft: Draft, context: Context, desk: Desk, *, waiting: Waiting, may_force: bool) -> SyncReport:
    context = surroundings(draft, context)
    desk.event(
        {
            "type": "pair",
            "name": draft.name,
            "here": place_words(draft.here, draft.target, context),
            "there": place_words(draft.there, draft.target, context),
        }
    )
    return _attempt(draft, context, desk, waiting=waiting, may_force=may_force)


def _attempt(draft: Draft, context: Context, desk: Desk, *, waiting: Waiting, may_force: bool) -> SyncReport:
    try:
        if draft.mode == "run" and draft.job["rules"]["delete"]:
            return _with_deletions(draft, context, desk, waiting=waiting, may_force=may_force)
        return _run(draft, context, desk, waiting=waiting)
    except (CancelledError, StillRunningError):
        raise
    except ComfymodalError as exc:
        return failed_pair(draft.name, draft.job, exc)


def _run(draft: Draft, context: Context, desk: Desk, *, waiting: Waiting) -> SyncReport:
    run, price = price_sync(draft.run(context), context, desk)
    if price is not None:
        desk.event(price.event(context.modal_spec()))
    done = submit(run, context, desk, SyncEnding(), waiting=waiting, price=price)
    for notice in done.pairs[0]["notices"][:SHOWN_NOTICES]:
        desk.warn(notice)
    return _with_forecast(done, draft, context) if draft.mode == "plan" else done


def _with_deletions(draft: Draft, context: Context, desk: Desk, *, waiting: Waiting, may_force: bool) -> SyncReport:
    """Plan first and show what would go; only what was agreed to is then deleted."""
    planned = _run(draft.as_mode("plan"), context, desk, waiting=replace(waiting, is_detached=False))
    (view,) = planned.pairs
    if view["status"] != "succeeded":
        return planned
    doomed = {
        side: [path["path"] for path in planned.paths if path["action"] == f"delete_{side}"]
        for side in ("here", "there")
    }
    too_many = _too_many(doomed, view)
    if too_many is not None and not may_force:
        raise SyncRefusedError(
            f"the plan deletes {too_many}, more than {MAX_DELETED_SHARE:.0%}; --yes does not mean that",
            hint="look at it with --dry-run --delete; then run it without --yes, and answer",
        )
    if any(doomed.values()) and not desk.confirm(_question(doomed, planned.paths, view, too_many)):
        raise NotReadyError("nothing was deleted, nothing was copied", hint="leave out --delete to only copy")
    return _run(draft.approving({**doomed, "force": too_many is not None}), context, desk, waiting=waiting)


def _too_many(doomed: Mapping[str, Sequence[str]], view: PairView) -> str | None:
    """The side that would lose more than is usual, in words."""
    plan_files = view["files"]
    for side, paths in doomed.items():
        files = plan_files.get(side, 0)
        if len(paths) > max(1, files * MAX_DELETED_SHARE):
            return f"{len(paths)} of {files} files {side}"
    return None


def _question(
    doomed: Mapping[str, Sequence[str]], paths: Sequence[PathView], view: PairView, too_many: str | None
) -> Question:
    told = [f"{view[side]}: {path}" for side in ("here", "there") for path in doomed[side]]
    if len(told) > SHOWN_DELETIONS:
        told = [*told[:SHOWN_DELETIONS], f"and {len(told) - SHOWN_DELETIONS} more"]
    gigabytes = sum(path["size_bytes"] for path in paths if path["action"].startswith("delete_")) / 1e9
    number = sum(map(len, doomed.values()))
    what = "1 file" if number == 1 else f"{number} files"
    size = f" ({gigabytes:.1f} GB)" if gigabytes >= 0.1 else ""
    share = f"; that is {too_many}" if too_many else ""
    return Question(
        summary=f"{view['name']}: {what}{size} to delete, into the trash of {_their(number)} place{share}",
        details=tuple(told),
        ask=f"Delete {'it' if number == 1 else 'them'}?",
    )


def _their(number: int) -> str:
    return "its" if number == 1 else "their"


def _with_forecast(done: SyncReport, draft: Draft, context: Context) -> SyncReport:
    """A plan with what it would take: time by earlier syncs of the pair, and money."""
    from comfymodal.costs.storage_rates import kind_of_remote
    from comfymodal.costs.sync_estimate import estimate_sync

    (view,) = done.pairs
    if view["status"] != "succeeded":
        return done
    speeds = context.ledger.copy_speeds(f"sync {draft.name}", draft.target)
    eta_s = view["copy_bytes"] / median(speeds) if speeds else None
    remote = next((end.remote for end in draft.remotes), None)
    moved = {way: sum(p["size_bytes"] for p in done.paths if p["direction"] == way) for way in ("pull", "push")}
    # Where a folder is here and a volume there, `pull` and `push` are no bucket's.
    cost = estimate_sync(
        direction=draft.job["direction"],
        remote_kind=kind_of_remote(remote.kind, remote.endpoint) if remote else None,
        pull_bytes=moved["pull"],
        push_bytes=moved["push"],
        copy_files=view["copy_files"],
        listed_files=view["files"].get("there", 0),
        on_modal=draft.target == "modal",
        seconds=eta_s,
        table=context.rates,
    )
    told: dict[str, Any] = {**cost.to_dict(), "lines": list(cost.lines())}
    return replace(done, pairs=(cast("PairView", {**view, "eta_s": eta_s, "cost": told}),))
