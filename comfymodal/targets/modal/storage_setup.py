"""The project's volumes as `setup` and `doctor` see them: there or not, of which version, and proved by a listing."""

from __future__ import annotations

from dataclasses import dataclass

import modal
import modal.exception as me

from comfymodal.targets.modal.errors import translated
from comfymodal.targets.spec import VolumeSpec


@dataclass(frozen=True, slots=True)
class VolumeLook:
    """A volume that answered. `entries` counts files and folders at its top, `version` is 1 or 2."""

    entries: int
    version: int


def look_at_volume(volume: VolumeSpec, environment: str | None) -> VolumeLook | None:
    """Open the volume and list it; None when there is none of that name. Raises `ServiceError` and the like."""
    with translated(f"cannot open the volume {volume.name}"):
        handle = modal.Volume.from_name(volume.name, environment_name=environment)
        try:
            handle.hydrate()
        except me.NotFoundError:
            return None
        entries = len(handle.listdir("/"))
        return VolumeLook(entries, _version(volume, environment))


def create_volume(volume: VolumeSpec, environment: str | None) -> bool:
    """Make the volume; False when somebody else made one meanwhile, which is then kept."""
    with translated(f"cannot create the volume {volume.name}"):
        try:
            modal.Volume.objects.create(volume.name, version=volume.version, environment_name=environment)
        except me.AlreadyExistsError:
            return False
        return True


def version_of(volume: VolumeSpec, environment: str | None) -> int | None:
    """1 or 2; None when there is no volume of that name. Raises `ServiceError` and the like."""
    with translated(f"cannot open the volume {volume.name}"):
        try:
            return _version(volume, environment)
        except me.NotFoundError:
            return None


def _version(volume: VolumeSpec, environment: str | None) -> int:
    # `info()` does not tell it; asked for as the other version, the SDK refuses to open the volume.
    handle = modal.Volume.from_name(volume.name, environment_name=environment, version=volume.version)
    try:
        handle.hydrate()
    except me.InvalidError:
        return 1 if volume.version == 2 else 2
    return volume.version
