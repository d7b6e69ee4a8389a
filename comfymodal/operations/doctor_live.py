"""`comfymodal doctor --live`: what only a container on the operator's account can tell. It costs, so it asks first."""

from __future__ import annotations

import time

from comfymodal.costs.rates import Rate, cpu_rate, money_json, money_text
from comfymodal.errors import NotReadyError
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.examine import Check, Finding, Told, examine, row_of
from comfymodal.targets.spec import ModalSpec

NOT_NEEDED = ("app", "clock", "engine here", "output folder")
"""Checks that may fail without any harm to the proofs."""


def examine_live(spec: ModalSpec, told: Told, desk: Desk) -> tuple[Told, str | None]:
    """Prove in a container what can be; also what that cost at most, in US dollars.

    Nothing is started when a check failed that the container needs, on a no, and where nobody can be asked.
    """
    broken = [row.check for row, _ in told if row.status in ("fail", "skipped") and row.check not in NOT_NEEDED]
    if broken:
        return [row_of("live", Finding("skipped", f"cannot be told without: {broken[0]}"))], None
    if (refused := _ask(spec, desk)) is not None:
        return [row_of("live", refused)], None
    desk.event({"type": "phase", "phase": "live"})
    began = time.monotonic()
    proofs: Told = []
    # Those that came before a failure stay told.
    ended = examine([Check("live: end", lambda: _prove(spec, desk, proofs))])
    from comfymodal.targets.modal.live import SCALEDOWN_S

    return [*proofs, *ended], money_json(_rate(spec).cost(time.monotonic() - began + SCALEDOWN_S))


def _ask(spec: ModalSpec, desk: Desk) -> Finding | None:
    """None is a yes."""
    from comfymodal.targets.modal.live import WORST_S

    rate = _rate(spec)
    details = (
        f"about 15 s, never more than {WORST_S} s, at {money_text(rate.cost(3600))}/h: "
        f"{money_text(rate.cost(15))}, at worst {money_text(rate.cost(WORST_S))}",
        "the first time Modal also builds a small image; Ctrl-C ends it",
    )
    summary = "doctor --live starts one container without a GPU, with this project's volumes and secrets"
    try:
        return None if desk.confirm(Question(summary, details, "Start it?")) else Finding("skipped", "not started")
    except NotReadyError as error:
        return Finding("fail", error.message, error.hint, error.exit_code)


def _rate(spec: ModalSpec) -> Rate:
    # This app is not bound to the project's region.
    return cpu_rate(spec.rates.in_region(None))


def _prove(spec: ModalSpec, desk: Desk, proofs: Told) -> Finding:
    from comfymodal.targets.modal.live import Proof, prove_live

    def on_proof(proof: Proof) -> None:
        finding = Finding("fail" if proof.exit_code else "ok", proof.what, proof.hint, proof.exit_code)
        proofs.append(row_of(proof.check, finding, proof.seconds))
        desk.event({"type": "proof", "check": proof.check, "what": proof.what, "seconds": proof.seconds})

    prove_live(spec, on_proof)
    return Finding("ok", "the app was ended, and its container with it")
