"""Names and numbers that the operator's side and the containers must agree on. Standard library only."""

from __future__ import annotations

from typing import Final

MOUNT_ROOT: Final = "/volumes"
"""Volumes are mounted at `/volumes/<role>`, never inside ComfyUI: a mount point must be empty."""

COMFYUI_PATH: Final = "/root/comfy/ComfyUI"
COMFYUI_PYTHON: Final = "/usr/local/bin/python"

INSPECT_FUNCTION: Final = "inspect"
KEEP_WARM_FUNCTION: Final = "keep_warm"
PROVE_FUNCTION: Final = "prove"
"""CPU function of `doctor --live`."""

FINGERPRINT_TAG: Final = "comfymodal.fingerprint"
"""On the app; set only after `inspect` found the deployment sound."""

# Read by the containers; the image sets them, a test may set others.
ENV_MODELS: Final = "COMFYMODAL_VOLUME_MODELS"
ENV_INPUTS: Final = "COMFYMODAL_VOLUME_INPUTS"
ENV_OUTPUTS: Final = "COMFYMODAL_VOLUME_OUTPUTS"
ENV_SETTINGS: Final = "COMFYMODAL_CONTAINER"
"""JSON: `{project, board, volumes: {role: name}, arguments: [...], boot_timeout_s}`."""

ROLES: Final = ("models", "inputs", "outputs")
ENV_OF_ROLE: Final = {"models": ENV_MODELS, "inputs": ENV_INPUTS, "outputs": ENV_OUTPUTS}


def app_name(project: str, kind: str = "render") -> str:
    """One App per project and kind: a trainer's edit must not drain warm render containers; bills are per App."""
    return f"comfymodal-{project}-{kind}"


def board_name(project: str) -> str:
    """The `modal.Dict` with an entry per run."""
    return f"comfymodal-{project}"


def render_class(snapshot: str) -> str:
    """Which class of `containers` is deployed."""
    return "RenderBox" if snapshot == "off" else "SnapshotRenderBox"


def app_tags(project: str, kind: str = "render") -> dict[str, str]:
    """By these billing rows are found; values may hold letters, digits, dots, dashes and underscores, at most 63."""
    return {"comfymodal.project": project, "comfymodal.kind": kind}
