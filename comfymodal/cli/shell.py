"""`comfymodal shell`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, DryRunOption, JsonOption, open_context, open_desk

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def shell(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", show_default=False, help="In the container of this run, or 'last'."),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Open a shell in a container that lives, or else in a small one beside the project's volumes.

    Says first what it costs and how it ends. With --dry-run it prints the command.
    """
    from comfymodal.operations.shell import plan_shell
    from comfymodal.output.fleet_tables import shell_lines
    from comfymodal.output.screen import write_stderr
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        plan = plan_shell(run, open_context(config))
        if dry_run or as_json:
            show(plan, desk, command=["shell"])
            return
    for line in shell_lines(plan):
        write_stderr(line)
    sys.stdout.flush()
    # Signals, the terminal and the exit code are the shell's own from here on.
    os.execvpe(plan.argv[0], plan.argv, os.environ)
