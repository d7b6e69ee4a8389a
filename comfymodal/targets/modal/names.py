"""Names and numbers that the operator's side and the containers must agree on. Standard library only."""

from __future__ import annotations

from typing import Final

MOUNT_ROOT: Final = "/volumes"
"""Volumes are mounted at `/volumes/<role>`, never inside ComfyUI: a mount point must be empty."""

BUCKETS_ROOT: Final = f"{MOUNT_ROOT}/mounts"
"""Buckets are mounted at `/volumes/mounts/<name>`; no role is called so."""

COMFYUI_PATH: Final = "/root/comfy/ComfyUI"
COMFYUI_PYTHON: Final = "/usr/local/bin/python"

TOOLKIT_PATH: Final = "/opt/ai-toolkit"
TOOLKIT_PYTHON: Final = COMFYUI_PYTHON
"""The one Python of an image."""

INSPECT_FUNCTION: Final = "inspect"
KEEP_WARM_FUNCTION: Final = "keep_warm"
LIST_MOUNTS_FUNCTION: Final = "list_mounts"
"""CPU function that has the project's bucket mounts; not there without any."""

CARRY_FUNCTION: Final = "carry"
"""CPU function of the sync app: every job that moves files."""

TRAIN_FUNCTION: Final = "train"
"""Function of the train app; its GPU, memory, volumes and secrets come with each call."""

PROVE_FUNCTION: Final = "prove"
"""CPU function of `doctor --live`."""

FINGERPRINT_TAG: Final = "comfymodal.fingerprint"
"""On the app; the render app gets it only after `inspect` found the deployment sound."""

# Read by the containers; the image sets them, a test may set others.
ENV_MODELS: Final = "COMFYMODAL_VOLUME_MODELS"
ENV_INPUTS: Final = "COMFYMODAL_VOLUME_INPUTS"
ENV_OUTPUTS: Final = "COMFYMODAL_VOLUME_OUTPUTS"
ENV_MOUNTS: Final = "COMFYMODAL_MOUNTS"
"""The folder with the bucket mounts, by name."""

ENV_SETTINGS: Final = "COMFYMODAL_CONTAINER"
"""JSON: `{project, board, volumes: {role: name}, mounts: [name], arguments: [...], boot_timeout_s}`."""

ROLES: Final = ("models", "inputs", "outputs")
"""What is mounted where renders run."""

ENV_OF_ROLE: Final = {"models": ENV_MODELS, "inputs": ENV_INPUTS, "outputs": ENV_OUTPUTS}

ENV_OF_ANY_ROLE: Final = {
    **ENV_OF_ROLE,
    "datasets": "COMFYMODAL_VOLUME_DATASETS",
    "training": "COMFYMODAL_VOLUME_TRAINING",
    "cache": "COMFYMODAL_VOLUME_CACHE",
}
"""What may be mounted where files are moved and where trainings run."""

TRAIN_ROLES: Final = ("datasets", "models", "training", "cache", "outputs")
"""What is mounted where trainings run."""

APP_KINDS: Final = ("render", "sync", "train")
"""The apps that a project may have."""


def app_name(project: str, kind: str = "render") -> str:
    """One App per project and kind: a trainer's edit must not drain warm render containers; bills are per App."""
    return f"comfymodal-{project}-{kind}"


def app_kind(job_kind: str) -> str:
    """Which of the project's apps runs a job of this kind."""
    return job_kind if job_kind in APP_KINDS else "sync"


def app_names(project: str) -> tuple[str, ...]:
    """Every app that a project may have."""
    return tuple(app_name(project, kind) for kind in APP_KINDS)


def board_name(project: str) -> str:
    """The `modal.Dict` with an entry per run."""
    return f"comfymodal-{project}"


def render_class(snapshot: str) -> str:
    """Which class of `containers` is deployed."""
    return "RenderBox" if snapshot == "off" else "SnapshotRenderBox"


def app_tags(project: str, kind: str = "render") -> dict[str, str]:
    """By these billing rows are found; values may hold letters, digits, dots, dashes and underscores, at most 63."""
    return {"comfymodal.project": project, "comfymodal.kind": kind}
