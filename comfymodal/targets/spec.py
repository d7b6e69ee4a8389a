"""Frozen settings a target needs, made from the project by `operations`; no target ever reads the project file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.find import EngineWish


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """This machine as a target: folders that stand for volumes, and which ComfyUI to use."""

    state: Path
    engines: Path
    volumes: Mapping[str, Path]
    engine: EngineWish
