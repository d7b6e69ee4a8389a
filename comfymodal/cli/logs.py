"""`comfymodal logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, open_context, open_desk
from comfymodal.cli.warm import parse_length

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def logs(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", show_default=False, help="Run id, the beginning of one, or 'last'; without it the app's."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until the run ends.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Of the last 30m, 2h, 1d.")] = None,
    grep: Annotated[str | None, typer.Option("--grep", metavar="TEXT", help="Only lines with this text.")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=20000, help="How many of the last lines.")] = 1000,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what ComfyUI and Modal said: of one run, or of the whole app.

    A run's log is found after Modal has dropped it: each run keeps its own.
    """
    from comfymodal.operations.logs import LogRequest, open_log
    from comfymodal.output.fleet_tables import log_text
    from comfymodal.output.show import show, show_stream

    if follow and as_json:
        raise typer.BadParameter("does not go with --json", param_hint="--follow")
    request = LogRequest(run, None if since is None else parse_length(since, "--since"), grep, lines)
    with open_desk(as_json=as_json) as desk:
        log = open_log(request, open_context(config), desk)
        show(log.shown, desk, command=["logs"])
        if follow:
            show_stream(log_text(line) for line in log.follow())
