"""`comfymodal engine ...`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonEventsOption,
    JsonOption,
    QuietOption,
    YesOption,
    open_context,
    open_desk,
)

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Install, start, watch, stop and remove ComfyUI on this machine.",
)


class Source(StrEnum):
    """Where an engine comes from."""

    package = "package"
    git = "git"


@app.command()
def install(
    version: Annotated[
        str | None, typer.Option("--version", metavar="X", help="Version [default: 0.3.75; with git the newest].")
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option("--source", help="package: the embedded one. git: the official repository [default: package]."),
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option("--from", metavar="REPOSITORY", help="With git: a mirror's address, or a local repository."),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Install a ComfyUI beside those there are.

    A killed install is gone on with. Nothing outside of comfymodal's own folder changes.
    """
    from comfymodal.operations.engine_install import InstallRequest, install_engine, plan_engine
    from comfymodal.output.show import show

    request = InstallRequest(version, source.value if source else None, repository)
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        do = plan_engine if dry_run else install_engine
        show(do(request, open_context(config), desk), desk, command=["engine", "install"])


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what is installed, runs, and is used."""
    from comfymodal.operations.engine import engine_status
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(engine_status(open_context(config)), desk, command=["engine", "status"])


@app.command()
def start(
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start this project's engine before a render."""
    from comfymodal.operations.engine import start_engine
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        show(start_engine(open_context(config), desk), desk, command=["engine", "start"])


@app.command()
def stop(
    is_all: Annotated[bool, typer.Option("--all", help="Every engine that was started here, of any project.")] = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop this project's engine; asks before it ends a prompt."""
    from comfymodal.operations.engine import stop_engines
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        stopped = stop_engines(open_context(config), desk, is_all=is_all, is_dry_run=dry_run)
        show(stopped, desk, command=["engine", "stop"])


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written, until it ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", min=1, help="How many of the last lines.")] = 100,
    previous: Annotated[bool, typer.Option("--previous", help="Of the start before the last one.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the engine's log, also of a failed start."""
    from comfymodal.operations.engine import engine_log, follow_log
    from comfymodal.output.show import show, show_stream

    if follow and (as_json or previous):
        raise typer.BadParameter("goes with neither --json nor --previous", param_hint="--follow")
    with open_desk(as_json=as_json) as desk:
        log = engine_log(open_context(config), desk, count=lines, is_previous=previous)
        show(log, desk, command=["engine", "logs"])
        if follow:
            show_stream(follow_log(log))


@app.command()
def remove(
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", show_default=False, help="Which one.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every engine, and what interrupted installs left.")] = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete an installed engine that is not running."""
    from comfymodal.operations.engine_install import remove_engines
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        removed = remove_engines(version, open_context(config), desk, is_all=is_all, is_dry_run=dry_run)
        show(removed, desk, command=["engine", "remove"])
