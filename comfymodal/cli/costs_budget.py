"""`comfymodal costs budget`."""

from __future__ import annotations

from pathlib import Path

from comfymodal.cli.options import ConfigOption, JsonOption, open_desk


def budget(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What is left of the project's budgets; exit code 7 when one is used up."""
    import os

    import typer

    from comfymodal.operations.books import open_books
    from comfymodal.operations.budgets import show_budgets
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        report = show_budgets(open_books(config, environ=os.environ, cwd=Path.cwd()))
        show(report, desk, command=["costs", "budget"])
    raise typer.Exit(report.exit_code)
