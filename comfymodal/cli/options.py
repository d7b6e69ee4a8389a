"""Options with one meaning everywhere, and what most commands begin with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from comfymodal.operations.anticipate import EarlyWorker
    from comfymodal.operations.context import Context
    from comfymodal.output.desk import TerminalDesk

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", metavar="FILE", envvar="COMFYMODAL_CONFIG", help="Project file [default: ./comfymodal.yaml]."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
JsonEventsOption = Annotated[
    bool, typer.Option("--json-events", help="Print progress and the result as JSON, an event a line.")
]
YesOption = Annotated[bool, typer.Option("-y", "--yes", help="Answer yes to every question.")]
DryRunOption = Annotated[bool, typer.Option("-n", "--dry-run", help="Check everything, change nothing.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, only the result.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Also what there is nothing to say about.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="NODE.INPUT=VALUE",
        help="Change an input; NODE is an id, a title or a class. :=JSON, =@FILE, =random.",
    ),
]
ComfyUrlOption = Annotated[
    str | None, typer.Option("--comfy-url", metavar="URL", help="Use this running ComfyUI server.")
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="TARGET", help="Where it runs: local or modal [default: the project's]."),
]
GpuOption = Annotated[
    str | None, typer.Option("--gpu", metavar="GPU", help="Modal GPU for this run, e.g. L40S, A100-80GB, H100:2.")
]
MaxCostOption = Annotated[
    str | None, typer.Option("--max-cost", metavar="USD", help="Spend at most this on the run, e.g. 0.50.")
]
TagOption = Annotated[
    str | None, typer.Option("--tag", metavar="TAG", help="Tag of the run in `costs`, and whose budgets hold.")
]
NoDownloadOption = Annotated[
    bool, typer.Option("--no-download", help="Leave the outputs on the volume; `runs fetch` brings them.")
]
OutOption = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write outputs here, not into a folder per run.")
]
WaitOption = Annotated[
    str | None,
    typer.Option("--wait", metavar="DURATION", help="Wait at most this long (90s, 5m), then exit with 8."),
]


def parse_wait(text: str | None) -> float | None:
    """Seconds in `90s`, `5m`, `2h`; a bare number is seconds. Raises `typer.BadParameter`."""
    from comfymodal.project.durations import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} {exc}", param_hint="--wait") from exc


def parse_max_cost(text: str | None) -> int | None:
    """Nanodollars in `0.50` or `$0.50`. Raises `typer.BadParameter`."""
    from comfymodal.costs.rates import parse_money

    if text is None:
        return None
    try:
        return parse_money(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--max-cost") from exc


def open_context(config: Path | None, *, early_worker: EarlyWorker | None = None, **flags: Any) -> Context:
    """The project in the working directory or in `config`; `flags` are dotted keys with _ for the dots."""
    from comfymodal.operations.context import open_context as open_operation_context

    given = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    return open_operation_context(config, environ=os.environ, cwd=Path.cwd(), flags=given, early_worker=early_worker)


def open_desk(*, as_json: bool, as_events: bool = False, yes: bool = False, quiet: bool = False) -> TerminalDesk:
    from comfymodal.output.desk import TerminalDesk

    return TerminalDesk(as_json=as_json, as_events=as_events, assume_yes=yes, is_quiet=quiet)
