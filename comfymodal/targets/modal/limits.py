"""What Modal would refuse, said before anything is built: a dated table and the checks that read it. Pure.

Only what can be known from the project file. That a function may not be both `nonpreemptible` and on a GPU needs no
check: no setting of ours reaches that option.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comfymodal.costs.rates import GpuChoice, parse_gpu
from comfymodal.targets.spec import ContainerSpec, ModalSpec

AS_OF = "2026-10-07"
"""When the limits were read at modal.com/pricing and in Modal's guide."""

LONGEST_CALL_S = 24 * 3600
SCALEDOWN_WINDOW_S = (2, 3600)
"""As the SDK checks it (1.6.4); Modal's guide says at most 20 minutes."""


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """`containers` and `gpus` are counted over a whole workspace at one moment."""

    name: str
    containers: int
    gpus: int


STARTER = PlanLimits("Starter", containers=100, gpus=10)
TEAM = PlanLimits("Team", containers=5_000, gpus=50)


def refusals(spec: ModalSpec) -> tuple[str, ...]:
    """Everything that Modal would refuse or never start, in the project file's words; empty when it may be deployed."""
    lines = [name for name, value in spec.image.env.items() if "\n" in value or "\r" in value]
    broken = (f"comfyui.env: {name} has a line break, which an image cannot keep" for name in lines)
    insecure = (
        f"mounts.{name}: the endpoint {mount.endpoint} must begin with https://"
        for name, mount in spec.mounts.items()
        if mount.endpoint is not None and not mount.endpoint.lower().startswith("https://")
    )
    return (*_refusals(spec.containers), *broken, *insecure)


def notices(spec: ModalSpec) -> tuple[str, ...]:
    """What only some plans allow. Not refused: which plan the workspace has is not ours to know."""
    wanted = spec.containers
    found = []
    if STARTER.gpus < (gpus := _gpus_at_most(wanted)) <= TEAM.gpus:
        found.append(
            f"comfyui.max_containers: {wanted.max_containers} may take {gpus} GPUs at once; "
            f"Modal's {STARTER.name} plan gives {STARTER.gpus} ({AS_OF}), the rest wait"
        )
    return tuple(found)


def _refusals(wanted: ContainerSpec) -> Iterator[str]:
    for gpu in wanted.gpus:
        try:
            parse_gpu(gpu)
        except ValueError as exc:
            yield f"comfyui.gpu: {exc}"
    if not 1 <= wanted.timeout_s <= LONGEST_CALL_S:
        yield f"comfyui.timeout: {wanted.timeout_s:g} s; Modal ends every call after 24 h, and wants at least 1 s"
    if not 1 <= wanted.boot_timeout_s <= LONGEST_CALL_S:
        yield f"comfyui.boot_timeout: {wanted.boot_timeout_s:g} s; Modal wants 1 s to 24 h"
    low, high = SCALEDOWN_WINDOW_S
    if not low <= wanted.scaledown_window_s <= high:
        yield f"comfyui.scaledown_window: {wanted.scaledown_window_s:g} s; Modal wants {low} s to {high // 60} min"
    yield from _counts(wanted)


def _counts(wanted: ContainerSpec) -> Iterator[str]:
    least, spare, most = wanted.min_containers, wanted.buffer_containers, wanted.max_containers
    if min(least, spare) < 0 or most < 1:
        yield "comfyui: min_containers and buffer_containers are 0 or more, max_containers 1 or more"
    if least > most:
        yield f"comfyui.min_containers: {least} is more than comfyui.max_containers: {most}"
    if (gpus := _gpus_at_most(wanted)) > TEAM.gpus:
        yield (
            f"comfyui.max_containers: {most} may take {gpus} GPUs at once; "
            f"Modal's {TEAM.name} plan gives {TEAM.gpus} ({AS_OF})"
        )


def _gpus_at_most(wanted: ContainerSpec) -> int:
    return wanted.max_containers * max((choice.count for choice in _choices(wanted)), default=0)


def _choices(wanted: ContainerSpec) -> list[GpuChoice]:
    found = []
    for gpu in wanted.gpus:
        try:
            found.append(parse_gpu(gpu))
        except ValueError:
            continue
    return found
