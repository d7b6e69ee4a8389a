"""Frozen settings a target needs, made from the project by `operations`; no target ever reads the project file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfymodal.comfyui.find import EngineWish

Snapshot = Literal["off", "cpu", "gpu"]


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
class ModalSpec:
    """Modal as a target. `state` is where answers that are slow to get are kept on this machine."""

    project: str
    environment: str | None
    workspace: str | None
    volumes: Mapping[str, VolumeSpec]
    """By role: models, inputs, outputs."""
    image: ImageSpec
    containers: ContainerSpec
    state: Path
