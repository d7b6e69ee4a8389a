"""Frozen settings a target needs, made from the project by `operations`; no target ever reads the project file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from comfymodal.comfyui.find import EngineWish

if TYPE_CHECKING:
    from comfymodal.costs.rates import RateTable

Snapshot = Literal["off", "cpu", "gpu"]


RENDER_ROLES = ("models", "inputs", "outputs")


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """This machine as a target: folders that stand for volumes, and which ComfyUI to use."""

    state: Path
    engines: Path
    volumes: Mapping[str, Path]
    engine: EngineWish


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A Modal volume; `version` (1 or 2) counts only when it has to be created."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What is in the render containers' image. Order of cost: a change of an earlier field rebuilds more."""

    comfyui_version: str
    custom_nodes: tuple[str, ...]
    """`id@version` of the Comfy registry, or `https://...@<40 hex digits of a commit>`."""
    python_packages: tuple[str, ...]
    """As pip takes them, e.g. `sageattention==2.2.0`."""
    env: Mapping[str, str]
    arguments: tuple[str, ...]
    """Extra arguments for ComfyUI."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """How render containers are started, kept and ended. Times are seconds."""

    gpus: tuple[str, ...]
    """Modal's names; of several the first that is free is taken."""
    timeout_s: float
    boot_timeout_s: float
    scaledown_window_s: float
    min_containers: int
    max_containers: int
    buffer_containers: int
    snapshot: Snapshot
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A folder of a bucket that render containers read models from, without a copy."""

    bucket: str
    prefix: str
    """Without slashes at its ends; empty for the whole bucket."""
    endpoint: str | None
    """None for Amazon's own."""
    region: str | None
    secret: str
    """The Modal secret with the keys."""

    def __str__(self) -> str:
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"{'/'.join(part for part in (self.bucket, self.prefix) if part)}{where}, keys of {self.secret}"


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What trainings run on. Its GPU, memory and secrets come with each run."""

    toolkit_commit: str
    """40 hex digits, of ostris/ai-toolkit."""
    requirements: tuple[str, ...]
    """As pip takes them, every one pinned; torch is ours."""
    retries: int


def _price_list() -> RateTable:
    # Containers, which know this module, have no prices.
    from comfymodal.costs.rates import LIST

    return LIST


@dataclass(frozen=True, slots=True)
class ModalSpec:
    """Modal as a target. `state` is where answers that are slow to get are kept on this machine."""

    project: str
    environment: str | None
    workspace: str | None
    volumes: Mapping[str, VolumeSpec]
    """By role: models, inputs, outputs, datasets, training, cache."""
    image: ImageSpec
    containers: ContainerSpec
    training: TrainSpec
    state: Path
    mounts: Mapping[str, MountSpec] = field(default_factory=dict)
    """By name, in the order in which models are looked for; all of them after the models volume."""
    region: str | None = None
    """Where containers may run only; None for anywhere."""
    rates: RateTable = field(default_factory=_price_list)
    """What is asked for containers there, as far as it is known here."""

    @property
    def render_volumes(self) -> Mapping[str, VolumeSpec]:
        """What render containers mount."""
        return {role: self.volumes[role] for role in RENDER_ROLES}
