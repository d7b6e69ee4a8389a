"""`comfymodal warm`: keep a container up for a while, so that the next render starts at once. It ends by itself."""

from __future__ import annotations

import time
from dataclasses import replace

from comfymodal.costs.rates import container_rate, cpu_rate, hourly_text, money_json, money_text, parse_gpu
from comfymodal.errors import CancelledError, NotReadyError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.fleet_results import KeptWarm, WarmthEnded
from comfymodal.operations.views import iso_time
from comfymodal.project.durations import format_duration
from comfymodal.targets.modal import warm
from comfymodal.targets.modal.deployment import read_deployment
from comfymodal.targets.modal.names import app_name
from comfymodal.targets.modal.plan import fingerprint
from comfymodal.targets.modal.session import connect
from comfymodal.targets.spec import ModalSpec

SHORTEST_S = 5.0
LONGEST_S = 24 * 3600.0
"""Modal ends every call after a day, so nobody could put things back later."""


def keep_warm(context: Context, desk: Desk, *, for_s: float, gpu: str | None, is_dry_run: bool) -> KeptWarm:
    """Keep a container up for so long, replacing what was kept warm before; says the cost and asks."""
    spec = context.modal_spec()
    _require_length(for_s)
    wanted = _gpu_label(gpu)
    pool = warm.other_gpu(spec, wanted)
    if warm.restore_of(spec, pool):
        raise UsageError(f"comfyui.min_containers keeps {spec.containers.min_containers} up already, all the time")
    connect(spec.workspace)
    _require_deployed(spec, desk)
    before = warm.read_warmth(spec)
    kept = _price(pool, spec, for_s, is_replacing=before is not None, is_dry_run=is_dry_run)
    if is_dry_run:
        return kept
    details = ["it costs that whether anything renders or not; to end it sooner: comfymodal warm --off"]
    if before is not None:
        details.append(f"replaces what is kept warm until {iso_time(before.until)}")
    if not desk.confirm(Question(_sentence(kept, for_s), tuple(details), "Keep it warm?")):
        raise CancelledError("nothing is kept warm" if before is None else "nothing was changed")
    if before is not None:
        warm.end(spec, before)
    begun = warm.begin(spec, until=time.time() + for_s, gpu=pool)
    return replace(kept, until=iso_time(begun.until))


def end_warm(context: Context, *, is_dry_run: bool) -> WarmthEnded:
    """Let go of what is kept warm. Nothing kept warm is no error."""
    spec = context.modal_spec()
    connect(spec.workspace)
    found = warm.read_warmth(spec) if read_deployment(spec, with_note=False) else None
    if found is not None and not is_dry_run:
        warm.end(spec, found)
    until = None if found is None else iso_time(found.until)
    return WarmthEnded(until, spec.containers.scaledown_window_s, is_dry_run)


def _require_length(for_s: float) -> None:
    if not SHORTEST_S <= for_s <= LONGEST_S:
        raise UsageError(
            f"cannot keep a container warm for {format_duration(for_s)}: from 5s to 24h (Modal ends every call then)",
            hint="for longer, comfyui.min_containers keeps containers up until the next deploy, at full price",
        )


def _gpu_label(gpu: str | None) -> str | None:
    try:
        return None if gpu is None else parse_gpu(gpu).label
    except ValueError as exc:
        raise UsageError(f"--gpu: {exc}") from exc


def _require_deployed(spec: ModalSpec, desk: Desk) -> None:
    deployment = read_deployment(spec, with_note=False)
    if deployment is None or deployment.fingerprint is None:
        raise NotReadyError(
            f"{app_name(spec.project)} is not deployed, so there is nothing to keep warm", hint="comfymodal deploy"
        )
    if deployment.fingerprint != fingerprint(spec):
        desk.warn("what is deployed is not what comfymodal.yaml says; this keeps what is deployed warm")


def _price(pool: str | None, spec: ModalSpec, for_s: float, *, is_replacing: bool, is_dry_run: bool) -> KeptWarm:
    """Of the container, and of the CPU that lets it go at the end."""
    rate = container_rate([parse_gpu(name) for name in ((pool,) if pool else spec.containers.gpus)], spec.rates)
    nanodollars = rate.cost(for_s) + cpu_rate(spec.rates).cost(for_s)
    return KeptWarm(
        until=iso_time(time.time() + for_s),
        gpu=pool or " or ".join(spec.containers.gpus),
        containers=1,
        cost_usd=money_json(nanodollars),
        cost=money_text(nanodollars),
        per_hour=hourly_text(rate),
        replaced=is_replacing,
        is_dry_run=is_dry_run,
    )


def _sentence(kept: KeptWarm, for_s: float) -> str:
    return f"keep a container warm: {kept.gpu} {kept.per_hour} for {format_duration(for_s)}: about {kept.cost}"
