"""`comfymodal setup`."""

from __future__ import annotations

from pathlib import Path

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonEventsOption,
    JsonOption,
    QuietOption,
    TargetOption,
    open_context,
    open_desk,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def setup(
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the volumes and secrets that a project needs on Modal.

    What is there is kept as it is. Secrets are made from the environment or from `.env` beside the project file, by
    the names of their keys. Ends with 4 when one that the project needs (comfyui.secrets) is not there.
    """
    from comfymodal.operations.setup import set_up
    from comfymodal.output.show import show

    folder = config.parent if config else Path.cwd()
    context = open_context(config, target=target)
    with open_desk(as_json=as_json, as_events=as_events, quiet=quiet) as desk:
        done = set_up(folder, context, desk, is_dry_run=dry_run)
        show(done, desk, command=["setup"])
    raise typer.Exit(done.exit_code)
