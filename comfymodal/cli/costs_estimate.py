"""`comfymodal costs estimate ...`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, SetOption, TargetOption, open_context, open_desk

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="What a render, a training or a sync may cost; starts nothing, asks nobody.",
)

GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", metavar="A,B,C", help="Compare these GPUs of Modal's, e.g. L40S,A100-80GB,H100."),
]


@app.command()
def render(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="Workflow in API format (JSON).")],
    set_: SetOption = None,
    items: Annotated[int, typer.Option("--n", metavar="N", min=1, help="How often, one after the other.")] = 1,
    gpus: GpusOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a workflow may cost, by the project's own earlier runs of it."""
    from comfymodal.operations.costs_estimate import RenderWish, estimate_render
    from comfymodal.output.show import show

    wish = RenderWish(workflow, tuple(set_ or ()), items, _names(gpus))
    with open_desk(as_json=as_json) as desk:
        told = estimate_render(wish, open_context(config, target=target), desk)
        show(told, desk, command=["costs", "estimate", "render"])


@app.command()
def train(
    train_config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Training config of ai-toolkit, or our short form (YAML or JSON).")
    ],
    gpus: GpusOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a training, or all of its sweep, may cost: by earlier ones with the same settings, else by arithmetic."""
    from comfymodal.operations.costs_estimate_others import estimate_training
    from comfymodal.operations.train_check import TrainRequest
    from comfymodal.output.show import show

    request = TrainRequest(config=train_config, cwd=Path.cwd(), environ=os.environ)
    with open_desk(as_json=as_json) as desk:
        told = estimate_training(request, _names(gpus), open_context(config, target=target), desk)
        show(told, desk, command=["costs", "estimate", "train"])


@app.command()
def sync(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PAIR]...", help="Sync pairs [default: every one-way pair].")
    ] = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a sync's container may cost, by earlier syncs of the same pair."""
    from comfymodal.operations.costs_estimate_others import estimate_syncs
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        told = estimate_syncs(tuple(names or ()), open_context(config, target=target), desk)
        show(told, desk, command=["costs", "estimate", "sync"])


def _names(text: str | None) -> tuple[str, ...]:
    """Raises `typer.BadParameter` for a list without a name."""
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise typer.BadParameter("name GPUs, e.g. L40S,H100", param_hint="--gpus")
    return names
