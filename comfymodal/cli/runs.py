"""`comfymodal runs ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import (
    ComfyUrlOption,
    ConfigOption,
    GpuOption,
    JsonEventsOption,
    JsonOption,
    MaxCostOption,
    OutOption,
    QuietOption,
    TargetOption,
    WaitOption,
    YesOption,
    open_context,
    open_desk,
    parse_max_cost,
    parse_wait,
)
from comfymodal.cli.runs_eval import evaluate
from comfymodal.cli.runs_report import report

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List, show, attach to, fetch, repeat, resume and stop runs.",
)

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, or 'last'.", show_default=False)
]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many of the newest.")] = 20,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs of this project."""
    from comfymodal.operations.runs import list_runs
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(list_runs(open_context(config, target=target), desk, limit=limit), desk, command=["runs", "list"])


@app.command("show")
def show_(run: RunArgument = "last", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one run: how it ended, its outputs, texts and error."""
    from comfymodal.operations.runs import show_run
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(show_run(run, open_context(config), desk), desk, command=["runs", "show"], with_details=True)


@app.command()
def fetch(
    run: RunArgument = "last",
    out: OutOption = None,
    step: Annotated[
        int | None,
        typer.Option("--step", min=0, help="Of a training, the weights of this checkpoint.", show_default=False),
    ] = None,
    wait: WaitOption = None,
    target: TargetOption = None,
    comfy_url: ComfyUrlOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a run's outputs here: follow it, or go on where a download was cut."""
    from comfymodal.operations.ending import Report
    from comfymodal.operations.runs import fetch_run, fetch_step
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, quiet=quiet) as desk:
        context = open_context(config, target=target, comfyui__url=comfy_url)
        if step is not None:
            report: Report = fetch_step(run, step, context, desk, out=out)
        else:
            report = fetch_run(run, context, desk, out=out, waiting=Waiting(wait_s=parse_wait(wait)))
        show(report, desk, command=["runs", "fetch"])
    raise typer.Exit(report.exit_code)


@app.command()
def attach(
    run: RunArgument = "last",
    out: OutOption = None,
    wait: WaitOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Follow a run from any terminal, also on another machine; Ctrl-C leaves it running."""
    from comfymodal.operations.runs import attach_run
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, quiet=quiet) as desk:
        context = open_context(config, target=target)
        report = attach_run(run, context, desk, out=out, waiting=Waiting(wait_s=parse_wait(wait)))
        show(report, desk, command=["runs", "attach"])
    raise typer.Exit(report.exit_code)


@app.command()
def again(
    run: RunArgument = "last",
    out: OutOption = None,
    wait: WaitOption = None,
    target: TargetOption = None,
    gpu: GpuOption = None,
    max_cost: MaxCostOption = None,
    comfy_url: ComfyUrlOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do the same once more: a workflow with its seeds and inputs, a sync of the same places."""
    from comfymodal.operations.render import Again
    from comfymodal.operations.runs import again_run
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import show

    context = open_context(config, target=target, comfyui__url=comfy_url)
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        wish = Again(out=out, gpu=gpu, max_cost=parse_max_cost(max_cost), waiting=Waiting(wait_s=parse_wait(wait)))
        report = again_run(run, context, desk, wish)
        show(report, desk, command=["runs", "again"])
    raise typer.Exit(report.exit_code)


@app.command()
def stop(
    run: RunArgument = "last",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop a run and wait until it has; a training saves first, so that `runs resume` loses nothing."""
    from comfymodal.operations.runs import stop_run
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, quiet=quiet) as desk:
        stopped = stop_run(run, open_context(config), desk)
        show(stopped, desk, command=["runs", "stop"])
    raise typer.Exit(8 if stopped.is_still_running else 0)


@app.command()
def resume(
    run: RunArgument = "last",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Train up to this many steps in all.", show_default=False)
    ] = None,
    gpu: GpuOption = None,
    max_cost: MaxCostOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, print the run id, do not wait.")] = False,
    wait: WaitOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go on with a training from its newest checkpoint: one that was stopped or failed, or is to have more steps."""
    from comfymodal.operations.train import resume as resume_training
    from comfymodal.operations.train_jobs import More
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import show

    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        waiting = Waiting(wait_s=parse_wait(wait), is_detached=detach)
        more = More(steps, gpu, parse_max_cost(max_cost), waiting)
        report = resume_training(run, more, open_context(config), desk)
        show(report, desk, command=["runs", "resume"])
    raise typer.Exit(report.exit_code)


@app.command()
def cancel(run: RunArgument = "last", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Stop a run at once; what is finished is kept for `runs fetch`, of a training its last checkpoint."""
    from comfymodal.operations.runs import cancel_run
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        cancelled = cancel_run(run, open_context(config), desk)
        show(cancelled, desk, command=["runs", "cancel"])
    raise typer.Exit(8 if cancelled.is_still_running else 0)


app.command("report")(report)
app.command("eval")(evaluate)
