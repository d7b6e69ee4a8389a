"""What an ended run came to, from what its container noted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfymodal.costs.measure import Measured, billed_choice, measure
from comfymodal.costs.rates import money_text
from comfymodal.operations.context import Context
from comfymodal.runs.ledger import Run


def cost_of(run: Run, outcome: Mapping[str, Any]) -> int | None:
    """Nanodollars of an ended run by its own seconds; None where nothing is paid or nothing is known."""
    measured = measured_of(run, outcome, {})
    return None if measured is None or run.rate is None else measured.cost(int(run.rate["nanodollars_per_s"]))


def measured_of(run: Run, outcome: Mapping[str, Any], result: Mapping[str, Any]) -> Measured | None:
    """An ended run's seconds, and the rate that holds for them; None where nothing is paid or nothing is known."""
    container = outcome.get("container")
    if run.rate is None or not isinstance(container, Mapping):
        return None
    choice = _choice(run, outcome)
    return replace(
        measure(container, created_at=run.created_at, window_s=float(run.rate.get("window_s") or 0.0)),
        load_s=outcome.get("load_s"),
        outputs=_outputs(run, outcome, result),
        gpu_seen=_gpu_seen(outcome),
        gpu_billed=choice,
        nanodollars_per_s=int(run.rate["choices"][choice]) if choice else None,
    )


def idle_text(run: Run, context: Context) -> str | None:
    """What the container that stays warm after a run may still cost; None where there is none with a GPU."""
    if run.kind != "render" or run.rate is None or context.project.target != "modal":
        return None
    window_s = context.modal_spec().containers.scaledown_window_s
    cost = round(int(run.rate["nanodollars_per_s"]) * window_s)
    return f"its container stays warm for {window_s:.0f} s, for at most {money_text(cost)}"


def _outputs(run: Run, outcome: Mapping[str, Any], result: Mapping[str, Any]) -> int:
    """What a run made: files of a render, one LoRA of a training."""
    if run.kind == "train":
        return int(outcome["status"] == "succeeded")
    return len(result.get("outputs") or ()) or sum(len(each["outputs"]) for each in outcome.get("prompts") or ())


def _choice(run: Run, outcome: Mapping[str, Any]) -> str:
    """Of several GPUs that might have been taken, the one that was; empty with one only, or when it is not known."""
    choices = (run.rate or {}).get("choices") or {}
    return billed_choice(choices, _gpu_seen(outcome)) if choices else ""


def _gpu_seen(outcome: Mapping[str, Any]) -> str:
    container, engine = outcome.get("container") or {}, outcome.get("engine") or {}
    is_gpu = engine.get("device_type") not in (None, "cpu")
    return str(container.get("gpu") or (engine.get("device") if is_gpu else None) or "")
