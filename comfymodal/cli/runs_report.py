"""`comfymodal runs report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, QuietOption, TargetOption, open_context, open_desk


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Trainings, by id or the beginning of one, or 'last'.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write the page here [default: the run's folder]."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one HTML page of a training, or of several side by side: losses, samples, checkpoints, cost, config."""
    from comfymodal.operations.train_report import report_training, write_report
    from comfymodal.output.show import open_page, show
    from comfymodal.output.train_page import page

    with open_desk(as_json=as_json, quiet=quiet) as desk:
        told = report_training(runs, out, open_context(config, target=target), desk)
        written = write_report(told, page(told))
        show(written, desk, command=["runs", "report"])
    if open_:
        open_page(written.page)
