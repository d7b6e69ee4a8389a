"""The engine as operators handle it, and what goes wrong with one, on the real ComfyUI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from comfymodal.files import read_json
from tests.conftest import WORKFLOWS, Cli

SLOW = WORKFLOWS / "slow.json"


def test_two_starts_at_once_make_one_engine_and_status_tells_everything(lonely_cli: Cli) -> None:
    both = [lonely_cli.start("engine", "start", "--json") for _ in range(2)]
    started = [json.loads(process.communicate(timeout=120)[0])["data"] for process in both]
    again = lonely_cli("engine", "start", "--json").json["data"]
    status = lonely_cli("engine", "status", "--json").json["data"]
    (running,) = status["running"]
    logs = lonely_cli("engine", "logs", "--lines", "500").stdout
    would = lonely_cli("engine", "stop", "--dry-run", "--json").json["data"]
    follower = lonely_cli.start("engine", "logs", "--follow", "--lines", "1")
    assert follower.stdout is not None
    follower.stdout.readline()
    stopped = lonely_cli("engine", "stop", "--json").json["data"]

    assert follower.wait(timeout=30) == 0
    follower.communicate()
    assert len({each["engine"]["pid"] for each in started}) == 1
    assert again["was_running"] is True
    assert (running["pid"], running["activity"]) == (started[0]["engine"]["pid"], "idle")
    assert running["url"] == f"http://127.0.0.1:{running['port']}"
    assert 100_000_000 < running["memory_bytes"] < 8_000_000_000
    assert running["idle_stop_s"] == 900
    assert 800 < running["idle_left_s"] <= 900
    assert running["is_supervised"] is True
    assert running["uptime_s"] > 0
    assert status["chosen"]["how"] == "embedded"
    assert "ComfyUI version: 0.3.75" in logs
    assert [view["pid"] for view in would["stopped"]] == [view["pid"] for view in stopped["stopped"]]
    assert is_gone(running["pid"])
    assert lonely_cli("engine", "status", "--json").json["data"]["running"] == []
    assert lonely_cli("engine", "logs", "--json").json["data"]["is_running"] is False


@pytest.mark.soak
def test_a_busy_engine_is_stopped_only_with_a_yes(lonely_cli: Cli) -> None:
    run = lonely_cli("render", SLOW, "--detach", "--json").run
    wait_until(lambda: the_only(lonely_cli)["activity"] == "busy")
    refused = lonely_cli("engine", "stop", "--json")
    still = the_only(lonely_cli)
    stopped = lonely_cli("engine", "stop", "--all", "--yes", "--json")
    fetched = lonely_cli("runs", "fetch", run["id"], "--json")

    assert (refused.code, refused.error["hint"]) == (4, "run the same command with --yes")
    assert f"renders run {run['id']} (slow.json)" in refused.error["message"]
    assert (still["idle_left_s"], len(still["prompts"])) == (None, 1)
    assert stopped.code == 0
    assert (fetched.code, fetched.error["code"]) == (5, "engine_died")


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_engine_killed_while_it_starts_is_named_and_the_next_render_works(lonely_cli: Cli) -> None:
    process = lonely_cli.start("engine", "start", "--json")
    note = wait_for(lambda: note_of(lonely_cli))
    assert note["is_ready"] is False
    os.kill(note["process"]["pid"], signal.SIGKILL)
    error = json.loads(process.communicate(timeout=60)[0])["errors"][0]
    logs = lonely_cli("engine", "logs", "--json")
    again = lonely_cli("render", WORKFLOWS / "image.json", "--json")

    assert (process.returncode, error["code"]) == (5, "engine_died")
    assert "ended with signal 9 (out of memory?" in error["message"]
    assert error["hint"] == "the whole log: comfymodal engine logs"
    assert (logs.code, logs.json["data"]["is_running"]) == (0, False)
    assert (again.code, again.run["status"]) == (0, "succeeded")


@pytest.mark.soak
def test_a_port_taken_while_comfyui_starts_is_survived(lonely_cli: Cli) -> None:
    process = lonely_cli.start("engine", "start", "--json")
    # Seconds pass between the choice of a port and ComfyUI's use of it: enough to take it.
    taken = int(wait_for(lambda: note_of(lonely_cli))["url"].rpartition(":")[2])
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", taken))
        squatter.listen()
        started = json.loads(process.communicate(timeout=120)[0])
    previous = lonely_cli("engine", "logs", "--previous").stdout

    assert process.returncode == 0, started
    assert started["data"]["engine"]["port"] != taken
    assert "address already in use" in previous


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="signals; an open file keeps its folder there")
def test_a_killed_supervisor_is_replaced_and_a_vanished_state_folder_ends_the_engine(lonely_cli: Cli) -> None:
    assert lonely_cli("engine", "start").code == 0
    note = read_json(lonely_cli.engine_file) or {}
    os.kill(note["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: not the_only(lonely_cli)["is_supervised"])
    done = lonely_cli("render", WORKFLOWS / "image.json", "--json")
    wait_until(lambda: the_only(lonely_cli)["is_supervised"])
    after = read_json(lonely_cli.engine_file) or {}
    shutil.rmtree(lonely_cli.state)

    assert done.code == 0, done.stderr
    assert after["process"] == note["process"]
    assert after["supervisor"] != note["supervisor"]
    wait_until(lambda: is_gone(after["process"]["pid"]) and is_gone(after["supervisor"]["pid"]))


def test_an_engine_that_does_not_come_up_says_why_and_keeps_its_log(lonely_cli: Cli) -> None:
    (lonely_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {args: [--no-such-flag]}\n")
    done = lonely_cli("engine", "start")
    logs = lonely_cli("engine", "logs", "--lines", "1")

    assert done.code == 5
    assert (
        "error: ComfyUI ended with exit code 2 while starting: "
        "unrecognized arguments: --no-such-flag; its log ends with:\n"
    ) in done.stderr
    assert "hint: correct comfyui.args; the whole log: comfymodal engine logs" in done.stderr
    assert logs.stdout == "main.py: error: unrecognized arguments: --no-such-flag\n"


def the_only(cli: Cli) -> dict[str, Any]:
    (found,) = cli("engine", "status", "--json").json["data"]["running"]
    assert isinstance(found, dict)
    return found


def note_of(cli: Cli) -> dict[str, Any] | None:
    found = list((cli.state / "engines").glob("*/engine.json"))
    return read_json(found[0]) if found else None


def wait_for(find: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    give_up_at = time.monotonic() + 60
    while (found := find()) is None:
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.02)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.1)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
