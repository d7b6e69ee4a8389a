"""`comfymodal doctor`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    JsonEventsOption,
    JsonOption,
    QuietOption,
    TargetOption,
    YesOption,
    open_desk,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def doctor(
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Prove in a container (CPU, below $0.05) what only an account can tell; send test messages."
        ),
    ] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look at everything a render and a sync need, and say what to do about what is wrong.

    Ends with 0 when nothing failed, else with 4 (something to set up) or 5 (worth trying again).
    """
    from comfymodal.operations.doctor import doctor as look
    from comfymodal.operations.doctor import open_patient
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        patient = open_patient(config, environ=os.environ, cwd=Path.cwd(), target=target)
        report = look(patient, desk, is_live=live)
        show(report, desk, command=["doctor"])
    raise typer.Exit(report.exit_code)
