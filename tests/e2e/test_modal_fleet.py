"""What lives on Modal: seen, kept warm, looked into, ended; against the control plane double and real containers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from comfymodal.comfyui.engines import EngineInstall
from tests.conftest import HELLO, WORKFLOWS, Cli, Done
from tests.e2e.modal_world import ModalCli, run_modal, start_cloud, write_project

SLOW = WORKFLOWS / "slow.json"
T = TypeVar("T")
Make = Callable[..., ModalCli]

OTHER_APPS = """
import modal
for name in ("comfymodal-other-render", "comfymodal-third-train", "somebody-elses"):
    app = modal.App(name, include_source=False)
    app.function(name="idle", serialized=True)(lambda: None)
    app.deploy()
"""


def test_nothing_deployed_is_seen_and_nothing_is_to_be_ended(make_modal_cli: Make) -> None:
    cli = make_modal_cli()
    status = cli("status", "--json")
    stop, off = cli("stop"), cli("warm", "--off")
    warm = cli("warm", "--for", "30m")
    assert cli("setup").code == 0
    plan, shell = cli("shell", "--dry-run"), cli("shell")

    assert (status.code, status.json["data"]["deployed"], status.json["data"]["containers"]) == (0, "no", [])
    assert (stop.code, stop.stdout) == (0, "nothing of comfymodal is deployed, and nothing bills\n")
    assert (warm.code, warm.stderr.splitlines()[-1]) == (4, "hint: comfymodal deploy")
    assert (off.code, off.stdout) == (0, "nothing was kept warm\n")
    # Modal's own command line took over, understood the words, and asked for what the double has not.
    assert (shell.code, "Error: The double does not know" in shell.stderr) == (1, True)
    assert shell.stderr.startswith("no container of this project lives: a small one on a CPU, without ComfyUI\n")
    assert "about $0.1655/h; it ends with exit, at the latest after 1h\n" in shell.stderr
    assert plan.stdout.endswith(" -m modal shell --volume comfy-models --volume comfy-inputs --volume comfy-outputs\n")


def test_a_run_is_seen_looked_into_and_stopped_with_what_it_finished(make_modal_cli: Make) -> None:
    cli = make_modal_cli()
    assert cli("deploy", "--yes").code == 0
    run = cli("render", SLOW, "--detach", "--json").run
    wait_for(lambda: [one for one in cli.containers() if one["state"] == "busy"])
    (busy,) = wait_for(lambda: [one for one in containers(cli) if one["does"] == "runs"])
    status = cli("status").stdout
    shell = cli("shell", run["id"], "--dry-run", "--json").json["data"]
    would = cli("stop", "--dry-run", "--json").json["data"]
    unasked = cli("stop", "--json")
    still = containers(cli)
    alive = rendering(cli)
    before = alive()
    stopped = cli("stop", "--yes", "--json")
    fetched = cli("runs", "fetch", run["id"], "--json")

    assert [one["task_id"] for one in before] == [busy["id"]]
    assert (busy["run_id"], busy["gpu"], busy["usd_per_hour"]) == (run["id"], "L40S", "2.3951772")
    assert f"{busy['id']}\tL40S, $2.40/h, up " in status
    assert f"runs {run['id']}\n" in status
    assert "ends it: comfymodal stop" in status
    assert (shell["container_id"], shell["argv"][-2:]) == (busy["id"], ["shell", busy["id"]])
    assert busy["id"] in [one["id"] for one in would["containers"]]
    assert (unasked.code, unasked.error["hint"]) == (4, "run the same command with --yes")
    assert busy["id"] in [one["id"] for one in still]
    assert stopped.code == 0, stopped.stderr
    assert (stopped.json["data"]["asked"], stopped.json["data"]["unfinished"]) == ([run["id"]], [])
    assert (fetched.code, fetched.run["status"]) == (130, "cancelled")
    wait_for(lambda: not alive())
    assert cli("status", "--json").json["data"]["deployed"] == "no"
    # The log outlives the app.
    assert "got prompt" in cli("logs", run["id"]).stdout


@pytest.mark.soak
def test_stop_waits_for_nothing_that_only_waits(make_modal_cli: Make) -> None:
    cli = make_modal_cli()
    assert cli("deploy", "--yes").code == 0
    cli.cloud.do("hold_inputs", on=True)
    try:
        run = cli("render", SLOW, "--detach", "--json").run
        stopped = cli("stop", "--yes", "--json")
    finally:
        cli.cloud.do("hold_inputs", on=False)
    fetched = cli("runs", "fetch", run["id"], "--json")

    assert (stopped.code, stopped.json["data"]["asked"]) == (0, [])
    assert fetched.run["status"] == "cancelled"
    assert not rendering(cli)()


@pytest.mark.soak
def test_warm_keeps_a_container_up_and_ends_by_itself(make_modal_cli: Make) -> None:
    cli = make_modal_cli(scaledown_window="2s")
    assert cli("deploy", "--yes").code == 0
    unasked = cli("warm", "--for", "25s")
    begun = cli("warm", "--for", "25s", "--yes", "--json").json["data"]
    until = time.time() + 25
    alive = rendering(cli)
    function_id = wait_for(alive)[0]["function_id"]
    (keeper,) = keepers(cli, alive)
    # Another container takes its place, to the same end.
    cli.cloud.kill_container(keeper["task_id"])
    wait_for(lambda: [one for one in keepers(cli, alive) if one["task_id"] != keeper["task_id"]])
    seen = cli("status", "--json").json["data"]
    during = {one["does"] for one in seen["containers"]}
    wait_for(lambda: not alive())
    ended_at = time.time()
    after = wait_for(lambda: gone_warm(cli))

    assert unasked.code == 4
    assert "keep a container warm: L40S $2.40/h for 25s: about $0.0170" in unasked.stderr
    assert (begun["gpu"], begun["cost"], begun["replaced"]) == ("L40S", "$0.0170", False)
    assert {"warm", "keeps warm"} <= during
    assert seen["warm_until"] == begun["until"]
    assert ended_at >= until - 1
    assert (after["is_warm_overdue"], after["warm_until"]) == (False, None)
    assert minimums(cli, function_id)[-1] == 0


@pytest.mark.soak
def test_a_second_warm_replaces_the_first_a_deploy_does_not_end_it_and_off_does(make_modal_cli: Make) -> None:
    cli = make_modal_cli(scaledown_window="2s")
    assert cli("deploy", "--yes").code == 0
    assert cli("warm", "--for", "1h", "--yes").code == 0
    alive = rendering(cli)
    function_id = wait_for(alive)[0]["function_id"]
    # A deploy wipes what the autoscaler was told; the one who keeps it warm tells it again.
    write_project(cli.cwd, cli.project, scaledown_window="3s")
    assert cli("deploy", "--yes").code == 0
    told = len(minimums(cli, function_id))
    wait_for(lambda: minimums(cli, function_id)[told:] == [1])
    assert wait_for(alive)
    second = cli("warm", "--for", "10m", "--gpu", "h100", "--yes", "--json").json["data"]
    (warm,) = wait_for(lambda: [one for one in containers(cli) if one["does"] == "warm" and one["gpu"] == "H100"])
    wait_for(lambda: [one for one in alive() if one["gpu"] == "H100"])
    would = cli("warm", "--off", "--dry-run")
    off = cli("warm", "--off")
    again = cli("warm", "--off")

    assert (second["gpu"], second["replaced"], second["per_hour"]) == ("H100", True, "$4.40/h")
    assert warm["why"].startswith("warm until ")
    assert would.stdout.startswith("would end what was kept warm until ")
    assert off.stdout.startswith("ended what was kept warm until ")
    assert again.stdout == "nothing was kept warm\n"
    wait_for(lambda: not alive())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "25h"), "from 5s to 24h"),
        (("--for", "1s"), "from 5s to 24h"),
        (("--for", "soon"), "must be a duration"),
        ((), "say how long, e.g. --for 30m, or --off"),
        (("--for", "30m", "--off"), "say how long, e.g. --for 30m, or --off"),
        (("--for", "30m", "--gpu", "L40"), "did you mean L40S?"),
    ],
)
def test_a_warm_that_makes_no_sense_is_refused(make_modal_cli: Make, words: tuple[str, ...], said: str) -> None:
    done = make_modal_cli()("warm", *words)
    assert done.code == 2
    assert said in done.stderr


def test_a_changed_project_file_is_seen_as_drift(modal_cli: ModalCli) -> None:
    assert modal_cli("status", "--json").json["data"]["deployed"] == "current"
    write_project(modal_cli.cwd, modal_cli.project, more="  gpu: H100\n")
    data = modal_cli("status", "--json").json["data"]

    assert data["deployed"] == "differs"
    (gpu,) = [drift for drift in data["drift"] if drift["key"] == "comfyui.gpu"]
    assert (gpu["deployed"], gpu["wanted"]) == ("L40S", "H100")


@pytest.mark.soak
def test_logs_are_a_runs_own_followed_to_its_end_and_searched(modal_cli: ModalCli, tmp_path: Path) -> None:
    first = modal_cli("render", HELLO, *new_seed(), "--json").run
    run = modal_cli("render", SLOW, "--detach", "--json").run
    wait_for(lambda: "got prompt" in modal_cli("logs", run["id"]).stdout)
    follower = modal_cli.start("logs", run["id"], "--follow", "--grep", "prompt")
    time.sleep(2)
    modal_cli("runs", "cancel", run["id"])
    followed, complaints = follower.communicate(timeout=60)
    lines = modal_cli("logs", run["id"], "--json").json["data"]["lines"]
    other = modal_cli("logs", first["id"][:-1], "--json").json["data"]
    last = modal_cli("logs", run["id"], "-n", "1").stdout
    elsewhere = modal_cli.elsewhere(tmp_path / "other")("logs", run["id"], "--json").json["data"]["lines"]
    app = modal_cli("logs", "--grep", "got prompt", "--since", "1h", "--json").json["data"]

    endless = modal_cli.start("logs", "--follow", "-n", "1")
    assert endless.stdout is not None
    endless.stdout.readline()
    endless.send_signal(signal.SIGINT)
    said = endless.communicate(timeout=30)[1]

    assert (endless.returncode, said) == (130, "error: interrupted\n")
    assert follower.returncode == 0, complaints
    assert "got prompt" in followed
    assert all("prompt" in line for line in followed.splitlines())
    assert [line["text"] for line in lines].count("got prompt") == 1
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert elsewhere == lines
    assert other["run_id"] == first["id"]
    assert not {(line["at"], line["text"]) for line in other["lines"]} & {(line["at"], line["text"]) for line in lines}
    assert any(line["text"].startswith("Prompt executed in") for line in other["lines"])
    assert len(last.splitlines()) == 1
    assert len(app["lines"]) >= 2
    assert app["run_id"] is None


@pytest.mark.soak
def test_a_log_that_modal_dropped_is_found_beside_the_outputs(modal_cli: ModalCli) -> None:
    run = modal_cli("render", HELLO, *new_seed(), "--json").run
    modal_cli.cloud.do("forget_logs")
    shown = modal_cli("logs", run["id"])
    followed = modal_cli("logs", run["id"], "--follow", "--json")
    missing = modal_cli("logs", "no-such-run")

    assert shown.code == 0
    assert "got prompt\n" in shown.stdout
    assert f"warning   Modal has dropped the log of run {run['id']}" in shown.stderr
    assert (followed.code, followed.error["message"]) == (2, "Invalid value for --follow: does not go with --json")
    assert missing.code == 4


@pytest.mark.soak
def test_a_log_of_this_machine_is_shown_by_the_same_command(cli: Cli) -> None:
    run = cli("render", HELLO, *new_seed(), "--json").run
    shown = cli("logs", "last", "--follow", "--grep", "got prompt")
    of_all = cli("logs")

    assert (shown.code, shown.stdout) == (0, "got prompt\n")
    assert (of_all.code, of_all.stderr.splitlines()[-1].partition(":")[0]) == (2, "hint")
    (cli.state / "volumes" / "comfy-outputs" / "runs" / run["id"] / "log.txt").unlink()
    gone = cli("logs", run["id"], "--json")
    assert (gone.code, gone.error["code"]) == (4, "not_found")


@pytest.mark.parametrize("words", [("status",), ("stop", "--all"), ("warm", "--for", "1h"), ("shell", "--dry-run")])
def test_a_project_of_this_machine_has_nothing_on_modal(engineless_cli: Cli, words: tuple[str, ...]) -> None:
    done = engineless_cli(*words, "--json")
    assert (done.code, done.error["code"]) == (2, "usage")
    assert done.error["hint"] == "write target: modal into comfymodal.yaml, or add --target modal"


@pytest.mark.soak
def test_stop_all_ends_every_app_of_comfymodal_and_no_other(
    engine_install: EngineInstall, make_cli: Callable[[Path], Cli], tmp_path: Path
) -> None:
    cloud = start_cloud(tmp_path / "cloud", engine_install)
    try:
        made = make_cli(tmp_path / "state")
        write_project(made.cwd, "none")
        cli = ModalCli(made.cwd, {**made.environ, **cloud.environ}, cloud, "none")
        script = [sys.executable, "-c", OTHER_APPS]
        subprocess.run(script, env=dict(cli.environ), cwd=tmp_path, check=True, capture_output=True)
        shell = cli("shell", "--dry-run", "--json")
        own = cli("stop", "--yes", "--json").json["data"]
        stopped = cli("stop", "--all", "--yes", "--json").json["data"]
        left = cli("stop", "--all", "--dry-run", "--json").json["data"]
        stops = len(cloud.requests("AppStop"))
    finally:
        cloud.stop()

    assert (shell.code, shell.error["hint"]) == (4, "comfymodal setup")
    assert own["apps"] == []
    assert sorted(stopped["apps"]) == ["comfymodal-other-render", "comfymodal-third-train"]
    assert (left["apps"], stops) == ([], 2)


def containers(cli: ModalCli) -> list[dict[str, Any]]:
    done: Done = cli("status", "--json")
    assert done.code == 0, done.stderr
    found = done.json["data"]["containers"]
    assert isinstance(found, list)
    return found


def rendering(cli: ModalCli) -> Callable[[], list[dict[str, Any]]]:
    """How to ask the double itself for the living render containers of a project."""
    listed = json.loads(run_modal(cli.cloud, cli.environ, "app", "list", "--json"))
    apps = {app["app_id"] for app in listed if app["description"] == cli.app}
    assert apps
    return lambda: [
        one for one in cli.cloud.containers() if one["app_id"] in apps and one["function"].startswith("RenderBox")
    ]


def gone_warm(cli: ModalCli) -> dict[str, Any] | None:
    data = cli("status", "--json").json["data"]
    assert isinstance(data, dict)
    return data if data["warm_until"] is None else None


def keepers(cli: ModalCli, rendering: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The containers that keep the project's others warm."""
    apps = {one["app_id"] for one in rendering()}
    return [
        one
        for one in cli.cloud.containers()
        if one["app_id"] in apps and one["function"] == "keep_warm" and one["call_id"]
    ]


def minimums(cli: ModalCli, function_id: str) -> list[int]:
    """What the autoscaler of a class was told, in order."""
    asked = [one["body"] for one in cli.cloud.requests("FunctionUpdateSchedulingParams")]
    return [int(body["settings"].get("min_containers", 0)) for body in asked if body["function_id"] == function_id]


def new_seed() -> tuple[str, str]:
    return "--set", f"Mountains.seed={uuid.uuid4().int % 10**6}"


def wait_for(find: Callable[[], T | None]) -> T:
    give_up_at = time.monotonic() + 90
    while not (found := find()):
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.5)
    return found
