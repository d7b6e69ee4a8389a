"""`comfymodal models ...`."""

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

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List, look into, add, move and remove models.",
)

FolderArgument = Annotated[
    str | None, typer.Argument(metavar="[FOLDER]", help="One of ComfyUI's model folders, e.g. loras or loras/people.")
]
FILE = "Path on the volume, or a name that only one model has."


@app.command("list")
def list_(
    folder: FolderArgument = None, target: TargetOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List models with their sizes, by ComfyUI's folders."""
    from comfymodal.operations.models import list_models
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(list_models(folder, open_context(config, target=target)), desk, command=["models", "list"])


@app.command()
def tree(
    folder: FolderArgument = None, target: TargetOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show models as a tree of folders."""
    from comfymodal.operations.models import show_tree
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(show_tree(folder, open_context(config, target=target)), desk, command=["models", "tree"])


@app.command()
def du(
    is_unused: Annotated[bool, typer.Option("--unused", help="Only models that no render has named.")] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What takes room on the models volume: folders, half-written files, the trash."""
    from comfymodal.operations.models import disk_use, unused_models
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        context = open_context(config, target=target)
        used = unused_models(context, desk) if is_unused else disk_use(context)
        show(used, desk, command=["models", "du"])


@app.command()
def info(
    file: Annotated[str, typer.Argument(metavar="FILE", help=FILE, show_default=False)],
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model file says of itself: base model, rank, trigger words, steps. Reads its header only."""
    from comfymodal.operations.models import model_info
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(model_info(file, open_context(config, target=target)), desk, command=["models", "info"])


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="URL, hf:owner/repo/file[@revision], civitai:VERSION_ID[/FILE] or REMOTE:path.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FOLDER[/NAME]", help="Where it belongs [default: deduced where it can be]."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What its hash must be, else it is not kept.")
    ] = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a model straight into the volume, checked; the same command goes on with one that was cut.

    Tokens: HF_TOKEN and CIVITAI_TOKEN, on Modal in the secrets hf-credentials and civitai-credentials.
    """
    from comfymodal.operations.models_add import AddRequest, add_model
    from comfymodal.operations.sync_results import ErrandReport
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        request = AddRequest(source, to, sha256, is_dry_run=dry_run)
        added = add_model(request, open_context(config, target=target), desk)
        show(added, desk, command=["models", "add"])
    raise typer.Exit(added.exit_code if isinstance(added, ErrandReport) else 0)


@app.command()
def rm(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=FILE, show_default=False)],
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Move models to the volume's trash; `trash restore` brings them back."""
    from comfymodal.operations.models import remove_models
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        removed = remove_models(files, open_context(config, target=target), desk, is_dry_run=dry_run)
        show(removed, desk, command=["models", "rm"])
    raise typer.Exit(removed.exit_code)


@app.command()
def mv(
    file: Annotated[str, typer.Argument(metavar="OLD", help=FILE, show_default=False)],
    to: Annotated[str, typer.Argument(metavar="NEW", help="FOLDER, or FOLDER/NAME.", show_default=False)],
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a model another name or folder. Workflows that name it keep its old name."""
    from comfymodal.operations.models import move_model
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        moved = move_model(file, to, open_context(config, target=target), desk, is_dry_run=dry_run)
        show(moved, desk, command=["models", "mv"])
    raise typer.Exit(moved.exit_code)
