"""What a sync would do, file by file: three listings (here, there, their last common state) in, actions out.

Pure: nothing is read or moved. A plan never loses bytes by itself: what it replaces or deletes goes to the trash of
its place, and where both sides changed it does nothing unless told which one to prefer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from comfymodal.errors import SyncRefusedError
from comfymodal.storage.actions import Action, Plan, Rules, Side
from comfymodal.storage.base import Base, Entry
from comfymodal.storage.decide import Case, decide
from comfymodal.storage.names import case_clashes, conflict_name, file_folder_clashes, notice_of, refusal_of
from comfymodal.storage.values import Listing

MAX_DELETED_SHARE = 0.2


def make_plan(pair: str, base: Base | None, here: Listing, there: Listing, rules: Rules, *, listed_at: float) -> Plan:
    """Compare both listings with the base of the pair. `listed_at`: Unix seconds before the listing began.

    With no base (or one of another pair) files are only added, and differing ones are conflicts. Raises
    `SyncRefusedError` when the source is empty, or either side of a two-way pair that was not: a mistyped prefix
    and a wiped disk look like that.
    """
    base = base if base and base.pair == pair else None
    entries = {path: entry for path, entry in (base.entries if base else {}).items() if rules.filter.accepts(path)}
    chosen_here, chosen_there = rules.filter.select(here), rules.filter.select(there)
    if not rules.allow_empty:
        _require_not_empty(chosen_here, chosen_there, entries, rules, len(here), len(there))
    paths = sorted(chosen_here.keys() | chosen_there.keys() | entries.keys())
    refused = _refusals(chosen_here.keys() | chosen_there.keys(), rules)
    pending = base.pending if base else {}
    actions: list[Action] = []
    for path in paths:
        case = Case(path, chosen_here.get(path), chosen_there.get(path), entries.get(path), pending.get(path), rules)
        actions.append(case.act("refused", refused[path]) if path in refused else decide(case))
    notices = tuple(notice for path in paths if path not in refused and (notice := notice_of(path)))
    actions = sorted(_with_conflict_copies(actions, rules), key=lambda action: action.path)
    return Plan(pair, rules.direction, tuple(actions), listed_at, len(chosen_here), len(chosen_there), notices)


def require_deletions_allowed(plan: Plan, *, force: bool = False) -> None:
    """Raise `SyncRefusedError` when more than a fifth of a side would be deleted; a single file always may be."""
    sides: tuple[tuple[Side, int], ...] = (("here", plan.here_files), ("there", plan.there_files))
    for side, files in sides:
        deleted = len(plan.deletions(side))
        if deleted > max(1, files * MAX_DELETED_SHARE) and not force:
            raise SyncRefusedError(
                f"the plan deletes {deleted} of {files} files {side}, more than {MAX_DELETED_SHARE:.0%}",
                hint="look at the plan with --dry-run; leave out --delete, or confirm the deletions",
                side=side,
                deleted=deleted,
                files=files,
            )


def _refusals(paths: Iterable[str], rules: Rules) -> dict[str, str]:
    """Each path that must not be touched -> why."""
    known = set(paths)
    refused = {
        path: f"a file here and a folder there, or the other way round (see {other!r})"
        for path, other in file_folder_clashes(known).items()
    }
    if rules.ignores_case:
        for path, other in case_clashes(known).items():
            refused[path] = f"the same as {other!r} on a disk that ignores case"
    for path in known:
        if (why := refusal_of(path)) is not None:
            refused[path] = why
    return refused


def _require_not_empty(
    here: Listing, there: Listing, entries: Mapping[str, Entry], rules: Rules, all_here: int, all_there: int
) -> None:
    sides: list[tuple[str, Listing, int]] = [("here", here, all_here), ("there", there, all_there)]
    for side, chosen, everything in sides:
        is_source = rules.direction == ("push" if side == "here" else "pull")
        was_full = rules.direction == "both" and (bool(entries) or not (here or there))
        if chosen or not (is_source or was_full):
            continue
        what = f"none of {everything} files {side} is meant ({rules.filter})" if everything else f"{side} is empty"
        raise SyncRefusedError(
            f"{what}: nothing was synced",
            hint="check the bucket, the folder's name and the filters; --allow-empty says that it is meant",
            side=side,
        )


def _with_conflict_copies(actions: list[Action], rules: Rules) -> list[Action]:
    """Give each file that is kept beside its rival a name of its own; a two-way pair carries that one over too."""
    taken = {action.path for action in actions}
    found = []
    for action in actions:
        if action.keep_as is None:
            found.append(action)
            continue
        name = conflict_name(action.path, rules.conflict_mark, taken)
        taken.add(name)
        found.append(replace(action, keep_as=name))
        if rules.direction == "both" and action.here and rules.filter.accepts(name):
            why = f"the side of {action.path!r} that gave way"
            found.append(Action(name, "new", action.here.size, why, "push", here=action.here))
    return found
