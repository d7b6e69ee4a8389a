"""`train --push NAME`: what was trained goes on to a bucket by a pair of the project, once it is among the models."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from comfymodal.errors import CancelledError, PartialError
from comfymodal.operations import sync
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ends import Pair
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.train_results import TrainReport
from comfymodal.storage.ends import VolumeEnd


def pushed(done: TrainReport, pair: Pair, context: Context, desk: Desk) -> TrainReport:
    """The training's report with what became of the push; one that failed does not make the training a failure."""
    if not done.published:
        return done
    root = cast("VolumeEnd", pair.source).path
    # With the notes beside them.
    stems = [str(each["path"]).removeprefix(f"{root}/" if root else "").rpartition(".")[0] for each in done.published]
    include = tuple(f"/{stem}.*" for stem in stems)
    sent = sync.sync_one(replace(pair, is_two_way=False), Wish(include=include), context, desk)
    done = replace(done, push=sent.pairs[0])
    if sent.exit_code == 0:
        return done
    error = {**(sent.error or {}), "hint": f"it is among the models; comfymodal sync {pair.name}"}
    error["message"] = f"{done.name} was not pushed by {pair.name}: {error.get('message')}"
    code = CancelledError.exit_code if sent.exit_code == CancelledError.exit_code else PartialError.exit_code
    return replace(done, error=done.error or error, exit_code=code)
