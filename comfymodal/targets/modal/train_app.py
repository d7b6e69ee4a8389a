"""The app that trains. GPU and memory are the job's, so they come with the call, as volumes and secrets do."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from typing import Any

import modal

from comfymodal.costs.rates import GPU_CONTAINER_CORES
from comfymodal.targets.modal import train_carrier
from comfymodal.targets.modal.carry_app import CarryApp
from comfymodal.targets.modal.image import train_image
from comfymodal.targets.modal.names import TRAIN_FUNCTION
from comfymodal.targets.modal.plan import train_fingerprint
from comfymodal.targets.modal.recipe import TRAIN_CONTAINERS, training_steps
from comfymodal.targets.spec import ModalSpec

MOST_RETRIES = 10
"""What Modal tries again at most."""


def train_app(spec: ModalSpec) -> CarryApp:
    """What of the project trains."""
    minutes = sum(step.minutes for step in training_steps(spec.training))
    return CarryApp(
        spec=spec,
        kind="train",
        fingerprint=train_fingerprint(spec),
        function=TRAIN_FUNCTION,
        body=train_carrier.train,
        options={**TRAIN_CONTAINERS, "region": spec.region},
        make_image=functools.partial(train_image, spec),
        why="trainings on Modal have an app of their own",
        details=(
            f"builds an image of about 10 GB in about {minutes:g} min, once, on Modal's CPUs; no GPU",
            f"in it: ai-toolkit at commit {spec.training.toolkit_commit[:12]}, and what that needs",
            "idle it costs nothing; a training pays for its GPU and its memory while it runs",
        ),
        undone="nothing was trained",
        build_hint="the image's build log is above; correct training.toolkit_commit or training.requirements",
    )


def train_handle(spec: ModalSpec, job: Mapping[str, Any], secrets: Collection[str]) -> Any:
    """The deployed function as this job needs it: `{gpu, memory_gib, modal: {volumes, retries, moves}, ...}`."""
    allowed = job["modal"]["retries"] + job["modal"]["moves"]
    return train_app(spec).handle(
        job["modal"]["volumes"],
        secrets,
        gpu=job["gpu"],
        cpu=float(GPU_CONTAINER_CORES),
        memory=int(job["memory_gib"]) * 1024,
        # What only fails again is returned and not raised: there is nothing to wait for.
        retries=modal.Retries(max_retries=allowed, initial_delay=1.0, backoff_coefficient=1.0),
    )


def goes_of(spec: ModalSpec, job: Mapping[str, Any]) -> dict[str, int]:
    """How often the run may go on in another container: after a failure, and because a container's time was over."""
    retries = min(spec.training.retries, MOST_RETRIES)
    deadline_s = job.get("deadline_s")
    containers = math.ceil(float(deadline_s) / train_carrier.attempt_s(job)) if deadline_s else MOST_RETRIES
    return {"retries": retries, "moves": max(0, min(containers - 1, MOST_RETRIES - retries))}
