"""The ends of syncs: from the project's pairs, or as they are typed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.errors import NotFoundError, ProjectError, UsageError
from comfymodal.project.ends import (
    ROLES,
    Known,
    WrittenEnd,
    absolute_end,
    is_drive,
    refuse_nested,
    require_apart,
    require_known,
    split_end,
)
from comfymodal.project.problems import Mistake, printable
from comfymodal.storage.ends import FolderEnd, RemoteEnd, VolumeEnd
from comfymodal.storage.values import Remote
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences

if TYPE_CHECKING:
    from comfymodal.project.schema import Project

WrittenPlace = RemoteEnd | VolumeEnd | FolderEnd


@dataclass(frozen=True, slots=True)
class Pair:
    """Two places to bring in step; `from_text` and `to_text` are them as they were written, folders absolute.

    `name` is empty for a pair that was typed.
    """

    name: str
    source: WrittenPlace
    target: WrittenPlace
    from_text: str
    to_text: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    is_two_way: bool = False


def parse_end(text: str, project: Project, base: Path) -> WrittenPlace:
    """Read an end that was typed; a relative folder is put under `base`. Raises `UsageError` with near names."""
    try:
        # As it was typed: `b2` alone is a remote's name, though it could be a folder's.
        require_known(split_end(text), _known(project))
        return _place(split_end(absolute_end(text, base=base)), project)
    except ValueError as exc:
        raise UsageError(f"{printable(text) or '(empty)'}: {exc}", hint=getattr(exc, "hint", None)) from exc


def typed_pair(from_text: str, to_text: str, project: Project, base: Path) -> Pair:
    """Make a pair of two ends that were typed. Raises `UsageError`, also for two that cannot be a pair."""
    source, target = parse_end(from_text, project, base), parse_end(to_text, project, base)
    texts = absolute_end(from_text, base=base), absolute_end(to_text, base=base)
    try:
        require_apart(split_end(texts[0]), split_end(texts[1]), _known(project))
        _refuse_nested_here(source, target, project)
    except Mistake as exc:
        raise UsageError(f"this pair {exc}", hint=exc.hint) from exc
    return Pair("", source, target, *texts)


def pair_of(project: Project, name: str) -> Pair:
    """Give the project's pair of that name. Raises `NotFoundError` with near names."""
    pair = project.sync.get(name)
    if pair is None:
        near = near_names(name, project.sync)
        known = f"pairs: {listed(project.sync)}" if project.sync else "write it under `sync` in comfymodal.yaml"
        raise NotFoundError(
            f"the project has no sync pair called {printable(name)}",
            hint=sentences(did_you_mean(near), known),
            near=near,
        )
    try:
        source, target = _place(split_end(pair.from_), project), _place(split_end(pair.to), project)
        _refuse_nested_here(source, target, project)
    except Mistake as exc:
        raise ProjectError(f"sync.{name} {exc}", hint=exc.hint) from exc
    return Pair(name, source, target, pair.from_, pair.to, pair.include, pair.exclude, pair.two_way)


def one_way_pairs(project: Project) -> tuple[Pair, ...]:
    """Give the pairs a `sync` without names is about, in the order of the project file."""
    return tuple(pair_of(project, name) for name, pair in project.sync.items() if not pair.two_way)


def remote_of(project: Project, name: str, folder: str = "") -> RemoteEnd:
    """Give a remote of the project, or a folder in it. `name` must be one of `project.remotes`."""
    settings = project.remotes[name]
    remote = Remote(
        name=name,
        kind=settings.type,
        bucket=settings.bucket,
        prefix="/".join(part for part in (settings.prefix, folder) if part),
        endpoint=settings.endpoint,
        region=settings.region,
    )
    return RemoteEnd(remote, settings.secret)


def _known(project: Project) -> Known:
    return Known(tuple(project.remotes), {role: getattr(project.volumes, role).name for role in ROLES})


def _place(end: WrittenEnd, project: Project) -> WrittenPlace:
    if end.name in project.remotes:
        return remote_of(project, end.name, end.path)
    if end.name:
        return VolumeEnd(end.name, end.path)
    if is_drive(end.path) and os.name != "nt":
        raise Mistake("is a folder of Windows, and this machine runs something else")
    return FolderEnd(end.path)


def _refuse_nested_here(source: WrittenPlace, target: WrittenPlace, project: Project) -> None:
    """Raise `Mistake` where a volume's folder on this machine, or a link, makes one place of two."""
    if project.target == "local":
        paths = [_folder_here(end, project) for end in (source, target)]
        if paths[0] is not None and paths[1] is not None:
            refuse_nested(paths[0].parts, paths[1].parts)


def _folder_here(end: WrittenPlace, project: Project) -> Path | None:
    if isinstance(end, FolderEnd):
        return Path(os.path.realpath(end.path))
    if isinstance(end, RemoteEnd):
        return None
    root: Path | None = getattr(project.volumes, end.role).path
    return root and Path(os.path.realpath(root / end.path))
