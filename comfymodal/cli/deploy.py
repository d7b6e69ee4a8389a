"""`comfymodal deploy`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonEventsOption,
    JsonOption,
    QuietOption,
    TargetOption,
    YesOption,
    open_context,
    open_desk,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def deploy(
    force: Annotated[bool, typer.Option("--force", help="Deploy also when nothing changed.")] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Publish the project's render containers on Modal."""
    from comfymodal.operations.deploy import deploy as deploy_project
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        context = open_context(config, target=target)
        show(deploy_project(context, desk, is_dry_run=dry_run, is_forced=force), desk, command=["deploy"])
