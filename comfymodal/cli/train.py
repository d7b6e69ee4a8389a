"""`comfymodal train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    QuietOption,
    TargetOption,
    YesOption,
    open_desk,
)

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
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check the training of a LoRA before anything is paid for: config, pictures, GPU, disk, time.

    --check needs no account; --dry-run also shows what a run changes in the config, and on Modal what it costs.
    Ends with 3 when there are problems; warnings are none.
    """
    from comfymodal.errors import NotReadyError

    if fix and check:
        raise typer.BadParameter("--check and --fix are two questions: leave one out")
    if not (check or dry_run or fix):
        hint = f"comfymodal train {train_config} --check"
        raise NotReadyError("training itself is not in this version; --check, --dry-run and --fix work", hint=hint)

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
    )
    with open_desk(as_json=as_json, yes=yes, quiet=quiet) as desk:
        if fix:
            fixed = fix_training(request, desk)
            show(fixed, desk, command=["train"])
            raise typer.Exit(fixed.exit_code)
        places = read_places(config, environ=os.environ, cwd=Path.cwd(), flags={"target": target})
        checked = check_training(request, places, desk)
        show(checked, desk, command=["train"])
    raise typer.Exit(checked.exit_code)
