"""`comfymodal stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, DryRunOption, JsonOption, YesOption, open_context, open_desk

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def stop(
    is_all: Annotated[bool, typer.Option("--all", help="Every app of comfymodal in the environment.")] = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """End everything of this project on Modal; after it surely nothing bills.

    What runs is asked to stop and has 15 s to keep what is finished. The image stays, so the next render deploys again
    without building.
    """
    from comfymodal.operations.stop import stop_fleet
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        stopped = stop_fleet(open_context(config), desk, is_all=is_all, is_dry_run=dry_run)
        show(stopped, desk, command=["stop"])
