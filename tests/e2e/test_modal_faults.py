"""What breaks while a render runs on Modal: the client, the network, a container, ComfyUI in it. Nothing is lost."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfymodal.costs.rates import container_rate, money_json, parse_gpu
from tests.conftest import HELLO, WORKFLOWS, Done
from tests.e2e.modal_runs import (
    busy_container,
    comfyui_of,
    hello,
    result,
    slow_workflow,
    start,
    wait_for_early,
    wait_for_type,
    wait_until,
)
from tests.e2e.modal_world import ModalCli, run_modal
from tests.e2e.test_render_faults import finished


@pytest.mark.soak
def test_run_is_followed_from_three_terminals_and_rendered_once(modal_cli: ModalCli, tmp_path: Path) -> None:
    other = modal_cli.elsewhere(tmp_path / "other")
    first = start(modal_cli, "render", slow_workflow(tmp_path, blurs=20), "--json-events")
    run_id = wait_for_type(first, "submitted")["run_id"]
    wait_for_early(first)
    # The one that began it is gone without a word.
    first.kill()
    first.communicate()
    processes = [start(one, "runs", "attach", run_id, "--out", "here", "--json-events") for one in (modal_cli, other)]
    for process in processes:
        wait_for_type(process, "node")
    done = [finished(process) for process in processes]
    fetched = modal_cli("runs", "fetch", run_id, "--json")

    assert [one.code for one in (*done, fetched)] == [0, 0, 0], [one.stderr for one in done]
    wanted = shas(fetched.outputs)
    assert len(wanted) == 2
    for one in done:
        assert shas(result(one)["data"]["outputs"]) == wanted
        assert_whole(result(one)["data"]["outputs"])
    assert endings(modal_cli, run_id) == ["succeeded"]


def test_client_killed_before_it_noted_the_call_finds_its_run(modal_cli: ModalCli) -> None:
    before = len(modal_cli.cloud.requests("FunctionMap"))
    modal_cli.cloud.do("lose_answer", rpc="FunctionMap", times=3)
    process = start(modal_cli, "render", HELLO, "--set", "Mountains.seed=random", "--json-events")
    wait_until(lambda: len(modal_cli.cloud.requests("FunctionMap")) > before)
    process.kill()
    process.communicate()
    modal_cli.cloud.do("lose_answer", rpc="FunctionMap", times=0)
    busy_or_done = {"submitting", "running", "succeeded"}
    (run,) = modal_cli("runs", "list", "--json").json["data"]["runs"]
    wait_until(lambda: modal_cli("runs", "show", run["id"], "--json").run["status"] == "succeeded")
    fetched = modal_cli("runs", "fetch", run["id"], "--json")

    assert run["status"] in busy_or_done
    assert (fetched.code, fetched.run["status"]) == (0, "succeeded")
    assert_whole(fetched.outputs)


def test_call_whose_answer_never_came_renders_nothing(modal_cli: ModalCli, tmp_path: Path) -> None:
    before = len(modal_cli.cloud.requests("FunctionMap"))
    modal_cli.cloud.do("hold_inputs", on=True)
    modal_cli.cloud.do("lose_answer", rpc="FunctionMap", times=4)
    done = modal_cli("render", slow_workflow(tmp_path), "--json")
    modal_cli.cloud.do("hold_inputs", on=False)
    (run,) = modal_cli("runs", "list", "--json").json["data"]["runs"]
    next_one = hello(modal_cli)

    assert (done.code, done.error["code"]) == (5, "service_failed")
    assert run["status"] == "failed"
    # Asked for four times, one call: the requests carry the same key.
    assert len(modal_cli.cloud.requests("FunctionMap")) == before + 5
    assert next_one.code == 0
    # Containers take jobs in their order, so the lost one has been and gone.
    assert endings(modal_cli, run["id"]) == []


@pytest.mark.soak
def test_service_that_is_gone_for_a_while_is_waited_for(modal_cli: ModalCli, tmp_path: Path) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path))
    assert process.stderr is not None
    assert any(line.startswith("run ") for line in process.stderr)
    modal_cli.cloud.go_away(3.0)
    done = finished(process)
    told = "offline   Modal does not answer; the run goes on, and so does this command\n"

    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.count(told) == 1


@pytest.mark.soak
def test_outcome_is_found_after_modal_forgot_it(modal_cli: ModalCli, tmp_path: Path) -> None:
    begun = modal_cli("render", HELLO, "--set", "Mountains.seed=random", "--no-download", "--json")
    detached = modal_cli("render", HELLO, "--set", "Mountains.seed=random", "--detach", "--json")
    outcome = modal_cli.cloud.volume_folder("comfy-outputs") / "runs" / detached.run["id"] / "outcome.json"
    wait_until(outcome.exists)
    wait_until(lambda: not [one for one in modal_cli.containers() if one["state"] == "busy"])
    left = list(modal_cli.cwd.rglob("*.png"))
    modal_cli.cloud.do("expire_results")
    run_modal(modal_cli.cloud, modal_cli.environ, "dict", "clear", f"comfymodal-{modal_cli.project}", "--yes")
    here = modal_cli("runs", "fetch", detached.run["id"], "--json")
    there = modal_cli.elsewhere(tmp_path / "other")("runs", "attach", detached.run["id"], "--json")
    brought = modal_cli("runs", "fetch", begun.run["id"], "--json")

    assert (begun.code, begun.outputs, left) == (0, [], [])
    assert [one.code for one in (here, there, brought)] == [0, 0, 0], there.stdout
    assert shas(here.outputs) == shas(there.outputs)
    assert float(there.run["cost"]) > 0
    assert_whole([*here.outputs, *there.outputs, *brought.outputs])


def test_budget_refuses_or_ends_the_run_by_itself(modal_cli: ModalCli, tmp_path: Path) -> None:
    before = len(modal_cli.cloud.requests("FunctionMap"))
    workflow = slow_workflow(tmp_path, blurs=160)
    refused = modal_cli("render", workflow, "--max-cost", "0.001", "--json")
    calls = len(modal_cli.cloud.requests("FunctionMap"))
    # Start-up at its limit (10 min) and the idle tail (60 s) are paid first.
    budget = container_rate([parse_gpu("L40S")]).cost(600 + 60 + 4)
    began = time.monotonic()
    ended = modal_cli("render", workflow, "--max-cost", money_json(budget), "--json")
    (output,) = ended.outputs

    assert (refused.code, refused.error["code"], calls) == (7, "budget_refused", before)
    assert (ended.code, ended.error["code"]) == (7, "budget_reached")
    assert time.monotonic() - began < 4 + 10
    assert Path(output["path"]).name.startswith("early")
    assert_whole([output])


def test_containers_that_are_killed_and_preempted_are_replaced_and_nothing_comes_twice(
    modal_cli: ModalCli, tmp_path: Path
) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path), "--json-events")
    run_id = wait_for_type(process, "submitted")["run_id"]
    wait_for_early(process)
    killed = busy_container(modal_cli)["task_id"]
    modal_cli.cloud.kill_container(killed)
    # Progress of the second attempt is seen although the first one had said more.
    warning = wait_for_type(process, "warning")
    wait_for_early(process)
    preempted = busy_container(modal_cli)["task_id"]
    modal_cli.cloud.preempt(preempted, grace_s=2.0)
    done = finished(process)
    told = result(done)

    assert done.code == 0, done.stdout[-3000:]
    assert "Modal took the run's container away; another one goes on" in warning["message"]
    assert told["warnings"] == [warning["message"]] * 2
    assert [Path(output["path"]).name.partition("_")[0] for output in told["data"]["outputs"]] == ["early", "late"]
    assert_whole(told["data"]["outputs"])
    receipt = json.loads(Path(told["data"]["receipt"]).read_text())
    assert len({killed, preempted, receipt["container"]["container_id"]}) == 3
    assert endings(modal_cli, run_id) == ["succeeded"]


@pytest.mark.soak
def test_comfyui_that_is_killed_fails_the_run_and_drains_its_container(modal_cli: ModalCli, tmp_path: Path) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path), "--json-events")
    wait_for_early(process)
    container = busy_container(modal_cli)
    comfyui_of(container).kill()
    began = time.monotonic()
    done = finished(process)
    seconds = time.monotonic() - began
    error = result(done)["errors"][0]
    again = hello(modal_cli)

    assert (done.code, error["code"]) == (5, "engine_died")
    assert seconds < 10
    assert "signal 9" in error["message"]
    assert "its log ends with:" in error["message"]
    assert "comfymodal runs again" in error["hint"]
    assert again.code == 0, again.stderr
    assert container_of(again) != container["task_id"]


def test_comfyui_that_does_not_come_up_is_found_before_a_gpu_is_paid(make_modal_cli: Callable[..., ModalCli]) -> None:
    cli = make_modal_cli(more="  boot_timeout: 2m\n")
    project = cli.cwd / "comfymodal.yaml"
    project.write_text(project.read_text().replace("--disable-api-nodes", "--no-such-flag"))
    done = cli("render", WORKFLOWS / "image.json", "--yes", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "unrecognized arguments: --no-such-flag" in done.error["message"]
    assert_no_gpu(cli)


@pytest.mark.soak
def test_custom_node_that_cannot_be_imported_is_found_before_a_gpu_is_paid(
    make_modal_cli: Callable[..., ModalCli], tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes"
    (nodes / "comfyui-broken").mkdir(parents=True)
    (nodes / "comfyui-broken" / "__init__.py").write_text("import no_such_package\n")
    paths = tmp_path / "paths.yaml"
    paths.write_text(f"more:\n  custom_nodes: {nodes}\n")
    cli = make_modal_cli()
    project = cli.cwd / "comfymodal.yaml"
    wanted = f'--extra-model-paths-config, "{paths}"'
    project.write_text(project.read_text().replace("--disable-all-custom-nodes", wanted))
    done = cli("render", WORKFLOWS / "image.json", "--yes", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "comfyui-broken: No module named 'no_such_package'" in done.error["message"]
    assert_no_gpu(cli)


@pytest.mark.soak
def test_ten_renders_share_three_containers(modal_cli: ModalCli) -> None:
    workflow = WORKFLOWS / "image.json"
    wait_until(lambda: not [one for one in modal_cli.containers() if one["is_ending"]])
    began = time.time()
    processes = [
        start(modal_cli, "render", workflow, "--set", f"Canvas.color={random.randrange(1 << 24)}", "--json")
        for number in range(10)
    ]
    # On a slow machine the first container would be done with all ten before the third is there.
    frozen: dict[str, psutil.Process] = {}
    wait_until(lambda: len(freeze_busy(modal_cli, frozen)) == 3, timeout_s=60.0)
    for comfyui in frozen.values():
        comfyui.resume()
    done = [finished(process) for process in processes]
    ours = {
        one["task_id"]
        for one in modal_cli.cloud.containers(None)
        if one["app"] == modal_cli.app and "RenderBox" in one["function"]
        if one["is_alive"] or float(one["finished_at"]) > began
    }

    assert [one.code for one in done] == [0] * 10, [one.stderr for one in done if one.code]
    assert len({sha for one in done for sha in shas(one.outputs)}) == 10
    for one in done:
        assert_whole(one.outputs)
    assert set(frozen) == ours
    assert len(ours) == 3
    assert {container_of(one) for one in done} <= ours


@pytest.mark.soak
def test_comfyui_that_hangs_fails_the_run_and_drains_its_container(modal_cli: ModalCli, tmp_path: Path) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path), "--json-events")
    wait_for_early(process)
    container = busy_container(modal_cli)
    comfyui_of(container).suspend()
    began = time.monotonic()
    stdout, stderr = process.communicate(timeout=200)
    seconds = time.monotonic() - began
    error = result(Done(process.returncode, stdout, stderr))["errors"][0]

    assert (process.returncode, error["code"]) == (5, "engine_died")
    assert "stopped answering" in error["message"]
    # ComfyUI has a minute to answer, and is asked twice.
    assert seconds < 150
    modal_cli.cloud.wait_for_container(lambda one: one["task_id"] == container["task_id"] and not one["is_alive"])


@pytest.fixture(autouse=True)
def _no_fault_is_left(modal_cloud: Any) -> Iterator[None]:
    yield
    modal_cloud.do("hold_inputs", on=False)
    modal_cloud.do("lose_answer", rpc="FunctionMap", times=0)


def freeze_busy(cli: ModalCli, frozen: dict[str, psutil.Process]) -> dict[str, psutil.Process]:
    """Hold every ComfyUI that has something to do; return them by container."""
    for container in cli.containers():
        if container["state"] == "busy" and container["task_id"] not in frozen:
            frozen[str(container["task_id"])] = comfyui_of(container)
            frozen[str(container["task_id"])].suspend()
    return frozen


def assert_no_gpu(cli: ModalCli) -> None:
    assert [one["function"] for one in cli.cloud.containers(None) if one["app"] == cli.app] == ["inspect"]
    assert cli("runs", "list", "--json").json["data"]["runs"] == []


def assert_whole(outputs: list[dict[str, Any]]) -> None:
    assert outputs
    for output in outputs:
        assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]


def shas(outputs: list[dict[str, Any]]) -> list[str]:
    return [str(output["sha256"]) for output in outputs]


def container_of(done: Done) -> str:
    receipt = json.loads(Path(done.json["data"]["receipt"]).read_text())
    return str(receipt["container"]["container_id"])


def endings(cli: ModalCli, run_id: str) -> list[str]:
    """How the run's prompts ended, each time one did."""
    manifest = cli.cloud.volume_folder("comfy-outputs") / "runs" / run_id / "manifest.jsonl"
    lines = manifest.read_text().splitlines() if manifest.exists() else []
    return [json.loads(line)["status"] for line in lines]
