"""The image of the render containers: `recipe` as Modal's object. Nothing is built before a deploy."""

from __future__ import annotations

from pathlib import Path

import modal

from comfymodal.targets.modal.names import ENV_OF_ANY_ROLE, MOUNT_ROOT
from comfymodal.targets.modal.recipe import PYTHON, SYNC_PACKAGES, Step, container_env, image_steps, travels
from comfymodal.targets.spec import ModalSpec


def render_image(spec: ModalSpec) -> modal.Image:
    """Slow layers first. Settings come late, so that a change of them rebuilds nothing; our sources come last, as files
    that are mounted when a container starts and are part of no layer.
    """
    image = modal.Image.debian_slim(python_version=PYTHON)
    for step in image_steps(spec.image):
        image = _add(image, step)
    return image.env(container_env(spec)).add_local_python_source("comfymodal", ignore=_stays)


def sync_image() -> modal.Image:
    """The image of the containers that move files: the same for every project."""
    image = modal.Image.debian_slim(python_version=PYTHON).pip_install(*SYNC_PACKAGES)
    where = {name: f"{MOUNT_ROOT}/{role}" for role, name in ENV_OF_ANY_ROLE.items()}
    return image.env(where).add_local_python_source("comfymodal", ignore=lambda path: not travels(path, "sync"))


def _add(image: modal.Image, step: Step) -> modal.Image:
    if step.apt:
        image = image.apt_install(*step.apt)
    for place, path in step.files.items():
        # Copied, not mounted: later steps run it.
        image = image.add_local_file(path, place, copy=True)
    return image.run_commands(*step.commands) if step.commands else image


def _stays(path: Path) -> bool:
    return not travels(path)
