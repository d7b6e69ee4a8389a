"""Bring what a training reads to where it is to be read, and look whether the rest is there, before a GPU is paid for.

Each upload is a run of `sync`: it shows in `runs list`, is watched and cancelled like any other, holds the volume's
lease, and goes on where it was cut. There is one for each new content, and none for what is there already.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from comfymodal.errors import NotFoundError, TransferError, error_from_dict
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.models_place import VolumePlace
from comfymodal.operations.parcels import packed
from comfymodal.operations.sync import bring
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.train_datasets import Looked
from comfymodal.operations.train_places import ROLE, Placed, Send, hash_file
from comfymodal.storage.ends import VolumeEnd
from comfymodal.training.ai_toolkit.paths import Found
from comfymodal.training.ai_toolkit.reading import PICTURES, SOUNDS, VIDEOS
from comfymodal.training.dataset_checks import FEW
from comfymodal.workflow.wording import did_you_mean, near_names, sentences

MARKER = ".complete.json"
"""In a folder named by its hash, written last: all is there. It goes with the folder, and no trainer sees it."""

MARKER_VERSION = 1


def send(placed: Placed, context: Context, desk: Desk) -> tuple[Send, ...]:
    """Send what is not on the datasets volume yet; return what was sent. Only for a project on Modal.

    Raises `CancelledError` (Ctrl-C: the same command goes on), `TransferError`, `PartialError`, `ServiceError`,
    `NotReadyError`.
    """
    place = VolumePlace(context, ROLE)
    missing = [each for each in placed.sends if place.size_of(f"{each.folder}/{MARKER}") is None]
    if missing:
        open_volume(ROLE, context)
    for each in missing:
        _send(each, context, desk)
    return tuple(missing)


def require_there(looked: Looked, context: Context, desk: Desk) -> None:
    """Look whether the paths on volumes that a config names are there: pictures in datasets, files for all else.

    Only for a project on Modal: on this machine the check has read them. Raises `NotFoundError`, `ServiceError`.
    """
    seen: dict[str, Mapping[str, int]] = {}
    for found in looked.paths:
        if found.kind != "volume":
            continue
        role, _, path = found.at.partition(":/")
        if found.at not in seen:
            seen[found.at] = context.target.files(role, path)
        _require(found, seen[found.at], context, desk)


def open_volume(role: str, context: Context) -> None:
    """Make a volume of Modal's that is not there yet."""
    from comfymodal.targets.modal.session import connect
    from comfymodal.targets.modal.storage_setup import create_volume, version_of

    spec = context.modal_spec()
    connect(spec.workspace)
    if version_of(spec.volumes[role], spec.environment) is None:
        create_volume(spec.volumes[role], spec.environment)


def _send(sending: Send, context: Context, desk: Desk) -> None:
    files = {file.path: file.source for file in sending.files}
    with packed(files, str(sending.source), VolumeEnd(ROLE, sending.folder), context) as parcel:
        # Only an earlier attempt can have put something else there.
        report = bring(parcel.pair, Wish(prefer="here"), context, desk)
        if report.error is not None:
            raise error_from_dict(report.error)
        _require_as_checked(sending)
        _mark(sending, context)
        parcel.remove()


def _require_as_checked(sending: Send) -> None:
    """A folder named by its hash must hold that: what was changed since it was read has been sent as it is now."""
    for file in sending.files:
        try:
            is_same = file.source.stat().st_size == file.size_bytes and hash_file(file.source) == file.sha256
        except OSError:
            is_same = False
        if not is_same:
            raise TransferError(
                f"{file.source} changed while it was sent; nothing was started", hint="run the same command again"
            )


def _mark(sending: Send, context: Context) -> None:
    from comfymodal.targets.modal.volumes import Volumes

    note: dict[str, Any] = {
        "version": MARKER_VERSION,
        "name": sending.source.name,
        "sha256": sending.sha256,
        "files": len(sending.files),
        "size_bytes": sending.size_bytes,
        "sent_at": time.time(),
    }
    Volumes(context.modal_spec()).put(ROLE, json.dumps(note).encode(), f"{sending.folder}/{MARKER}")


def _require(found: Found, files: Mapping[str, int], context: Context, desk: Desk) -> None:
    visible = [path for path in files if not any(part.startswith(".") for part in path.split("/"))]
    role, _, path = found.at.partition(":/")
    if not visible:
        raise NotFoundError(
            f"there is no {found.at} on the volume {context.modal_spec().volumes[role].name}",
            hint=_hint(found, role, path, context),
            path=found.at,
        )
    if found.use.path[-1] not in ("folder_path", "dataset_path"):
        return
    number = sum(PurePosixPath(each).suffix.lower() in (*PICTURES, *VIDEOS, *SOUNDS) for each in visible)
    if not number:
        raise NotFoundError(
            f"there is nothing to learn in {found.at}: none of its {len(visible)} files is a picture",
            hint="what lies there: comfymodal datasets list",
            path=found.at,
        )
    if number < FEW:
        desk.warn(f"{found.at} has {number} to learn from; 15 to 50 different pictures are usual")


def _hint(found: Found, role: str, path: str, context: Context) -> str | None:
    if role == "models":
        return f"bring it there: comfymodal models add, or comfymodal sync FOLDER models:/{path}"
    if role != ROLE:
        return f"bring it there: comfymodal sync FOLDER {found.at}"
    near = near_names(path, _folders(context))
    return sentences(did_you_mean(near), f"send it: comfymodal datasets push FOLDER {path}")


def _folders(context: Context) -> list[str]:
    """The datasets volume's, without our own; none where there is no such volume yet."""
    try:
        tops = {path.partition("/")[0] for path, _ in VolumePlace(context, ROLE).files() if "/" in path}
    except NotFoundError:
        return []
    return sorted(name for name in tops if not name.startswith("."))
