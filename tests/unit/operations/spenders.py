"""Many commands at once, each wanting to spend: `python -m tests.unit.operations.spenders FOLDER NUMBER USED_SHARE`.

Prints, of each process, `started` or the code of what refused it. With a share above 0 the run ends at once, having
cost so much of what was set aside for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from comfymodal.errors import ComfymodalError
from comfymodal.operations.context import Context
from comfymodal.operations.ending import ErrandEnding
from comfymodal.operations.follow import submit
from comfymodal.operations.money import Price, price_train
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.targets.base import Look
from tests.unit.operations.sync_target import Clerk, SyncTarget, context_of

PROJECT = "training: {gpu: L40S, timeout: 140s}\ncosts: {daily_usd: 1.00}\n"
"""The worst of a run is $0.2942, and it usually takes that long: three fit, and the rest pays for no part of one."""

TYPICAL_S = 140.0


def priced(context: Context, name: str, *, typical_s: float | None = TYPICAL_S) -> tuple[Run, Price]:
    run = Run(
        id=name,
        kind="errand",
        target="modal",
        status="submitting",
        title="spend",
        created_at=time.time(),
        ended_at=None,
        call_id=None,
        again_of=None,
        request={"job": {"run_id": name, "gpu": "L40S", "origin": {"run_s": typical_s}}, "flags": {}},
        result=None,
    )
    run, price = price_train(run, context, Clerk(), max_cost=None)
    assert price is not None
    return run, price


class Working(SyncTarget):
    """Whoever asks is told that the job still runs."""

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        return Look(0, (), None, is_alive=True)


def spend(context: Context, name: str, used_share: float) -> str:
    try:
        run, price = priced(context, name)
        submit(run, context, Clerk(), ErrandEnding(), waiting=Waiting(is_detached=True), price=price)
    except ComfymodalError as exc:
        return exc.code
    if used_share:
        cost = round(price.estimate.worst * used_share)
        context.ledger.settle(name, status="succeeded", ended_at=time.time(), result={}, cost_nanodollars=cost)
    context.ledger.close()
    return "started"


def main(folder: Path, number: int, used_share: float) -> None:
    # Each process opens the ledger by itself; the first of them makes it.
    context = context_of(Working([{"status": "succeeded"}], name="modal"), folder, PROJECT)
    waiting, go = os.pipe()
    for each in range(number):
        if os.fork() == 0:
            os.close(go)
            os.read(waiting, 1)
            told = f"{spend(context, f'run-{each:02d}', used_share)}\n"
            os.write(1, told.encode())
            os._exit(0)
    os.close(go)
    for _ in range(number):
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
