"""`comfymodal runs eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    GpuOption,
    JsonEventsOption,
    JsonOption,
    MaxCostOption,
    QuietOption,
    SetOption,
    TargetOption,
    YesOption,
    open_context,
    open_desk,
    parse_max_cost,
)

EvalStrengthsOption = Annotated[
    str | None,
    typer.Option("--eval-strengths", metavar="A,B", help="Strengths of the LoRA to render with [default: 0.6,0.8,1]."),
]
EvalLoraOption = Annotated[
    str | None,
    typer.Option("--eval-lora", metavar="NODE", help="Node that loads the trained LoRA, where there are several."),
]
EvalPromptOption = Annotated[
    str | None,
    typer.Option("--eval-prompt", metavar="NODE.INPUT", help="Where the prompts go, where that is not plain."),
]


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Training, by id or the beginning of one, or 'last'.")],
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="Workflow in API format that loads a LoRA.")],
    strengths: EvalStrengthsOption = None,
    lora: EvalLoraOption = None,
    prompt: EvalPromptOption = None,
    set_: SetOption = None,
    gpu: GpuOption = None,
    max_cost: MaxCostOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Render a workflow with each checkpoint of a training, each sample prompt and strength, as one labelled sheet."""
    from comfymodal.operations.train_eval import EvalWish, evaluate_run, parse_strengths
    from comfymodal.output.show import show

    wish = EvalWish(
        workflow=workflow,
        strengths=parse_strengths(strengths),
        lora=lora,
        prompt=prompt,
        overrides=tuple(set_ or ()),
        gpu=gpu,
        max_cost=parse_max_cost(max_cost),
    )
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        report = evaluate_run(run, wish, open_context(config, target=target), desk)
        show(report, desk, command=["runs", "eval"])
    raise typer.Exit(report.exit_code)
