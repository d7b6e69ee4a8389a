"""`comfymodal costs ...`."""

from __future__ import annotations

import typer

from comfymodal.cli.costs_compare import compare
from comfymodal.cli.costs_rates import rates

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="What runs cost: before, while, after.",
)


@app.callback()
def costs() -> None:
    """What runs cost: before, while, after."""


app.command("rates")(rates)
app.command("compare")(compare)
