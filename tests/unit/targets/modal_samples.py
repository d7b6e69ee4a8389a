"""Settings for Modal that tests start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from comfymodal.targets.spec import ContainerSpec, ImageSpec, ModalSpec, TrainSpec, VolumeSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT_NODE = f"https://github.com/someone/ComfyUI-Things.git@{COMMIT}"
REGISTRY_NODE = "comfyui-kjnodes@1.2.3"

IMAGE = ImageSpec(
    comfyui_version="0.3.75",
    custom_nodes=(REGISTRY_NODE, GIT_NODE),
    python_packages=("sageattention==2.2.0",),
    env={"HF_HUB_OFFLINE": "1"},
    arguments=("--fast",),
)
CONTAINERS = ContainerSpec(
    gpus=("L40S",),
    timeout_s=3600.0,
    boot_timeout_s=600.0,
    scaledown_window_s=60.0,
    min_containers=0,
    max_containers=3,
    buffer_containers=0,
    snapshot="off",
    secrets=("hf-credentials",),
)
TRAINING = TrainSpec("0123456789abcdef0123456789abcdef01234567", ("diffusers==0.39.0",), 5)
SPEC = ModalSpec(
    project="portraits",
    environment=None,
    workspace=None,
    volumes={role: VolumeSpec(f"comfy-{role}", 2) for role in ("models", "inputs", "outputs")},
    image=IMAGE,
    containers=CONTAINERS,
    training=TRAINING,
    state=Path("/nowhere"),
)


def with_image(**changed: Any) -> ModalSpec:
    return replace(SPEC, image=replace(IMAGE, **changed))


def with_containers(**changed: Any) -> ModalSpec:
    return replace(SPEC, containers=replace(CONTAINERS, **changed))
