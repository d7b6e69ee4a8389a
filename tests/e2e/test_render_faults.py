"""Things that go wrong while a render runs, on the real engine: what the operator sees, and what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.ask import get_json
from tests.conftest import HELLO, WORKFLOWS, Cli, Done
from tests.doubles.fault_proxy import FaultProxy, fault_proxy

SLOW = WORKFLOWS / "slow.json"


@pytest.fixture
def proxy(engine_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(engine_url) as made:
        yield made


def test_ctrl_c_stops_only_the_own_prompt(cli: Cli, engine_url: str) -> None:
    other = cli("render", SLOW, "--set", "Noise.seed=random", "--detach", "--json")
    process = cli.start("render", SLOW, "--set", "Noise.seed=random", "--json-events")
    mine = wait_for_event(process, "prompt_queued")

    process.send_signal(signal.SIGINT)
    done = finished(process)
    queue = get_json(engine_url, "/queue")
    cancelled = cli("runs", "cancel", other.run["id"], "--json")

    assert done.code == 130
    assert last_line(done)["data"]["run"]["status"] == "cancelled"
    assert mine["prompt"] == 0
    # The other run's prompt was running and still is.
    assert len(queue["queue_running"]) == 1
    assert queue["queue_pending"] == []
    assert cancelled.run["status"] == "cancelled"
    assert get_json(engine_url, "/queue")["queue_running"] == []


def test_cancelled_run_ends_soon_and_can_be_repeated(cli: Cli) -> None:
    started = cli("render", WORKFLOWS / "slow.json", "--set", "Noise.seed=random", "--detach", "--json")
    time.sleep(1.0)
    began = time.monotonic()
    cancelled = cli("runs", "cancel", started.run["id"], "--json")

    assert (started.code, started.run["status"]) == (0, "running")
    assert (cancelled.code, cancelled.run["status"]) == (0, "cancelled")
    assert time.monotonic() - began < 20
    assert cli("runs", "fetch", started.run["id"]).code == 130
    assert cli("runs", "cancel", started.run["id"], "--json").json["data"]["was_active"] is False


def test_wait_that_ends_first_leaves_the_run_alone(cli: Cli) -> None:
    done = cli("render", SLOW, "--set", "Noise.seed=random", "--wait", "1s", "--json")
    run_id = done.error["run_id"]
    still = cli("runs", "show", run_id, "--json")
    cli("runs", "cancel", run_id)

    assert (done.code, done.error["code"]) == (8, "still_running")
    assert still.run["status"] == "running"


def test_killed_client_loses_nothing(cli: Cli) -> None:
    process = cli.start("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.seed=random", "--json-events")
    submitted = wait_for_event(process, "submitted")
    process.kill()
    process.communicate()

    fetched = cli("runs", "fetch", submitted["run_id"], "--json")

    assert (fetched.code, fetched.run["status"]) == (0, "succeeded")
    assert Path(fetched.outputs[0]["path"]).is_file()


def test_killed_worker_is_noticed_and_its_prompt_is_collected_from_the_server(cli: Cli) -> None:
    process = cli.start("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.steps=30", "--json-events")
    submitted = wait_for_event(process, "prompt_started")
    os.kill(worker_pid(cli), signal.SIGKILL)
    done = finished(process)
    run_id = last_line(done)["data"]["run"]["id"]

    assert submitted["prompt"] == 0
    assert done.code == 5
    assert last_line(done)["errors"][0]["code"] == "engine_died"
    fetched = fetch_until_there(cli, run_id)
    assert (fetched.code, fetched.run["status"]) == (0, "succeeded")
    assert len(fetched.outputs) == 1


def test_dropped_websocket_is_taken_up_again(cli: Cli, proxy: FaultProxy) -> None:
    process = cli.start(
        *("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.steps=40", "--set", "Sampler.seed=random"),
        *("--comfy-url", proxy.url, "--json-events"),
    )
    wait_for_event(process, "step")
    cut = proxy.cut(only_websockets=True)
    done = finished(process)

    assert cut == 1
    assert done.code == 0, done.stdout
    assert proxy.websockets >= 2
    assert last_line(done)["data"]["outputs"]


@pytest.mark.soak
def test_whole_network_gone_for_a_moment_is_survived(cli: Cli, proxy: FaultProxy) -> None:
    process = cli.start(
        *("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.steps=40", "--set", "Sampler.seed=random"),
        *("--comfy-url", proxy.url, "--json-events"),
    )
    wait_for_event(process, "step")
    for _ in range(3):
        proxy.cut(only_websockets=False)
        time.sleep(0.1)

    assert finished(process).code == 0


def test_server_that_vanishes_is_noticed_within_seconds(cli: Cli, proxy: FaultProxy, engine_url: str) -> None:
    process = cli.start("render", SLOW, "--set", "Noise.seed=random", "--comfy-url", proxy.url, "--json-events")
    wait_for_event(process, "node")
    proxy.refuse()
    began = time.monotonic()
    done = finished(process)
    cancel_all(engine_url)

    assert done.code == 5
    assert time.monotonic() - began < 15
    assert "stopped answering" in last_line(done)["errors"][0]["message"]


def test_download_that_is_cut_is_repeated_and_arrives_whole(cli: Cli, proxy: FaultProxy) -> None:
    proxy.downloads_to_cut = 2
    done = cli("render", HELLO, "--set", "Grain.seed=random", "--comfy-url", proxy.url, "--json")
    (output,) = done.outputs

    assert (done.code, proxy.downloads_cut) == (0, 2)
    assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]
    assert not list(cli.state.glob(f"volumes/*/runs/{done.run['id']}/**/*.part"))


def test_server_that_vanishes_in_a_download_leaves_no_half_file_and_the_run_can_be_fetched(
    cli: Cli, engine_url: str, proxy: FaultProxy
) -> None:
    proxy.downloads_to_cut, proxy.vanishes_with_download = 1, True
    done = cli("render", HELLO, "--set", "Grain.seed=random", "--comfy-url", proxy.url, "--json")
    run_id = done.run["id"]
    shown = cli("runs", "show", run_id, "--json")
    left = [path.name for path in cli.state.glob(f"volumes/*/runs/{run_id}/outputs/*")]
    # The server is back, under another address.
    fetched = cli("runs", "fetch", run_id, "--comfy-url", engine_url, "--json")

    assert (done.code, done.error["code"]) == (5, "engine_died")
    assert (shown.run["status"], left) == ("failed", [])
    assert (fetched.code, fetched.run["status"], len(fetched.outputs)) == (0, "succeeded", 1)


def test_engine_killed_in_the_middle_is_named_and_the_next_render_works(lonely_cli: Cli) -> None:
    process = lonely_cli.start("render", SLOW, "--json-events")
    wait_for_event(process, "node")
    os.kill(json.loads(lonely_cli.engine_file.read_text())["process"]["pid"], signal.SIGKILL)
    began = time.monotonic()
    done = finished(process)
    seconds = time.monotonic() - began
    error = last_line(done)["errors"][0]
    shown = lonely_cli("runs", "show", "--json")
    again = lonely_cli("render", WORKFLOWS / "image.json", "--json")

    assert (done.code, error["code"]) == (5, "engine_died")
    assert seconds < 10
    assert "signal 9" in error["message"]
    assert "runs again" in error["hint"]
    assert shown.run["status"] == "failed"
    assert (again.code, again.run["status"]) == (0, "succeeded")


@pytest.mark.soak
def test_command_right_after_the_engine_was_killed_starts_another(lonely_cli: Cli) -> None:
    assert lonely_cli("render", WORKFLOWS / "image.json").code == 0
    for delay_s in (0.0, 0.2):
        os.kill(json.loads(lonely_cli.engine_file.read_text())["process"]["pid"], signal.SIGKILL)
        # Its supervisor may not have noticed yet.
        time.sleep(delay_s)
        done = lonely_cli("render", WORKFLOWS / "image.json", "--json")
        assert done.code == 0, done.stdout


@pytest.mark.soak
def test_engine_stops_when_idle_and_a_stale_pid_file_is_survived(lonely_cli: Cli) -> None:
    (lonely_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {idle_stop: 2s}\n")
    first = lonely_cli("render", WORKFLOWS / "image.json", "--json")
    note = lonely_cli.engine_file
    kept = note.read_text()
    wait_until(lambda: not note.exists(), timeout_s=30)
    # As after a crash of the machine: the file names a process that is gone.
    note.write_text(kept)
    second = lonely_cli("render", WORKFLOWS / "image.json", "--json")

    assert (first.code, second.code) == (0, 0)
    assert json.loads(note.read_text())["process"] != json.loads(kept)["process"]


def test_engine_stays_warm_between_commands(cli: Cli, engine_url: str) -> None:
    before = cli.engine_file.read_text()
    assert cli("render", WORKFLOWS / "image.json").code == 0
    assert cli.engine_file.read_text() == before


def test_engine_that_cannot_boot_says_why(lonely_cli: Cli) -> None:
    (lonely_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {args: [--no-such-flag]}\n")
    done = lonely_cli("render", WORKFLOWS / "image.json", "--json")

    assert (done.code, done.error["code"]) == (5, "engine_died")
    assert "unrecognized arguments: --no-such-flag" in done.error["message"]


def test_two_clients_on_one_engine_get_their_own_outputs(cli: Cli) -> None:
    colours = ("16711680", "65280", "255")
    started = [
        cli.start("render", WORKFLOWS / "image.json", "--set", f"Canvas.color={colour}", "--json") for colour in colours
    ]
    done = [finished(process) for process in started]
    alone = [cli("render", WORKFLOWS / "image.json", "--set", f"Canvas.color={colour}", "--json") for colour in colours]

    assert [one.code for one in done] == [0, 0, 0]
    assert len({one.run["id"] for one in done}) == 3
    assert [one.outputs[0]["sha256"] for one in done] == [one.outputs[0]["sha256"] for one in alone]


@pytest.mark.soak
def test_clock_that_jumps_neither_stops_nor_keeps_an_engine(lonely_cli: Cli) -> None:
    (lonely_cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {idle_stop: 4s}\n")
    assert lonely_cli("render", WORKFLOWS / "image.json").code == 0
    note = lonely_cli.engine_file
    used = note.with_name("used")
    for day in (-1, 365):
        # As if the clock had been set back or ahead since the engine was used last.
        os.utime(used, (time.time() + day * 86400,) * 2)
        time.sleep(1.5)
        assert note.exists()
    assert lonely_cli("render", WORKFLOWS / "image.json").code == 0
    wait_until(lambda: not note.exists(), timeout_s=30)


def test_interrupted_fetch_goes_on_and_leaves_nothing_beside_the_outputs(cli: Cli) -> None:
    rendered = cli("render", WORKFLOWS / "batch_preview.json", "--json")
    wanted = sorted(Path(output["path"]).name for output in rendered.outputs)
    for delay_s in (0.15, 0.2, 0.25, 0.3, 0.35):
        process = cli.start("runs", "fetch", rendered.run["id"], "--out", "fetched")
        time.sleep(delay_s)
        process.kill()
        process.communicate()
    fetched = cli("runs", "fetch", rendered.run["id"], "--out", "fetched", "--json")

    assert fetched.code == 0
    assert [output["sha256"] for output in fetched.outputs] == [output["sha256"] for output in rendered.outputs]
    assert sorted(path.name for path in (cli.cwd / "fetched").glob("*.png")) == wanted


def wait_for_event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == kind:
            assert isinstance(event, dict)
            return event
    raise AssertionError(f"ended without {kind}: {process.stderr.read() if process.stderr else ''}")


def finished(process: subprocess.Popen[str]) -> Done:
    stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in stderr, stderr
    return Done(process.returncode, stdout, stderr)


def last_line(done: Done) -> dict[str, Any]:
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def worker_pid(cli: Cli) -> int:
    import sqlite3

    (ledger,) = (cli.state / "projects" / cli.environ["COMFYMODAL_PROJECT"]).glob("ledger.sqlite")
    with sqlite3.connect(ledger) as connection:
        call_id = connection.execute("SELECT call_id FROM runs ORDER BY created_at DESC").fetchone()[0]
    return int(call_id.partition("@")[0])


def fetch_until_there(cli: Cli, run_id: str) -> Done:
    for _ in range(20):
        done = cli("runs", "fetch", run_id, "--json")
        if done.code == 0:
            return done
        time.sleep(1.0)
    return done


def cancel_all(engine_url: str) -> None:
    import urllib.request

    for path, body in (("/queue", b'{"clear": true}'), ("/interrupt", b"{}")):
        urllib.request.urlopen(urllib.request.Request(engine_url + path, data=body), timeout=30).close()


def wait_until(condition: Any, *, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.1)
