"""Where every error becomes one message and an exit code. A traceback on the screen is a bug."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from comfymodal.errors import ComfymodalError, UsageError

# typer brings its own click from 0.26 on and names the root of its exceptions nowhere.
_ClickError: Any = typer.BadParameter.__mro__[2]


def run_guarded(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code, 130 for an interruption."""
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
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error of ours, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def _show(error: ComfymodalError, arguments: Sequence[str]) -> int:
    from comfymodal.output.show import show_error

    # The options may be what is wrong, so they are looked for rather than parsed.
    command = [word for word in arguments[:2] if word.isalpha()]
    show_error(error, command=command, as_json="--json" in arguments, as_events="--json-events" in arguments)
    return error.exit_code
