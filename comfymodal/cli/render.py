"""`comfymodal render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ComfyUrlOption,
    ConfigOption,
    DryRunOption,
    GpuOption,
    JsonEventsOption,
    JsonOption,
    MaxCostOption,
    NoDownloadOption,
    OutOption,
    QuietOption,
    SetOption,
    TagOption,
    TargetOption,
    WaitOption,
    YesOption,
    open_context,
    open_desk,
    parse_max_cost,
    parse_wait,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def render(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="Workflow in API format (JSON).")],
    set_: SetOption = None,
    out: OutOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEMPLATE", help="File names, e.g. '{workflow}-{seed}{ext}'.")
    ] = None,
    previews: Annotated[bool, typer.Option("--previews", help="Bring temporary previews too.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Render the valid outputs of a workflow that has invalid ones.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the first output when done.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, print the run id, do not wait.")] = False,
    wait: WaitOption = None,
    no_download: NoDownloadOption = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", metavar="NAME", help="When done, push the run's folder by this sync pair from outputs:/."
        ),
    ] = None,
    target: TargetOption = None,
    gpu: GpuOption = None,
    retry_oom_on: Annotated[
        str | None, typer.Option("--retry-oom-on", metavar="GPU", help="If GPU memory runs out, once more on this one.")
    ] = None,
    max_cost: MaxCostOption = None,
    tag: TagOption = None,
    no_deploy: Annotated[
        bool, typer.Option("--no-deploy", help="Fail rather than deploy to Modal what is not deployed yet.")
    ] = False,
    comfy_url: ComfyUrlOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    as_events: JsonEventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Render a ComfyUI workflow and bring back every output."""
    from comfymodal.operations.anticipate import anticipate_render

    early_worker = None if dry_run else anticipate_render(config, target)

    from comfymodal.operations.render import RenderRequest, plan_render
    from comfymodal.operations.render import render as render_workflow
    from comfymodal.operations.waiting import Waiting
    from comfymodal.output.show import open_output, show

    request = RenderRequest(
        workflow=workflow,
        overrides=tuple(set_ or ()),
        out=out,
        allow_partial=allow_partial,
        keep_temporary=previews,
        gpu=gpu,
        retry_oom_on=retry_oom_on,
        max_cost=parse_max_cost(max_cost),
        may_deploy=not no_deploy,
        push=push,
        waiting=Waiting(wait_s=parse_wait(wait), is_detached=detach, is_download=not no_download),
    )
    context = open_context(
        config, early_worker=early_worker, target=target, comfyui__url=comfy_url, render__naming=name, costs__tag=tag
    )
    with open_desk(as_json=as_json, as_events=as_events, yes=yes, quiet=quiet) as desk:
        if dry_run:
            show(plan_render(request, context, desk), desk, command=["render"])
            return
        report = render_workflow(request, context, desk)
        show(report, desk, command=["render"])
    if open_:
        open_output(report)
    raise typer.Exit(report.exit_code)
