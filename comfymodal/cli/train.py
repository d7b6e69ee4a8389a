"""`comfymodal train`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonEventsOption,
    JsonOption,
    MaxCostOption,
    NoDownloadOption,
    OutOption,
    QuietOption,
    TagOption,
    TargetOption,
    WaitOption,
    YesOption,
    open_context,
    open_desk,
    parse_max_cost,
    parse_wait,
)
from comfymodal.cli.runs_eval import EvalLoraOption, EvalPromptOption, EvalStrengthsOption

if TYPE_CHECKING:
    from comfymodal.operations.context import Context
    from comfymodal.operations.train_eval import EvalWish
    from comfymodal.operations.train_results import SweepReport
    from comfymodal.output.desk import TerminalDesk

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def train(
    train_config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Training config of ai-toolkit, or our short form (YAML or JSON).")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Say all that is wrong, and what it needs; starts and asks nothing.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a corrected copy beside it, NAME.fixed.yaml; asks to replace one.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="PLACE=VALUE", help="Change a value, e.g. train.lr=1e-4; repeatable."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="PLACE=A,B", help="A run for each value, e.g. train.lr=1e-4,4e-4; repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the LoRA, whatever the config says.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps to train.", show_default=False)] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="GPU", help="Modal GPU, e.g. L40S, A100-80GB [default: the config's]."),
    ] = None,
    full_finetune: Annotated[
        bool, typer.Option("--full-finetune", help="A config without a network is meant: train the whole model.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on from that run's newest checkpoint.")
    ] = None,
    publish: Annotated[
        str | None,
        typer.Option("--publish", metavar="NAME", help="Its name under loras/ of the models [default: the LoRA's]."),
    ] = None,
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Leave it on the training volume; do not put it among the models.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="NAME", help="When done, push it to a bucket by this sync pair from models:/."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", metavar="WORKFLOW", help="When done, render it with each checkpoint, as one sheet."),
    ] = None,
    strengths: EvalStrengthsOption = None,
    lora: EvalLoraOption = None,
    prompt: EvalPromptOption = None,
    out: OutOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, print the run id, do not wait.")] = False,
    wait: WaitOption = None,
    no_download: NoDownloadOption = False,
    max_cost: MaxCostOption = None,
    tag: TagOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a LoRA with ai-toolkit, and put it among the models. The first Ctrl-C saves, then stops.

    Everything that can be known is checked before a GPU is paid for: --check does only that and needs no account,
    --dry-run also shows what a run changes in the config, and on Modal what it costs. Ends with 3 when something is
    wrong with the config or the pictures; warnings are no problems.
    """
    if fix and check:
        raise typer.BadParameter("--check and --fix are two questions: leave one out")
    if publish and no_publish:
        raise typer.BadParameter("--publish and --no-publish are opposites: leave one out")

    from comfymodal.operations.train_check import TrainRequest, check_training, fix_training
    from comfymodal.operations.train_datasets import read_places
    from comfymodal.output.show import show

    request = TrainRequest(
        config=train_config,
        cwd=Path.cwd(),
        environ=os.environ,
        set_=tuple(set_ or ()),
        sweep=tuple(sweep or ()),
        name=name,
        steps=steps,
        gpu=gpu,
        allows_full_finetune=full_finetune,
        is_dry_run=dry_run,
        is_check=check,
    )
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        if fix:
            fixed = fix_training(request, desk)
            show(fixed, desk, command=["train"])
            raise typer.Exit(fixed.exit_code)
        if check or dry_run:
            places = read_places(config, environ=os.environ, cwd=Path.cwd(), flags={"target": target})
            checked = check_training(request, places, desk)
            show(checked, desk, command=["train"])
            raise typer.Exit(checked.exit_code)

        from comfymodal.operations.train import train as train_now
        from comfymodal.operations.train_jobs import TrainWish
        from comfymodal.operations.train_results import SweepReport
        from comfymodal.operations.waiting import Waiting

        waiting = Waiting(wait_s=parse_wait(wait), is_detached=detach, is_download=not no_download)
        wish = TrainWish(
            is_published=not no_publish,
            publish=publish,
            resume=resume,
            max_cost=parse_max_cost(max_cost),
            out=out,
            push=push,
            evaluation=_evaluation(evaluation, strengths, lora, prompt),
            waiting=waiting,
        )
        context = open_context(config, target=target, costs__tag=tag)
        done = train_now(request, wish, context, desk)
        if isinstance(done, SweepReport) and not detach:
            done = _with_page(done, context, desk)
        show(done, desk, command=["train"])
    raise typer.Exit(done.exit_code)


def _evaluation(workflow: Path | None, strengths: str | None, lora: str | None, prompt: str | None) -> EvalWish | None:
    if workflow is None:
        if strengths or lora or prompt:
            raise typer.BadParameter("--eval-strengths, --eval-lora and --eval-prompt go with --eval")
        return None
    from comfymodal.operations.train_eval import EvalWish, parse_strengths

    return EvalWish(workflow=workflow, strengths=parse_strengths(strengths), lora=lora, prompt=prompt)


def _with_page(done: SweepReport, context: Context, desk: TerminalDesk) -> SweepReport:
    """The variants side by side; what they trained is there whether or not the page can be made."""
    from comfymodal.errors import ComfymodalError
    from comfymodal.operations.train_report import report_training, write_report
    from comfymodal.output.train_page import page

    try:
        told = report_training([each.run.id for each in done.runs], None, context, desk)
        return replace(done, page=write_report(told, page(told)).page)
    except ComfymodalError as exc:
        desk.warn(f"the page that compares them could not be made: {exc.message}")
        return done
