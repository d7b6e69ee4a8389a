"""Makes Modal's settings from the project: what the target needs, and nothing of the project file's shape."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.costs.live_rates import current_table, rates_file
from comfymodal.costs.rates import RateTable
from comfymodal.errors import ProjectError
from comfymodal.operations.ends import remote_of
from comfymodal.storage.rclone.session import region_of
from comfymodal.targets.spec import ContainerSpec, ImageSpec, ModalSpec, MountSpec, TrainSpec, VolumeSpec

if TYPE_CHECKING:
    from comfymodal.project.schema import ComfyUI, Mount, Project, Training

NEWEST_COMFYUI = "0.45.2"
"""What an image has when the project names no version: ComfyUI's newest release when this comfymodal was released
(12 November 2026, https://docs.comfy.org/changelog)."""


LOCKED_REQUIREMENTS = Path(__file__).parent.parent / "training" / "ai_toolkit" / "requirements.txt"
"""What the default commit of ai-toolkit runs with, resolved once and tried."""


def modal_spec(project: Project, state: Path) -> ModalSpec:
    """Give Modal as the project wants it; `state` is the folder on this machine for answers that are slow to get."""
    volumes = project.volumes
    return ModalSpec(
        project=project.project,
        environment=project.modal.environment,
        workspace=project.modal.workspace,
        volumes={role: _volume(getattr(volumes, role)) for role in type(volumes).model_fields},
        image=_image(project.comfyui),
        containers=_containers(project.comfyui),
        training=_training(project.training),
        state=state,
        mounts={name: _mount(project, mount) for name, mount in project.mounts.items()},
        region=project.modal.region,
        rates=price_table(project, state),
    )


def price_table(project: Project, state: Path) -> RateTable:
    """What prices the project's containers now: its workspace's own prices while they are fresh, else our list."""
    modal = project.modal
    path = rates_file(state, modal.workspace, modal.environment)
    return current_table(path, now=time.time(), workspace=modal.workspace).in_region(modal.region)


def _volume(volume: Any) -> VolumeSpec:
    return VolumeSpec(volume.name, volume.version)


def _mount(project: Project, mount: Mount) -> MountSpec:
    end = remote_of(project, mount.remote, mount.path)
    remote = end.remote
    return MountSpec(
        bucket=remote.bucket,
        prefix=remote.prefix,
        endpoint=remote.endpoint,
        region=remote.region or region_of(remote.endpoint),
        secret=str(end.secret),
    )


def _image(comfyui: ComfyUI) -> ImageSpec:
    return ImageSpec(
        comfyui_version=comfyui.version or NEWEST_COMFYUI,
        custom_nodes=comfyui.custom_nodes,
        python_packages=comfyui.python_packages,
        env=dict(comfyui.env),
        arguments=comfyui.args,
    )


def _training(training: Training) -> TrainSpec:
    path = training.requirements or LOCKED_REQUIREMENTS
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ProjectError(f"training.requirements: cannot read {path}: {exc}", hint="name another file") from exc
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    wanted = tuple(line for line in lines if line and not line.startswith("#"))
    if free := [line for line in wanted if "==" not in line and "@" not in line]:
        raise ProjectError(f"training.requirements: {free[0]} in {path} is not pinned", hint="write name==version")
    return TrainSpec(training.toolkit_commit, wanted, training.retries)


def _containers(comfyui: ComfyUI) -> ContainerSpec:
    return ContainerSpec(
        gpus=comfyui.gpu,
        timeout_s=comfyui.timeout,
        boot_timeout_s=comfyui.boot_timeout,
        scaledown_window_s=comfyui.scaledown_window,
        min_containers=comfyui.min_containers,
        max_containers=comfyui.max_containers,
        buffer_containers=comfyui.buffer_containers,
        snapshot=comfyui.snapshot,
        secrets=comfyui.secrets,
    )
