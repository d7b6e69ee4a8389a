"""The images of the containers: `recipe` as Modal's objects. Nothing is built before a deploy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import modal

from comfymodal.files import write_text
from comfymodal.targets.modal.names import ENV_OF_ANY_ROLE, MOUNT_ROOT
from comfymodal.targets.modal.recipe import (
    PYTHON,
    SYNC_PACKAGES,
    Step,
    container_env,
    image_steps,
    training_env,
    training_steps,
    travels,
)
from comfymodal.targets.spec import ModalSpec


def render_image(spec: ModalSpec) -> modal.Image:
    """Slow layers first. Settings come late, so that a change of them rebuilds nothing; our sources come last, as files
    that are mounted when a container starts and are part of no layer.
    """
    image = modal.Image.debian_slim(python_version=PYTHON)
    for step in image_steps(spec.image):
        image = _add(image, step, spec.state)
    return _with_sources(image.env(container_env(spec)), "render")


def sync_image() -> modal.Image:
    """The image of the containers that move files: the same for every project."""
    image = modal.Image.debian_slim(python_version=PYTHON).pip_install(*SYNC_PACKAGES)
    return _with_sources(image.env({name: f"{MOUNT_ROOT}/{role}" for role, name in ENV_OF_ANY_ROLE.items()}), "sync")


def train_image(spec: ModalSpec) -> modal.Image:
    """The image of the containers that train."""
    image = modal.Image.debian_slim(python_version=PYTHON)
    for step in training_steps(spec.training):
        image = _add(image, step, spec.state)
    return _with_sources(image.env(training_env()), "train")


def _add(image: modal.Image, step: Step, state: Path) -> modal.Image:
    if step.apt:
        image = image.apt_install(*step.apt)
    files = {**step.files, **{place: _as_file(text, state) for place, text in step.texts.items()}}
    for place, path in files.items():
        # Copied, not mounted: later steps run it.
        image = image.add_local_file(path, place, copy=True)
    return image.run_commands(*step.commands) if step.commands else image


def _as_file(text: str, state: Path) -> Path:
    """The text in a file of this machine, which Modal reads when the image is built."""
    path = state / "modal" / f"text-{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _with_sources(image: modal.Image, kind: str) -> modal.Image:
    return image.add_local_python_source("comfymodal", ignore=lambda path: not travels(path, kind))
