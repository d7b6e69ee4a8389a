"""`comfymodal trash`: what syncs and `models rm` put away, brought back or deleted for good."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comfymodal.errors import CancelledError, NotFoundError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.ends import pair_of, remote_of
from comfymodal.operations.errand import do_at_once, errand
from comfymodal.operations.keys import with_keys
from comfymodal.operations.models import planned, tidy
from comfymodal.operations.models_place import VolumePlace, size_words
from comfymodal.operations.models_results import Tidied, TrashListed, TrashRow
from comfymodal.operations.views import iso_time
from comfymodal.storage.ends import RemoteEnd, VolumeEnd, end_to_dict
from comfymodal.storage.keys import key_names
from comfymodal.storage.library import note_path
from comfymodal.storage.trash import TRASH, Trashed
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences

SHOWN = 20

End = RemoteEnd | VolumeEnd
Kept = tuple[End, Trashed]


@dataclass(frozen=True, slots=True)
class Where:
    """Whose trash: a volume's by role, or that of a remote (`NAME` or `NAME:folder`)."""

    volume: str | None = None
    remote: str | None = None


def list_trash(where: Where, context: Context, desk: Desk, *, older_than_s: float | None = None) -> TrashListed:
    """Raises `UsageError` for a volume or remote that the project does not have, and what cannot be asked."""
    ends, context = _ends(where, context)
    kept = _read(ends, context, desk, older_than_s)
    rows = tuple(_row(end, item) for end, item in kept)
    return TrashListed(_words(ends, context), rows, sum(row.size_bytes for row in rows))


def restore(names: Sequence[str], where: Where, context: Context, desk: Desk, *, is_dry_run: bool) -> Tidied:
    """Put files back where they were: those of a path (the newest of it), or all that went at one stamp."""
    ends, context = _ends(where, context)
    chosen = _named(names, _read(ends, context, desk, None))
    return _carry_out("restore", chosen, ends, context, desk, is_dry_run=is_dry_run)


def empty(where: Where, context: Context, desk: Desk, *, older_than_s: float | None, is_dry_run: bool) -> Tidied:
    """Delete what is in the trash for good; asks."""
    ends, context = _ends(where, context)
    chosen = _read(ends, context, desk, older_than_s)
    if chosen and not is_dry_run and not desk.confirm(_question(chosen, _words(ends, context))):
        raise CancelledError("nothing was deleted")
    return _carry_out("empty", chosen, ends, context, desk, is_dry_run=is_dry_run)


def _ends(where: Where, context: Context) -> tuple[tuple[End, ...], Context]:
    """The places that may have a trash, and the context with the keys for them."""
    if where.volume is not None and where.remote is not None:
        raise UsageError("--volume and --remote name two different places", hint="give one of them")
    if where.remote is None:
        role = where.volume or "models"
        roles = tuple(context.local.volumes)
        if role not in roles:
            raise UsageError(
                f"there is no volume {role}", hint=sentences(_near(role, roles), f"roles: {listed(roles)}")
            )
        return (VolumeEnd(role),), context
    name, colon, folder = where.remote.partition(":")
    known = context.project.remotes
    if name not in known:
        told = f"remotes: {listed(known)}" if known else "write it under `remotes` in comfymodal.yaml"
        raise UsageError(f"there is no remote {name}", hint=sentences(_near(name, known), told))
    # A sync's trash lies in the folder of its pair.
    folders = [folder.strip("/")] if colon else ["", *_folders_of(name, context)]
    ends = tuple(remote_of(context.project, name, each) for each in dict.fromkeys(folders))
    return ends, with_keys(context, [each for pair in key_names(ends[0].remote) for each in pair])


def _near(name: str, known: Iterable[str]) -> str | None:
    return did_you_mean(near_names(name, known))


def _folders_of(name: str, context: Context) -> list[str]:
    prefix = context.project.remotes[name].prefix
    found = []
    for pair in (pair_of(context.project, each) for each in context.project.sync):
        for end in (pair.source, pair.target):
            if isinstance(end, RemoteEnd) and end.remote.name == name:
                found.append(end.remote.prefix.removeprefix(prefix).strip("/"))
    return found


def _read(ends: Sequence[End], context: Context, desk: Desk, older_than_s: float | None) -> list[Kept]:
    found: list[Kept] = []
    for end in ends:
        items = _in_volume(end, context) if isinstance(end, VolumeEnd) else _in_remote(end, context, desk)
        found += [(end, item) for item in sorted(items, key=lambda item: (item.stamp, item.path))]
    if older_than_s is None:
        return found
    before = time.time() - older_than_s
    return [(end, item) for end, item in found if item.trashed_at is not None and item.trashed_at < before]


def _in_volume(end: VolumeEnd, context: Context) -> list[Trashed]:
    found = []
    for path, size in VolumePlace(context, end.role).files():
        stamp, slash, name = path.removeprefix(f"{TRASH}/").partition("/")
        if path.startswith(f"{TRASH}/") and slash:
            found.append(Trashed(stamp, name, size))
    return found


def _in_remote(end: RemoteEnd, context: Context, desk: Desk) -> list[Trashed]:
    fields = {"action": "list", "items": [], "mounts": [], **_remote_fields(end)}
    outcome = do_at_once(errand("tidy", f"list the trash of {end}", fields, context), context, desk)
    return [
        Trashed(str(each["stamp"]), str(each["path"]), int(each["size_bytes"] or 0))
        for each in outcome["result"]["paths"]
    ]


def _remote_fields(end: RemoteEnd) -> dict[str, object]:
    return {"remote": end_to_dict(end), "secrets": [end.secret] if end.secret else []}


def _named(names: Sequence[str], kept: Sequence[Kept]) -> list[Kept]:
    chosen: dict[tuple[str, str], Kept] = {}
    for name in names:
        wanted = name.strip("/")
        found = [each for each in kept if each[1].stamp == wanted]
        # Of a file that was thrown away twice, the one of the last time.
        found = found or [each for each in kept if each[1].path == wanted][-1:]
        if not found:
            near = near_names(wanted, {item.path for _, item in kept})
            raise NotFoundError(
                f"{name} is not in the trash", hint=sentences(did_you_mean(near), "comfymodal trash list"), near=near
            )
        # A model comes back with its note, if that went when it did.
        found += [each for each in kept if any(_is_note(each, of) for of in found)]
        chosen |= {(str(end), item.path): (end, item) for end, item in found}
    return list(chosen.values())


def _is_note(one: Kept, of: Kept) -> bool:
    return (one[0], one[1].stamp, one[1].path) == (of[0], of[1].stamp, note_path(of[1].path))


def _carry_out(
    action: str, chosen: Sequence[Kept], ends: Sequence[End], context: Context, desk: Desk, *, is_dry_run: bool
) -> Tidied:
    place = _words(ends, context)
    by_end = [(end, [item for owner, item in chosen if owner == end]) for end in ends]
    if is_dry_run:
        return planned(action, place, [_item(item) for _, items in by_end for item in items])
    done = [_one(action, end, items, context, desk) for end, items in by_end if items]
    worst = next((each for each in done if each.error is not None), None)
    return Tidied(
        action,
        place,
        False,
        sum(each.files for each in done),
        sum(each.size_bytes for each in done),
        tuple(path for each in done for path in each.paths),
        worst.error if worst else None,
        worst.exit_code if worst else 0,
    )


def _one(action: str, end: End, items: Sequence[Trashed], context: Context, desk: Desk) -> Tidied:
    where = {"role": end.role} if isinstance(end, VolumeEnd) else _remote_fields(end)
    return tidy(action, {**where, "items": [_item(item) for item in items]}, str(end), context, desk)


def _item(item: Trashed) -> dict[str, object]:
    return {"path": item.path, "stamp": item.stamp, "size_bytes": item.size_bytes}


def _question(chosen: Sequence[Kept], place: str) -> Question:
    size = size_words(sum(item.size_bytes for _, item in chosen))
    told = [f"{item.stamp}  {item.path}" for _, item in chosen]
    more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    files = f"{len(told)} file{'' if len(told) == 1 else 's'}"
    return Question(
        summary=f"{files} ({size}) in the trash of {place} would be deleted for good",
        details=(*told[:SHOWN], *more),
        ask="Delete them for good?" if len(told) > 1 else "Delete it for good?",
    )


def _row(end: End, item: Trashed) -> TrashRow:
    at = item.trashed_at
    return TrashRow(str(end), item.stamp, item.path, item.size_bytes, iso_time(at))


def _words(ends: Sequence[End], context: Context) -> str:
    first = ends[0]
    if isinstance(first, VolumeEnd):
        return VolumePlace(context, first.role).words
    return f"remote {first.remote.name}"
