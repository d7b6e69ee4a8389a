"""What a deploy is, in the operator's words, before it is agreed to: by `deploy`, and by the `render` that needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfymodal.costs.rates import Rate, container_rate, hourly_text, money_text, parse_gpu
from comfymodal.targets.base import Setup
from comfymodal.targets.modal.names import app_name
from comfymodal.targets.modal.plan import changes, describe, rebuild_minutes
from comfymodal.targets.spec import ModalSpec

MONTH_S = 30 * 24 * 3600


def describe_deploy(
    spec: ModalSpec, before: Mapping[str, Any] | None, missing_volumes: Sequence[str], *, is_first: bool
) -> Setup:
    """`before` is the description of what is deployed, None where nobody noted it."""
    after = describe(spec)
    name = app_name(spec.project)
    minutes = rebuild_minutes(before, after)
    details = [
        f"{item.key}  {item.new}" if before is None else f"{item.key}  {item.old} -> {item.new}  ({item.effect})"
        for item in changes(before, after)
    ]
    details += [f"volume {volume} will be created" for volume in missing_volumes]
    if minutes:
        details.append(f"building the image takes about {minutes:g} min on Modal's CPUs, once")
    if spec.mounts:
        details.append("what containers read from mounts is downloaded each time, and billed by the bucket's vendor")
    idle = idle_per_month(spec)
    kept = (
        f"comfyui.min_containers costs {money_text(idle)} per month, used or not" if idle else "idle it costs nothing"
    )
    details.append(f"a container costs {hourly_text(rate_of(spec))} while it lives; {kept}")
    return Setup(
        summary=f"nothing of this project is deployed on Modal yet; deploy {name}"
        if is_first
        else f"what is deployed as {name} is not what comfymodal.yaml says; deploy it again",
        details=tuple(details),
        ask="Deploy it?",
        declined_hint="comfymodal deploy --dry-run shows what would change",
        forbidden_hint="comfymodal deploy",
    )


def rate_of(spec: ModalSpec) -> Rate:
    """What a render container costs while it lives."""
    return container_rate([parse_gpu(name) for name in spec.containers.gpus])


def idle_per_month(spec: ModalSpec) -> int:
    """Nanodollars for the containers that are kept whether anybody renders or not."""
    return rate_of(spec).cost(MONTH_S) * spec.containers.min_containers
