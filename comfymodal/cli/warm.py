"""`comfymodal warm`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, DryRunOption, JsonOption, YesOption, open_context, open_desk

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def warm(
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long: 30m, 2h, at most 24h.")
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", metavar="GPU", help="Of another GPU than the deployed.")] = None,
    is_off: Annotated[bool, typer.Option("--off", help="End it now.")] = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep one container up, so that renders start at once; it ends by itself, even with this machine switched off.

    Says first what it costs. A second one replaces the first.
    """
    from comfymodal.operations.warm import end_warm, keep_warm
    from comfymodal.output.show import show

    if is_off == (for_ is not None):
        raise typer.BadParameter("say how long, e.g. --for 30m, or --off", param_hint="--for")
    with open_desk(as_json=as_json, yes=yes) as desk:
        context = open_context(config)
        if for_ is None:
            show(end_warm(context, is_dry_run=dry_run), desk, command=["warm"])
            return
        kept = keep_warm(context, desk, for_s=parse_length(for_, "--for"), gpu=gpu, is_dry_run=dry_run)
        show(kept, desk, command=["warm"])


def parse_length(text: str, flag: str) -> float:
    """Seconds in `90s`, `30m`, `2h`. Raises `typer.BadParameter`."""
    from comfymodal.project.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} {exc}", param_hint=flag) from exc
