"""`comfymodal sync`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonEventsOption,
    JsonOption,
    QuietOption,
    TagOption,
    TargetOption,
    VerboseOption,
    WaitOption,
    YesOption,
    open_context,
    open_desk,
    parse_wait,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SIDES = ("here", "there", "both")
_BANDWIDTH = r"(?i)(off|\d+(\.\d+)?[bkmgt]?)(:(off|\d+(\.\d+)?[bkmgt]?))?"


@app.command()
def sync(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME ... | FROM TO]", help="Pairs of the project, or two places.", show_default=False),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say whether the places are in step.")] = False,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Only these files, whatever the pair includes; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Not these files either; repeatable.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Carry deletions over, into the trash; shows them and asks.")
    ] = False,
    prefer: Annotated[
        str | None,
        typer.Option("--prefer", metavar="here|there|both", help="Whose file counts where both changed."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file here again and compare hashes.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="An empty place is meant; otherwise it is an error.")
    ] = False,
    bwlimit: Annotated[
        str | None, typer.Option("--bwlimit", metavar="RATE", help="Bytes per second at most, e.g. 10M (or up:down).")
    ] = None,
    transfers: Annotated[
        int | None, typer.Option("--transfers", min=1, max=128, help="Files at a time.", show_default=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it, print the run id, do not wait.")] = False,
    wait: WaitOption = None,
    tag: TagOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring places up to date: buckets, volumes, folders. Without names, all one-way pairs of the project.

    FROM and TO are REMOTE:folder, VOLUME:/folder (models, inputs, outputs, datasets, training, cache) or a folder here.
    Nothing is ever deleted without --delete, and nothing overwritten that changed on both sides. Ends with 6 when
    something was left undone (a conflict, a file that failed), and with --status when the places are not in step.
    """
    _require_sense(prefer, bwlimit, only_looks=dry_run or status, is_both=dry_run and status, detach=detach)

    from comfymodal.operations.sync import SyncRequest
    from comfymodal.operations.sync import sync as sync_pairs
    from comfymodal.operations.sync_jobs import Wish
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import show

    wish = Wish(
        mode="status" if status else "plan" if dry_run else "run",
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        delete=delete,
        prefer=prefer,
        allow_empty=allow_empty,
        is_verify=verify,
        bwlimit=bwlimit,
        transfers=transfers,
    )
    request = SyncRequest(
        words=tuple(words or ()),
        wish=wish,
        cwd=Path.cwd(),
        may_force=not yes,
        waiting=Waiting(wait_s=parse_wait(wait), is_detached=detach),
    )
    context = open_context(config, target=target, costs__tag=tag)
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        report = sync_pairs(request, context, desk)
        show(report, desk, command=["sync"], is_verbose=verbose)
    raise typer.Exit(report.exit_code)


def _require_sense(prefer: str | None, bwlimit: str | None, *, only_looks: bool, is_both: bool, detach: bool) -> None:
    if prefer is not None and prefer not in _SIDES:
        raise typer.BadParameter(f"{prefer!r} is not one of {', '.join(_SIDES)}", param_hint="--prefer")
    if bwlimit is not None and re.fullmatch(_BANDWIDTH, bwlimit) is None:
        raise typer.BadParameter(f"{bwlimit!r} is no rate: write 10M, 512k or 10M:2M", param_hint="--bwlimit")
    if is_both:
        raise typer.BadParameter("--status and --dry-run are two questions: leave one out")
    if only_looks and detach:
        raise typer.BadParameter("--detach waits for no answer, and there is nothing else to get")
