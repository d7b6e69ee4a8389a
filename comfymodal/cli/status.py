"""`comfymodal status`."""

from __future__ import annotations

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, open_context, open_desk

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what is deployed on Modal, what lives there and why, what it costs, and what ends it."""
    from comfymodal.operations.status import fleet_status
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(fleet_status(open_context(config)), desk, command=["status"])
