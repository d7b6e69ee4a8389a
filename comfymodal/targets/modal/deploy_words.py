"""What a deploy is, in the operator's words, before it is agreed to: by `deploy`, and by the `render` that needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfymodal.costs.rates import Rate, container_rate, hourly_text, money_text, parse_gpu
from comfymodal.errors import NotReadyError
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
    told = "an unknown amount" if idle is None else money_text(idle)
    kept = "idle it costs nothing" if idle == 0 else f"comfyui.min_containers costs {told} per month, used or not"
    details.append(f"a container costs {per_hour(spec)} while it lives; {kept}")
    return Setup(
        summary=f"nothing of this project is deployed on Modal yet; deploy {name}"
        if is_first
        else f"what is deployed as {name} is not what comfymodal.yaml says; deploy it again",
        details=tuple(details),
        ask="Deploy it?",
        declined_hint="comfymodal deploy --dry-run shows what would change",
        forbidden_hint="comfymodal deploy",
    )


def per_hour(spec: ModalSpec) -> str:
    """What a render container costs while it lives, in words."""
    rate = _rate_of(spec)
    return "an unknown amount per hour" if rate is None else hourly_text(rate)


def idle_per_month(spec: ModalSpec) -> int | None:
    """Nanodollars for the containers that are kept whether anybody renders or not; None where no price is known."""
    if spec.containers.min_containers == 0:
        return 0
    rate = _rate_of(spec)
    return None if rate is None else rate.cost(MONTH_S) * spec.containers.min_containers


def _rate_of(spec: ModalSpec) -> Rate | None:
    try:
        return container_rate([parse_gpu(name) for name in spec.containers.gpus], spec.rates)
    except NotReadyError:
        return None
