"""A pair as a job: which end is here, where it runs, and what it needs there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError
from comfymodal.jobs.contract import RUNS_FOLDER, VERSION
from comfymodal.jobs.sync import RCLONE_VARIABLE
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ends import Pair
from comfymodal.operations.keys import with_keys
from comfymodal.operations.ready import ready_setup
from comfymodal.operations.sync_results import Mode
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import NOT_RENDERS, new_run_id
from comfymodal.storage.ends import ApiEnd, End, FolderEnd, RemoteEnd, VolumeEnd, arrange, end_from_dict, end_to_dict
from comfymodal.storage.filters import Filter
from comfymodal.storage.keys import find_keys, key_names

_TITLES: Mapping[Mode, str] = {"run": "", "plan": " (dry run)", "status": " (status)"}


@dataclass(frozen=True, slots=True)
class Wish:
    """How the operator wants a pair to be synced; what is not said is the pair's."""

    mode: Mode = "run"
    include: tuple[str, ...] = ()
    """Instead of the pair's own."""
    exclude: tuple[str, ...] = ()
    """Beside the pair's own."""
    delete: bool = False
    prefer: str | None = None
    allow_empty: bool = False
    is_verify: bool = False
    bwlimit: str | None = None
    transfers: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that has no run yet. `target` is where it runs, which may be here although the project is on Modal."""

    name: str
    """The pair's, or its two ends."""
    job: Mapping[str, Any]
    target: str
    again_of: str | None = None

    @property
    def here(self) -> End:
        return end_from_dict(self.job["here"])

    @property
    def there(self) -> End:
        return end_from_dict(self.job["there"])

    @property
    def mode(self) -> Mode:
        mode: Mode = self.job["mode"]
        return mode

    @property
    def remotes(self) -> tuple[RemoteEnd, ...]:
        return tuple(end for end in (self.here, self.there) if isinstance(end, RemoteEnd))

    def as_mode(self, mode: Mode) -> Draft:
        return replace(self, job={**self.job, "mode": mode})

    def approving(self, approved: Mapping[str, Any]) -> Draft:
        return replace(self, job={**self.job, "approved": approved})

    def run(self, context: Context) -> Run:
        """A ledger row of this job."""
        now = time.time()
        run_id = new_run_id(now, "sync")
        title = f"sync {self.name}{_TITLES[self.mode]}"
        job = {**self.job, "run_id": run_id, "origin": {"title": title, "created_at": now}}
        return Run(
            id=run_id,
            kind="sync",
            target=self.target,
            status="submitting",
            title=title,
            created_at=now,
            ended_at=None,
            call_id=None,
            again_of=self.again_of,
            request={"job": job, "flags": dict(context.flags)},
            result=None,
        )


def draft_of(pair: Pair, wish: Wish, context: Context) -> Draft:
    """The job of a pair as it is wished. Raises `UsageError` for a glob that is none."""
    include, exclude = wish.include or pair.include, (*pair.exclude, *wish.exclude)
    Filter(include, exclude)
    source, target = pair.source, pair.target
    runs_on_modal = context.project.target == "modal" and _needs_mount(source, target)
    if context.project.target == "modal" and not runs_on_modal:
        ends = arrange(_by_api(source, context), _by_api(target, context), is_two_way=pair.is_two_way)
    else:
        ends = arrange(source, target, is_two_way=pair.is_two_way)
    both = (ends.here, ends.there)
    roles = [end.role for end in both if isinstance(end, VolumeEnd)]
    secrets = [end.secret for end in both if isinstance(end, RemoteEnd) and end.secret] if runs_on_modal else []
    job = {
        "version": VERSION,
        "kind": "sync",
        "mode": wish.mode,
        "is_verify": wish.is_verify,
        "pair": {"name": pair.name, "from": pair.from_text, "to": pair.to_text},
        "here": end_to_dict(ends.here),
        "there": end_to_dict(ends.there),
        "direction": ends.direction,
        "rules": {
            "delete": wish.delete,
            "prefer": wish.prefer,
            "allow_empty": wish.allow_empty,
            "include": list(include),
            "exclude": [*exclude, *_own_runs(both)],
        },
        "limits": {"transfers": wish.transfers, "bwlimit": wish.bwlimit},
        "approved": None,
        "host": socket.gethostname(),
        "mounts": list(dict.fromkeys(roles)),
        "secrets": list(dict.fromkeys(secrets)),
        "deadline_s": None,
    }
    return Draft(shown_name(job), job, "modal" if runs_on_modal else "local")


def draft_again(run: Run) -> Draft:
    """The job of a run once more; deletions have to be agreed to anew."""
    job = {key: value for key, value in run.request["job"].items() if key not in ("run_id", "origin")}
    return Draft(shown_name(job), {**job, "approved": None}, run.target, again_of=run.id)


def shown_name(job: Mapping[str, Any]) -> str:
    """What the operator calls the pair of a job."""
    pair = job["pair"]
    return str(pair["name"] or f"{pair['from']} -> {pair['to']}")


def place_words(end: End, target: str, context: Context) -> str:
    """An end with what lies behind its name, e.g. `models:/ (volume comfy-models)`."""
    if isinstance(end, ApiEnd):
        return f"{end} (volume {end.name})"
    if isinstance(end, VolumeEnd):
        if target == "local":
            return f"{end} (folder {context.local.volumes[end.role]})"
        return f"{end} (volume {getattr(context.project.volumes, end.role).name})"
    return f"{end} (bucket {end.remote.bucket})" if isinstance(end, RemoteEnd) else str(end)


def surroundings(draft: Draft, context: Context) -> Context:
    """The context of the place where the job runs, with the keys of its remotes."""
    if draft.target != context.target.name:
        context = context.reopen({**context.flags, "target": draft.target})
    names = {name for end in draft.remotes for pair in key_names(end.remote) for name in pair}
    return with_keys(context, sorted(names))


def check(draft: Draft, context: Context, desk: Desk) -> None:
    """All that can be known before anything starts; free. `context` is the job's surroundings.

    Raises `NotReadyError` (no rclone, no keys, nothing deployed), `NotFoundError` (no such folder) or `ServiceError`.
    """
    if draft.target == "modal":
        ready_setup("sync", context, desk)
        return
    from comfymodal.storage.rclone.find import find_rclone

    find_rclone(context.environ.get(RCLONE_VARIABLE))
    for end in draft.remotes:
        find_keys(end.remote, context.environ)
    for folder in _sources(draft):
        _require_folder(Path(folder.path))
    if any(isinstance(end, ApiEnd) for end in (draft.here, draft.there)):
        _require_modal(context)


def _needs_mount(source: End, target: End) -> bool:
    """Whether a container is the place: it has the volumes, and no folder of this machine."""
    kinds = {type(source), type(target)}
    return VolumeEnd in kinds and FolderEnd not in kinds


def _own_runs(ends: tuple[End, ...]) -> Iterator[str]:
    """On the outputs volume also this run keeps its folder: were it synced, the volume would never be in step."""
    for end in ends:
        if isinstance(end, VolumeEnd | ApiEnd) and end.role == "outputs" and end.path in ("", RUNS_FOLDER):
            yield f"/{NOT_RENDERS}/**" if end.path else f"/{RUNS_FOLDER}/{NOT_RENDERS}/**"


def _by_api(end: End, context: Context) -> End:
    if not isinstance(end, VolumeEnd):
        return end
    volume = getattr(context.project.volumes, end.role)
    return ApiEnd(end.role, volume.name, context.project.modal.environment, end.path)


def _sources(draft: Draft) -> Iterator[FolderEnd]:
    """The folders that must be there: of a two-way pair either side may be made by the first sync."""
    source = {"pull": draft.there, "push": draft.here}.get(draft.job["direction"])
    if isinstance(source, FolderEnd):
        yield source


def _require_folder(path: Path) -> None:
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise NotFoundError(f"{path} {what}: there is nothing to sync from", hint="check its name", path=str(path))


def _require_modal(context: Context) -> None:
    """The worker's calls cost nothing, but they must not go to another workspace than the project's."""
    from comfymodal.targets.modal_client import require_client

    require_client()
    from comfymodal.targets.modal.session import connect

    connect(context.project.modal.workspace)
