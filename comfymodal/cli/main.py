"""The root command: a table of commands that are imported when called, and the one place where errors end."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from comfymodal.cli.boundary import run_guarded

COMMANDS = {
    "render": "Render a ComfyUI workflow and bring back every output.",
    "workflow": "Look at workflows and check them, without rendering.",
    "train": "Check the training of a LoRA before anything is paid for.",
    "datasets": "Check folders of pictures and captions, list those on the volume.",
    "sync": "Bring models and other files up to date between buckets, volumes and folders.",
    "runs": "List, show, attach to, fetch, repeat and cancel runs.",
    "costs": "Know what it costs: before, while and after.",
    "models": "List, look into, add, move and remove models.",
    "trash": "List, restore and empty what syncs and `models rm` put away.",
    "setup": "Create the volumes and secrets a project needs on Modal.",
    "deploy": "Publish the project's render containers on Modal.",
    "status": "What is deployed, which containers live, what they cost per hour.",
    "warm": "Keep a container up for a while, so that renders start at once.",
    "stop": "End every container of the project, so that nothing costs anything.",
    "logs": "The lines of a run, or of the deployed app.",
    "shell": "Open a shell in a container.",
    "doctor": "Check everything a render on Modal needs.",
    "engine": "Install, start, watch, stop and remove ComfyUI on this machine.",
    "config": "Show, validate and describe the project file.",
}
"""Name and help of each command; its module has the same name. Help for all must not import any."""


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is called: all of them at once double the time of --help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"comfymodal.cli.{cmd_name}").app)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:
            # Typer would end with 130 and not a word.
            raise typer.Abort from exc

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup,
    name="comfymodal",
    help="Render ComfyUI workflows from one project file, on this machine or on rented GPUs.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from comfymodal import __version__

        typer.echo(f"comfymodal {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script."""
    sys.exit(run_guarded(app, sys.argv[1:]))
