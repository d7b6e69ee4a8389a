"""`comfymodal trash ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    TargetOption,
    YesOption,
    open_context,
    open_desk,
)

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List, restore and empty what syncs and `models rm` put away.",
)

VolumeOption = Annotated[
    str | None,
    typer.Option("--volume", metavar="ROLE", help="models, inputs, outputs, datasets or training [default: models]."),
]
RemoteOption = Annotated[
    str | None, typer.Option("--remote", metavar="NAME", help="The trash in a remote: NAME or NAME:folder.")
]
OlderOption = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="Only what was put away before: 30d, 12h.")
]


@app.command("list")
def list_(
    volume: VolumeOption = None,
    remote: RemoteOption = None,
    older_than: OlderOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what is in the trash, the oldest first."""
    from comfymodal.operations.trash import Where, list_trash
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        context = open_context(config, target=target)
        listed = list_trash(Where(volume, remote), context, desk, older_than_s=_seconds(older_than))
        show(listed, desk, command=["trash", "list"])


@app.command()
def restore(
    names: Annotated[
        list[str],
        typer.Argument(metavar="PATH|STAMP...", help="A file's path, or a stamp for all of it.", show_default=False),
    ],
    volume: VolumeOption = None,
    remote: RemoteOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put files back where they were, unless something has their place by now."""
    from comfymodal.operations.trash import Where
    from comfymodal.operations.trash import restore as restore_files
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        context = open_context(config, target=target)
        done = restore_files(names, Where(volume, remote), context, desk, is_dry_run=dry_run)
        show(done, desk, command=["trash", "restore"])
    raise typer.Exit(done.exit_code)


@app.command()
def empty(
    volume: VolumeOption = None,
    remote: RemoteOption = None,
    older_than: OlderOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete for good what is in the trash; asks first."""
    from comfymodal.operations.trash import Where
    from comfymodal.operations.trash import empty as empty_trash
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, yes=yes) as desk:
        context, seconds = open_context(config, target=target), _seconds(older_than)
        done = empty_trash(Where(volume, remote), context, desk, older_than_s=seconds, is_dry_run=dry_run)
        show(done, desk, command=["trash", "empty"])
    raise typer.Exit(done.exit_code)


def _seconds(text: str | None) -> float | None:
    from comfymodal.project.durations import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} {exc}", param_hint="--older-than") from exc
