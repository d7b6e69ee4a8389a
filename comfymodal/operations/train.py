"""`comfymodal train`: check, price, submit, follow. Everything free comes before anything costly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.errors import CancelledError, ComfymodalError, ConflictError, NotFoundError, PartialError, UsageError
from comfymodal.jobs.train_publish import FOLDER
from comfymodal.operations.collect import require_writable
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.follow import submit
from comfymodal.operations.keys import with_keys
from comfymodal.operations.money import price_train
from comfymodal.operations.news import telling
from comfymodal.operations.ready import ready_setup
from comfymodal.operations.runs import find_run
from comfymodal.operations.sync import plan_push
from comfymodal.operations.train_check import Examined, TrainRequest, examine
from comfymodal.operations.train_datasets import places_of
from comfymodal.operations.train_end import TrainEnding
from comfymodal.operations.train_gate import TOKEN_NAMES, require_model
from comfymodal.operations.train_jobs import More, Ready, TrainWish, build_more, build_run, require_training
from comfymodal.operations.train_places import Hashes, place_files
from comfymodal.operations.train_push import pushed
from comfymodal.operations.train_results import SweepReport, TrainChecked, TrainReport
from comfymodal.operations.train_send import require_there, send
from comfymodal.operations.train_sweep import Reserved, run_sweep
from comfymodal.runs.ledger import Run

if TYPE_CHECKING:
    from comfymodal.operations.train_eval import EvalPlan


def train(
    request: TrainRequest, wish: TrainWish, context: Context, desk: Desk
) -> TrainChecked | TrainReport | SweepReport:
    """Train one LoRA, or those of a sweep. What is wrong with the config is the result, and nothing was started.

    Raises any `ComfymodalError`.
    """
    pair = plan_push(wish.push, "models", FOLDER, context, desk) if wish.push else None
    plan = _evaluation(wish, context, desk)
    examined = examine(request, places_of(context.project, context.state, context.warnings), desk)
    if examined.checked.exit_code:
        return examined.checked
    _require_one(examined, wish)
    _warn(examined, desk)
    before = _before(wish, context)
    context = with_keys(context, TOKEN_NAMES)
    ready_setup("train", context, desk)
    ready = _make_ready(examined, context, desk)
    runs = [build_run(each, wish, context, before) for each in ready]
    require_writable(Path(runs[0].request["folder"]))
    if before is None:
        _require_free_names(runs, context)
    share = None if wish.max_cost is None else wish.max_cost // len(runs)
    reserved = [_reserved(run, share, context, desk, of=len(runs)) for run in runs]
    if context.target.name == "modal":
        for each in ready:
            send(each.placed, context, desk)
    if len(reserved) > 1:
        return run_sweep(reserved, wish.waiting, context, desk)
    (one,) = reserved
    done = submit(one.run, context, desk, TrainEnding(), waiting=wish.waiting, price=one.price)
    done = done if pair is None else pushed(done, pair, context, desk)
    return done if plan is None else _evaluated(done, plan, context, desk)


def resume(name: str, more: More, context: Context, desk: Desk) -> TrainReport:
    """Go on with a training that was stopped or failed, or is to have more steps; a run of its own, in the same folder.

    Raises `UsageError` for one that still runs, or has nothing left to do.
    """
    with telling(context, desk):
        old, context = find_run(name, context)
    run = build_more(old, more, context)
    _require_data(run, context)
    ready_setup("train", context, desk)
    one = _reserved(run, more.max_cost, context, desk)
    return submit(one.run, context, desk, TrainEnding(), waiting=more.waiting, price=one.price)


def _make_ready(examined: Examined, context: Context, desk: Desk) -> list[Ready]:
    """Raises what would keep a training from finding its models and its data."""
    hashes, ready = Hashes(desk), list[Ready]()
    for found in examined.runs:
        keys = require_model(found.looked, context, desk)
        if context.target.name == "modal":
            require_there(found.looked, context, desk)
        placed = place_files(found.looked, found.subject, context.project.target, hashes)
        ready.append(Ready(found, examined.source, placed, keys))
    return ready


def _evaluation(wish: TrainWish, context: Context, desk: Desk) -> EvalPlan | None:
    """The workflow to evaluate with, checked before anything is trained."""
    if wish.evaluation is None:
        return None
    if wish.waiting.is_detached:
        raise UsageError("--eval waits for the training, and --detach does not", hint="later: comfymodal runs eval RUN")
    from comfymodal.operations.train_eval import plan_eval

    return plan_eval(wish.evaluation, context, desk)


def _evaluated(done: TrainReport, plan: EvalPlan, context: Context, desk: Desk) -> TrainReport:
    """The training's report with its sheet; one that failed does not make the training a failure."""
    if done.exit_code not in (0, PartialError.exit_code):
        return done
    from comfymodal.operations.train_eval import evaluate

    try:
        sheet = evaluate(plan, context.ledger.get(done.run.id), context, desk)
    except CancelledError:
        raise
    except ComfymodalError as exc:
        error = {**exc.to_dict(), "message": f"{done.name} is trained, and was not evaluated: {exc.message}"}
        return replace(done, error=done.error or error, exit_code=PartialError.exit_code)
    is_whole = sheet.exit_code == 0
    return replace(
        done,
        sheet=sheet.sheet,
        error=done.error or sheet.error,
        exit_code=done.exit_code if is_whole else PartialError.exit_code,
    )


def _require_free_names(runs: Sequence[Run], context: Context) -> None:
    """Raises `ConflictError` where another model has the name: it would not be replaced, the training be in vain."""
    wanted = [job["publish"].get("name") or run.title for run in runs if (job := run.request["job"])["publish"]]
    taken = set(context.target.files("models", FOLDER)) if wanted else set()
    for name in wanted:
        path = f"{FOLDER}/{name}.safetensors"
        if path in taken:
            raise ConflictError(
                f"there is a {path} among the models already; nothing was started",
                hint=f"another name: --publish NAME; or move that one to the trash: comfymodal models rm {path}",
                path=path,
            )


def _require_data(run: Run, context: Context) -> None:
    """Raises `NotFoundError` where a dataset is no longer where the run found it."""
    for each in run.request["job"]["locations"]:
        where = each["from"]
        if not each.get("copies"):
            continue
        if "folder" in where:
            path, is_there = where["folder"], Path(where["folder"]).exists()
        else:
            role, below = str(where["role"]), str(where["path"])
            path, is_there = f"{role}:/{below}", bool(context.target.files(role, below))
        if not is_there:
            hint = f"train with the config and its pictures: comfymodal train CONFIG --resume {run.again_of}"
            raise NotFoundError(f"the dataset {path} is gone; nothing was started", hint=hint, path=path)


def _require_one(examined: Examined, wish: TrainWish) -> None:
    flags = {"--resume": wish.resume, "--publish": wish.publish, "--push": wish.push, "--eval": wish.evaluation}
    for flag, value in flags.items():
        if len(examined.runs) > 1 and value:
            raise UsageError(f"{flag} goes with one run, and this is a sweep of {len(examined.runs)}")


def _warn(examined: Examined, desk: Desk) -> None:
    for problem in examined.checked.problems:
        if problem.severity == "warning":
            desk.warn(": ".join(word for word in (problem.key, problem.message) if word))


def _before(wish: TrainWish, context: Context) -> Run | None:
    if wish.resume is None:
        return None
    before, _ = find_run(wish.resume, context)
    require_training(before)
    return before


def _reserved(run: Run, max_cost: int | None, context: Context, desk: Desk, *, of: int = 1) -> Reserved:
    run, price = price_train(run, context, desk, max_cost=max_cost, of=of)
    if price is None:
        return Reserved(run, None)
    desk.event(price.event(context.modal_spec()))
    return Reserved(run, price)
