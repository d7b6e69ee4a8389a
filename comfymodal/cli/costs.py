"""`comfymodal costs ...`."""

from __future__ import annotations

import typer

from comfymodal.cli.costs_estimate import app as estimate_app

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Know what it costs: before, while and after.",
)

app.add_typer(estimate_app, name="estimate")


@app.callback()
def costs() -> None:
    """Know what it costs: before, while and after."""
