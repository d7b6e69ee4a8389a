"""`comfymodal config ...`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, open_desk

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Show, validate and describe the project file.",
)


@app.command("show")
def show_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting, its value and where it comes from."""
    from comfymodal.operations.config import show_config
    from comfymodal.output.show import show
    from comfymodal.project.load import find_project_file, load_project

    cwd = Path.cwd()
    with open_desk(as_json=as_json) as desk:
        loaded = load_project(find_project_file(config, cwd=cwd), environ=os.environ, cwd=cwd)
        show(show_config(loaded), desk, command=["config", "show"])


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="Project file [default: ./comfymodal.yaml].")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the project file and report every mistake with its place."""
    from comfymodal.operations.config import validate_config
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(validate_config(file or config, environ=os.environ, cwd=Path.cwd()), desk, command=["config", "validate"])


@app.command()
def schema() -> None:
    """Print the JSON Schema of the project file, for editors."""
    from comfymodal.operations.config import config_schema
    from comfymodal.output.show import show_document

    show_document(config_schema())
