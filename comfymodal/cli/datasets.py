"""`comfymodal datasets ...`."""

from __future__ import annotations

import os
from pathlib import Path
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

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Check folders of pictures and captions, send them to the volume, list those that are there.",
)


@app.command()
def check(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Pictures and captions; volume:/NAME is one of the datasets volume.")
    ],
    train_config: Annotated[
        Path | None,
        typer.Option("--for", metavar="CONFIG", help="Training config whose settings count for this folder."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Without --for: what is trained [default: flux].")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", metavar="WORD", help="Without --for: the word captions should have.")
    ] = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Open every picture and caption as the trainer will: what it would drop, crop, or learn wrongly.

    Ends with 3 when there are problems; warnings are none.
    """
    from comfymodal.operations.datasets import DatasetRequest, check_folder
    from comfymodal.operations.train_datasets import read_places
    from comfymodal.output.show import show

    request = DatasetRequest(folder, Path.cwd(), train_config, model, trigger, os.environ)
    with open_desk(as_json=as_json, quiet=quiet) as desk:
        places = read_places(config, environ=os.environ, cwd=Path.cwd(), flags={"target": target})
        checked = check_folder(request, places, desk)
        show(checked, desk, command=["datasets", "check"])
    raise typer.Exit(checked.exit_code)


@app.command()
def push(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Pictures and captions on this machine.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Its folder on the datasets volume [default: FOLDER's name].")
    ] = None,
    train_config: Annotated[
        Path | None,
        typer.Option("--for", metavar="CONFIG", help="Training config whose settings count for the check."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Without --for: what is trained [default: flux].")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", metavar="WORD", help="Without --for: the word captions should have.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Move to the trash there what is no longer in FOLDER; asks.")
    ] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a folder, then send what is new of it to the datasets volume; configs name it as volume:/NAME.

    FOLDER wins over what is there; what it replaces goes to the volume's trash. Hidden files and caches of trainers are
    not sent. Ends with 3 when there are problems: nothing is sent then.
    """
    from comfymodal.operations.datasets import DatasetRequest
    from comfymodal.operations.datasets_push import PushRequest, push_dataset
    from comfymodal.operations.train_datasets import read_places
    from comfymodal.output.show import show

    checked = DatasetRequest(folder, Path.cwd(), train_config, model, trigger, os.environ)
    request = PushRequest(checked, name, delete=delete, is_dry_run=dry_run, may_force=not yes)
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        places = read_places(config, environ=os.environ, cwd=Path.cwd(), flags={"target": target})
        pushed = push_dataset(request, places, open_context(config, target=target), desk)
        show(pushed, desk, command=["datasets", "push"])
    raise typer.Exit(pushed.exit_code)


@app.command("list")
def list_(target: TargetOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the datasets on the datasets volume: pictures, captions, sizes."""
    from comfymodal.operations.datasets import list_datasets
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(list_datasets(open_context(config, target=target)), desk, command=["datasets", "list"])
