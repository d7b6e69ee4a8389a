"""The project's bucket mounts from the operator's side: their keys, and what lies in them as a container listed it.

The listing is kept on this machine and on the outputs volume. It is made by a deploy, again when it is old, and again
when a model is missing; each time it is the work of some seconds on a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal.exception as me

from comfymodal.errors import NotReadyError
from comfymodal.files import read_json, write_json
from comfymodal.targets.base import OnEvent
from comfymodal.targets.modal.app import LIST_TIMEOUT_S, function_handle
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.known_secrets import MOUNT_KEYS, KnownSecret
from comfymodal.targets.modal.names import LIST_MOUNTS_FUNCTION
from comfymodal.targets.modal.nodes import ModelFile, files_by_folder
from comfymodal.targets.modal.plan import mounts_fingerprint
from comfymodal.targets.modal.secrets import missing_keys
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.spec import ModalSpec

OLD_AFTER_S = 15 * 60
"""A bucket that somebody fills or empties is looked at again before a render relies on an older listing."""

FOLDER = "comfymodal"
"""On the outputs volume, beside the runs."""


@dataclass(frozen=True, slots=True)
class MountListing:
    """Model files by mount, as they were at `at` (Unix seconds)."""

    at: float
    files: Mapping[str, tuple[tuple[str, int], ...]]

    @property
    def is_old(self) -> bool:
        return time.time() - self.at > OLD_AFTER_S

    def by_folder(self, spec: ModalSpec) -> list[dict[str, dict[str, ModelFile]]]:
        """Files by name below each model folder, mount by mount in the order of the project."""
        return [files_by_folder(self.files.get(name, ()), name) for name in spec.mounts]

    @property
    def folders(self) -> set[str]:
        return {path.partition("/")[0] for files in self.files.values() for path, _ in files}


def require_keys(spec: ModalSpec) -> None:
    """Raises `NotReadyError` for a secret of a mount that is not there or lacks a key: no container would start."""
    for name, mount in spec.mounts.items():
        missing = missing_keys(KnownSecret(mount.secret, MOUNT_KEYS), spec.environment)
        if missing is None:
            raise NotReadyError(
                f"mounts.{name}: there is no Modal secret {mount.secret}; nothing was deployed",
                hint=f"comfymodal setup, or modal secret create {mount.secret} AWS_ACCESS_KEY_ID=... "
                "AWS_SECRET_ACCESS_KEY=...",
                secret=mount.secret,
            )
        if missing:
            raise NotReadyError(
                f"mounts.{name}: the Modal secret {mount.secret} lacks {' and '.join(missing)}; nothing was deployed",
                hint=f"add them to {mount.secret} at https://modal.com/secrets",
                secret=mount.secret,
            )


def list_buckets(spec: ModalSpec, on_event: OnEvent) -> MountListing:
    """Have a container list the mounts; keep the answer here and on the outputs volume.

    Raises `NotReadyError` when a bucket cannot be mounted or read.
    """
    on_event({"type": "phase", "phase": "mounts"})
    found = _ask(spec)
    if error := found.get("error"):
        raise NotReadyError(f"a bucket cannot be listed: {error}", hint="comfymodal doctor looks at keys and buckets")
    note = {"at": time.time(), "files": found["files"]}
    Volumes(spec).put("outputs", json.dumps(note).encode(), _note_path(spec))
    _keep(spec, note)
    listing = _listing(note)
    files = sum(len(each) for each in listing.files.values())
    on_event({"type": "mounts_listed", "files": files, "seconds": found["seconds"]})
    return listing


def kept_listing(spec: ModalSpec) -> MountListing | None:
    """What this machine knows, without asking Modal."""
    return _listing(note) if (note := read_json(_kept_path(spec))) is not None else None


def read_listing(spec: ModalSpec) -> MountListing | None:
    """The same from this machine or, from another's deploy, from the outputs volume; None also without mounts."""
    if not spec.mounts:
        return None
    if (kept := kept_listing(spec)) is not None:
        return kept
    note = Volumes(spec).read_json("outputs", _note_path(spec))
    if note is None:
        return None
    _keep(spec, note)
    return _listing(note)


def _ask(spec: ModalSpec) -> Mapping[str, Any]:
    doctor = "comfymodal doctor looks at keys and buckets"
    with translated("cannot list the bucket mounts"):
        call = function_handle(spec, LIST_MOUNTS_FUNCTION).spawn()
        try:
            found: Mapping[str, Any] = call.get(timeout=2 * LIST_TIMEOUT_S)
        except KeyboardInterrupt:
            # Modal ends no call because nobody waits for it.
            call.cancel()
            raise
        except (TimeoutError, me.FunctionTimeoutError):
            call.cancel()
            raise NotReadyError(
                f"the buckets of {_names(spec)} were not listed in {LIST_TIMEOUT_S // 60} min",
                hint=f"give mounts.<name>.path a folder that has models only; {doctor}",
            ) from None
        except (me.InternalFailure, me.RemoteError) as exc:
            raise NotReadyError(
                f"no container starts with the buckets of {_names(spec)}: {exc}",
                hint=f"{doctor}; outside Amazon the secret may need AWS_REGION too{_regions(spec)}",
            ) from exc
    return found


def _names(spec: ModalSpec) -> str:
    return ", ".join(f"mounts.{name}" for name in spec.mounts)


def _regions(spec: ModalSpec) -> str:
    found = dict.fromkeys(f"{mount.region} in {mount.secret}" for mount in spec.mounts.values() if mount.region)
    return f" ({', '.join(found)})" if found else ""


def _listing(note: Mapping[str, Any]) -> MountListing:
    files = {str(name): tuple((str(path), int(size)) for path, size in found) for name, found in note["files"].items()}
    return MountListing(float(note["at"]), files)


def _keep(spec: ModalSpec, note: Mapping[str, Any]) -> None:
    path = _kept_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, note)


def _kept_path(spec: ModalSpec) -> Path:
    return spec.state / "modal" / f"mounts-{mounts_fingerprint(spec)}.json"


def _note_path(spec: ModalSpec) -> str:
    return f"{FOLDER}/mounts-{mounts_fingerprint(spec)}.json"
