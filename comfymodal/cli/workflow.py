"""`comfymodal workflow ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfymodal.cli.options import (
    ComfyUrlOption,
    ConfigOption,
    JsonOption,
    QuietOption,
    SetOption,
    YesOption,
    open_context,
    open_desk,
)

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Look at workflows and check them, without rendering.",
)


@app.command("show")
def show_(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="Workflow in API format (JSON).")],
    set_: SetOption = None,
    node: Annotated[
        str | None,
        typer.Option("--node", metavar="NODE", help="Only this node (id, title or class), with all choices."),
    ] = None,
    comfy_url: ComfyUrlOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every node: its inputs with value, type and range, what --set calls them, its outputs.

    No engine is started: types come from one that runs, or from what one said when it was last asked.
    """
    from comfymodal.operations.workflow import show_workflow
    from comfymodal.output.workflow import show_nodes

    with open_desk(as_json=as_json) as desk:
        context = open_context(config, comfyui__url=comfy_url)
        show_nodes(show_workflow(workflow, set_ or (), context, desk, node=node), desk)


@app.command()
def check(
    workflows: Annotated[list[Path], typer.Argument(metavar="WORKFLOW...", help="Workflows in API format (JSON).")],
    set_: SetOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no engine, go by what one said when it was last asked.")
    ] = False,
    comfy_url: ComfyUrlOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find everything that `render` would refuse, in every WORKFLOW, without rendering.

    An engine is started only when nodes, models or input files changed since one was asked. Ends with 0 when
    there are no problems (warnings are none), with 4 when only models or node classes are missing, else with 3.
    """
    from comfymodal.operations.workflow import check_workflows
    from comfymodal.output.workflow import show_problems

    context = open_context(config, comfyui__url=comfy_url)
    with open_desk(as_json=as_json, yes=yes, quiet=quiet) as desk:
        checked = check_workflows(workflows, set_ or (), context, desk, is_offline=offline)
        show_problems(checked, desk)
    raise typer.Exit(checked.exit_code)
