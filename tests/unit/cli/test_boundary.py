"""Exit codes and the last line of defence: what the operator sees when a command cannot do its work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from comfymodal import errors
from comfymodal.cli.boundary import run_guarded
from comfymodal.errors import ComfymodalError, error_from_dict
from tests.conftest import HELLO, Cli

ENVELOPE = ["schema", "command", "status", "data", "warnings", "errors"]

ALL_ERRORS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ComfymodalError)),
    key=lambda kind: kind.__name__,
)


def app_that(action: Callable[[], object]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command()
    def act(as_json: bool = typer.Option(False, "--json")) -> None:
        action()

    return app


def raising(error: BaseException) -> typer.Typer:
    def act() -> None:
        raise error

    return app_that(act)


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_exit_code_and_its_hint(
    kind: type[ComfymodalError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(raising(kind("it is so", hint="do this")), []) == kind.exit_code
    assert tuple(capsys.readouterr()) == ("", "error: it is so\nhint: do this\n")


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_an_envelope(kind: type[ComfymodalError], capsys: pytest.CaptureFixture[str]) -> None:
    error = kind("it is so", hint=None, path="/a\udcff")
    assert run_guarded(raising(error), ["--json"]) == kind.exit_code
    out, err = capsys.readouterr()
    envelope = json.loads(out)
    assert (list(envelope), envelope["status"], err) == (ENVELOPE, "error", "")
    assert envelope["errors"] == [{"code": kind.code, "message": "it is so", "hint": None, "path": "/a\udcff"}]
    # The way back, as out of a container.
    rebuilt = error_from_dict(envelope["errors"][0])
    assert (type(rebuilt), rebuilt.to_dict()) == (kind, error.to_dict())


def test_every_error_has_a_code_of_its_own() -> None:
    assert len({kind.code for kind in ALL_ERRORS}) == len(ALL_ERRORS)
    assert {kind.exit_code for kind in ALL_ERRORS} <= {1, 2, 3, 4, 5, 6, 7, 8, 130}


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        pytest.param(raising(KeyboardInterrupt()), 130, "", id="Ctrl-C"),
        pytest.param(raising(typer.Abort()), 130, "error: interrupted\n", id="a question left"),
        pytest.param(raising(typer.Exit(6)), 6, "", id="a code"),
        pytest.param(raising(typer.BadParameter("not so", param_hint="--x")), 2, "error: ", id="a bad option"),
        pytest.param(app_that(lambda: None), 0, "", id="done"),
    ],
)
def test_other_ends_have_a_code_too(
    action: typer.Typer, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(action, []) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)


def usage_error(cli: Cli, *arguments: str) -> dict[str, object]:
    done = cli(*arguments)
    assert (done.code, done.stderr) == (2, "")
    envelope = done.json
    assert list(envelope) == ENVELOPE
    assert done.error["code"] == "usage"
    return {"command": envelope["command"], **done.error}


@pytest.mark.parametrize(
    ("arguments", "command", "words"),
    [
        pytest.param(["render", "--json"], ["render"], "WORKFLOW", id="no argument"),
        pytest.param(["render", "workflow", "--jsn", "--json"], ["render"], "--jsn", id="an unknown option"),
        pytest.param(["rendr", "w.json", "--json"], ["rendr"], "rendr", id="an unknown command"),
        pytest.param(["runs", "lst", "--json"], ["runs", "lst"], "lst", id="an unknown subcommand"),
        pytest.param(["runs", "list", "--limit", "0", "--json"], ["runs", "list"], "--limit", id="out of range"),
        pytest.param(["costs", "budget", "x", "--json"], ["costs", "budget"], "x", id="costs has subcommands"),
        pytest.param(["--json"], [], "--json", id="an option before the command"),
        pytest.param(["render", "w.json", "--wait", "soon", "--json"], ["render"], "--wait", id="no duration"),
    ],
)
def test_a_wrong_command_line_is_json_when_json_was_asked_for(
    arguments: list[str], command: list[str], words: str, engineless_cli: Cli
) -> None:
    error = usage_error(engineless_cli, *arguments)
    assert error["command"] == command
    assert words in str(error["message"])
    assert "--help" in str(error["hint"])


def test_a_wrong_command_line_is_said_on_stderr(engineless_cli: Cli) -> None:
    done = engineless_cli("render", "--nope")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "comfymodal render --help" in done.stderr


def test_an_error_under_json_events_is_the_last_line(engineless_cli: Cli) -> None:
    done = engineless_cli("render", "absent.json", "--json-events")
    (line,) = done.stdout.splitlines()
    assert (done.code, json.loads(line)["type"], list(json.loads(line))) == (3, "result", ["type", *ENVELOPE])


def test_a_run_that_is_not_there_is_4(engineless_cli: Cli) -> None:
    assert engineless_cli("runs", "show", "nope", "--json").code == 4
    assert engineless_cli("runs", "list", "--json").json["data"] == {"runs": []}


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param("{cli} config schema | head -1", 0, id="a reader that leaves"),
        pytest.param("{cli} config schema --nope --json | true", 2, id="a reader of an error that left"),
        pytest.param("{cli} --help | true", 0, id="a reader of help that left"),
        pytest.param("{cli} config schema > /dev/full", 5, id="a full disk"),
        pytest.param("{cli} runs show nope --json > /dev/full", 5, id="a full disk under an error"),
        pytest.param("{cli} --version > /dev/full", 5, id="a full disk under the version"),
        pytest.param("{cli} runs list >&-", 0, id="no stdout"),
        pytest.param("{cli} runs show nope 2>&-", 4, id="no stderr"),
        pytest.param("{cli} runs show nope >&- 2>&-", 4, id="neither"),
        pytest.param("mkdir gone && cd gone && rmdir ../gone && {cli} runs list", 5, id="no working directory"),
        pytest.param("{cli} runs show $(printf 'a\\377') --json", 4, id="an argument that is no Unicode"),
    ],
)
def test_whatever_stands_behind_the_output_there_is_no_traceback(line: str, code: int, engineless_cli: Cli) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    script = "set -o pipefail; " + line.replace("{cli}", f"{sys.executable} -m comfymodal")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=engineless_cli.cwd,
        env={**engineless_cli.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == code, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupted_command_says_so_and_ends_with_130(engineless_cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = engineless_cli.start("render", HELLO, "--comfy-url", url)
        # The command waits for an answer that never comes.
        with listener.accept()[0]:
            command.send_signal(signal.SIGINT)
            out, err = command.communicate(timeout=20)
    assert (command.returncode, out) == (130, "")
    assert err.endswith("error: interrupted\n")
    assert "Traceback" not in err
