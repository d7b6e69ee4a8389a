"""The two ends of a sync as a job carries them: a remote, a volume, a folder. Plain JSON both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from comfymodal.storage.actions import Direction
from comfymodal.storage.values import Remote


@dataclass(frozen=True, slots=True)
class RemoteEnd:
    """A bucket, or a folder in one. `secret` is the Modal secret with its keys; None where it needs none."""

    remote: Remote
    secret: str | None = None

    def __str__(self) -> str:
        return str(self.remote)


@dataclass(frozen=True, slots=True)
class VolumeEnd:
    """A volume of the project by role, or a folder in it: mounted in a container, a folder on the local target."""

    role: str
    path: str = ""
    """Without slashes at its ends; empty for the whole volume."""

    def __str__(self) -> str:
        return f"{self.role}:/{self.path}"


@dataclass(frozen=True, slots=True)
class FolderEnd:
    """A folder of this machine; `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class ApiEnd:
    """A Modal volume as this machine reaches it: through Modal's API. `name` and `environment` are Modal's."""

    role: str
    name: str
    environment: str | None
    path: str = ""

    def __str__(self) -> str:
        return f"{self.role}:/{self.path}"


End = RemoteEnd | VolumeEnd | FolderEnd | ApiEnd

_KINDS: Mapping[str, type[VolumeEnd | FolderEnd | ApiEnd]] = {"volume": VolumeEnd, "folder": FolderEnd, "api": ApiEnd}


def end_to_dict(end: End) -> dict[str, Any]:
    kind = {RemoteEnd: "remote", VolumeEnd: "volume", FolderEnd: "folder", ApiEnd: "api"}[type(end)]
    return {"kind": kind, **asdict(end)}


def end_from_dict(data: Mapping[str, Any]) -> End:
    found = {key: value for key, value in data.items() if key != "kind"}
    if data["kind"] == "remote":
        return RemoteEnd(Remote(**found["remote"]), found["secret"])
    return _KINDS[data["kind"]](**found)


@dataclass(frozen=True, slots=True)
class Ends:
    """A pair as the plan sees it: `here` keeps the base and the lease, `there` is the other place."""

    here: End
    there: End
    direction: Direction


def arrange(source: End, target: End, *, is_two_way: bool) -> Ends:
    """Which end is `here`: the one that is no remote; of two such, the one that is written to (a folder of this
    machine before a volume that only Modal's API reaches). Two remotes are not for us: raises ValueError.
    """
    if isinstance(source, RemoteEnd) and isinstance(target, RemoteEnd):
        raise ValueError("one end must be a volume or a folder")
    is_push = isinstance(target, RemoteEnd) or (isinstance(target, ApiEnd) and not isinstance(source, RemoteEnd))
    here, there = (source, target) if is_push else (target, source)
    direction: Literal["pull", "push", "both"] = "both" if is_two_way else "push" if is_push else "pull"
    return Ends(here, there, direction)
