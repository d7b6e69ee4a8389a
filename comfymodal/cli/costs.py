"""`comfymodal costs ...`."""

from __future__ import annotations

import typer

from comfymodal.cli.costs_compare import compare

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="What runs cost: before, while, after.",
)


@app.callback()
def costs() -> None:
    # With a single command Typer would make it the group itself.
    pass


app.command("compare")(compare)
