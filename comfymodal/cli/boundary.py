"""Where every error becomes one message and an exit code. A traceback on the screen is a bug."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from comfymodal.errors import CancelledError, ComfymodalError, ServiceError, UsageError

# typer brings its own click from 0.26 on and names the root of its exceptions nowhere.
_ClickError: Any = typer.BadParameter.__mro__[2]

_GROUPS = ("runs", "models", "trash", "config", "engine", "workflow", "datasets", "costs")
"""Commands with subcommands; the second word of the others is an argument."""


def run_guarded(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code, 130 for an interruption."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            # A terminal that knows ASCII only (LANG=C) shows a file's name in escapes rather than a traceback.
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        return _run(app, arguments)
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error of ours, and nothing more can be said.
        pass
    except OSError as exc:
        # Nobody foresaw it: stdout on a full disk, a working directory that was deleted.
        code = ServiceError.exit_code
        with contextlib.suppress(OSError):
            _show(ServiceError(str(exc)), arguments)
    _mute_stdout()
    return code


def _mute_stdout() -> None:
    # What is still buffered must not fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    try:
        code = app(args=list(arguments), standalone_mode=False)
    except ComfymodalError as error:
        return _show(error, arguments)
    except typer.Exit as request:
        code = request.exit_code
    except _ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            return 0
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path} --help" if context is not None else "comfymodal --help"
        return _show(UsageError(error.format_message(), hint=hint), arguments)
    except (KeyboardInterrupt, typer.Abort):
        return _show(CancelledError("interrupted"), arguments)
    except SystemExit as request:
        # Typer's own answer to a reader that left is code 1.
        if isinstance(request.__context__, BrokenPipeError):
            raise request.__context__ from None
        raise
    return code if isinstance(code, int) else 0


def _show(error: ComfymodalError, arguments: Sequence[str]) -> int:
    from comfymodal.output.show import show_error

    # The options may be what is wrong, so they are looked for rather than parsed.
    depth = 2 if arguments and arguments[0] in _GROUPS else 1
    command = [word for word in arguments[:depth] if word.isalpha()]
    try:
        show_error(error, command=command, as_json="--json" in arguments, as_events="--json-events" in arguments)
    except BrokenPipeError:
        _mute_stdout()
    return error.exit_code
