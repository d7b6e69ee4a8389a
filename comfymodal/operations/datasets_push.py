"""`comfymodal datasets push`: check a folder, then bring the datasets volume in step with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.datasets import DatasetRequest, check_folder
from comfymodal.operations.desk import Desk
from comfymodal.operations.models_place import VolumePlace
from comfymodal.operations.parcels import packed
from comfymodal.operations.sync import bring
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.sync_results import SyncReport
from comfymodal.operations.train_datasets import Places
from comfymodal.operations.train_places import FILES, ROLE, SETS, files_below
from comfymodal.operations.train_results import DatasetChecked, DatasetPushed
from comfymodal.operations.train_send import open_volume
from comfymodal.storage.ends import VolumeEnd
from comfymodal.storage.names import refusal_of
from comfymodal.workflow.wording import listed


@dataclass(frozen=True, slots=True)
class PushRequest:
    """`checked` names the folder and whose rules count; `name` is that of the folder on the volume."""

    checked: DatasetRequest
    name: str | None = None
    delete: bool = False
    is_dry_run: bool = False
    may_force: bool = True
    """Whether a yes may also mean the deletion of more than a fifth of what is there: a person's, not `--yes`."""


def push_dataset(request: PushRequest, places: Places, context: Context, desk: Desk) -> DatasetPushed:
    """Send what is new of a sound folder. What is wrong with it is in the result, and then nothing is sent.

    Raises `UsageError`, `NotFoundError` before anything starts, `NotReadyError` and `CancelledError`.
    """
    folder = _folder(request.checked)
    name = _name(request.name if request.name is not None else folder.name)
    checked = check_folder(request.checked, places, desk)
    if checked.error is not None:
        return _result(request, checked, None, name, context)
    if context.project.target == "modal" and not request.is_dry_run:
        open_volume(ROLE, context)
    files = {path: folder / path for path in files_below(folder)}
    # Where the folder is the source it wins: that of this machine, or on it.
    wish = Wish(
        mode="plan" if request.is_dry_run else "run",
        prefer="here" if context.project.target == "modal" else "there",
        delete=request.delete,
    )
    with packed(files, str(folder), VolumeEnd(ROLE, name), context) as parcel:
        report = bring(parcel.pair, wish, context, desk, may_force=request.may_force)
    _tell_leftovers(report, name, desk)
    return _result(request, checked, report, name, context)


def _folder(request: DatasetRequest) -> Path:
    if request.folder.startswith(("volume:", f"{ROLE}:")):
        raise UsageError(f"{request.folder} is on the volume", hint="comfymodal datasets push FOLDER [NAME]")
    folder = Path(request.cwd, Path(request.folder).expanduser()).resolve()
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise NotFoundError(f"{request.folder} {what}", hint="the folder with the pictures and their captions")
    return folder


def _name(text: str) -> str:
    """A folder's path on the volume. Raises `UsageError` for one that is none, or that is ours."""
    name = text.removeprefix("volume:").removeprefix(f"{ROLE}:").strip("/")
    why = refusal_of(name)
    if why is None and any(part.startswith(".") for part in name.split("/")):
        why = "hidden folders are never trained on"
    if why is None and name.partition("/")[0] in (SETS, FILES):
        why = "there trainings keep what they sent"
    if why is not None:
        raise UsageError(
            f"{text!r} cannot be a dataset's name: {why}", hint="comfymodal datasets push FOLDER people/anna"
        )
    return name


def _tell_leftovers(report: SyncReport, name: str, desk: Desk) -> None:
    side = "only_there" if report.pairs[0]["direction"] == "push" else "only_here"
    left = [path["path"] for path in report.paths if path["action"] == side and not _is_hidden(path["path"])]
    if left:
        desk.warn(
            f"volume:/{name} also has what is not in the folder, and trainings take it: {listed(left, limit=5)} "
            "(--delete moves what came from this folder to the trash)"
        )


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _result(
    request: PushRequest, checked: DatasetChecked, report: SyncReport | None, name: str, context: Context
) -> DatasetPushed:
    counts: Counter[str] = Counter()
    done: dict[str, Any] = {"copied": 0, "copied_bytes": 0, "deleted": 0, "same": 0}
    if report is not None:
        (pair,) = report.pairs
        counts.update(pair["counts"])
        deletions = counts["delete_here"] + counts["delete_there"]
        done = {
            "copied": pair["copy_files"] if request.is_dry_run else pair["copied_files"],
            "copied_bytes": pair["copy_bytes"] if request.is_dry_run else pair["copied_bytes"],
            "deleted": deletions if request.is_dry_run else sum(path["result"] == "deleted" for path in report.paths),
            "same": counts["same"] + counts["adopt"],
        }
    return DatasetPushed(
        path=f"volume:/{name}",
        place=VolumePlace(context, ROLE).words,
        dataset=checked.dataset,
        rules=checked.rules,
        problems=checked.problems,
        is_dry_run=request.is_dry_run,
        error=checked.error if report is None else report.error,
        exit_code=checked.exit_code if report is None else report.exit_code,
        **done,
    )
