"""Ctrl-C in every phase of a render on Modal: what goes on, what it costs, and what is kept."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import WORKFLOWS
from tests.e2e.modal_runs import (
    large_workflow,
    result,
    slow_workflow,
    start,
    wait_for,
    wait_for_early,
    wait_for_type,
    wait_until,
)
from tests.e2e.modal_world import ModalCli
from tests.e2e.test_render_faults import finished

MIB = 1 << 20


@pytest.fixture
def held(modal_cli: ModalCli) -> Iterator[ModalCli]:
    """No container starts and none takes a job."""
    modal_cli.cloud.do("hold_inputs", on=True)
    yield modal_cli
    modal_cli.cloud.do("hold_inputs", on=False)


def test_while_checking_nothing_happened(held: ModalCli) -> None:
    before = len(held.cloud.requests("FunctionMap"))
    process = start(held, "render", WORKFLOWS / "image.json", "--json-events")
    wait_for_type(process, "engine_looking")
    process.send_signal(signal.SIGINT)
    done = finished(process)

    assert done.code == 130, done.stderr
    assert result(done)["errors"][0]["code"] == "cancelled"
    assert len(held.cloud.requests("FunctionMap")) == before
    assert held("runs", "list", "--json").json["data"]["runs"] == []


def test_while_deploying_nothing_was_submitted(make_modal_cli: Callable[..., ModalCli]) -> None:
    cli = make_modal_cli()
    cli.cloud.do("hold_inputs", on=True)
    try:
        process = start(cli, "render", WORKFLOWS / "image.json", "--yes")
        # Published; what follows is the boot on a CPU, which does not come.
        assert process.stderr is not None
        assert any(line.startswith("deployed ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        done = finished(process)
    finally:
        cli.cloud.do("hold_inputs", on=False)

    assert done.code == 130, done.stderr
    assert f"error: interrupted while deploying {cli.app}: nothing was started on a GPU\n" in done.stderr
    assert "hint: what is deployed: comfymodal status; go on: comfymodal deploy\n" in done.stderr
    assert cli("runs", "list", "--json").json["data"]["runs"] == []
    # What was not found sound is deployed again by the next render.
    assert cli("render", WORKFLOWS / "image.json", "--no-deploy", "--json").code == 4


def test_while_submitting_it_waits_for_the_call_and_takes_it_back(held: ModalCli) -> None:
    before = len(held.cloud.requests("FunctionMap"))
    held.cloud.do("fail", rpc="FunctionMap", status="UNAVAILABLE", times=3)
    process = start(held, "render", WORKFLOWS / "image.json", "--json-events")
    wait_until(lambda: len(held.cloud.requests("FunctionMap")) > before)
    process.send_signal(signal.SIGINT)
    done = finished(process)
    cancelled = [request["body"]["function_call_id"] for request in held.cloud.requests("FunctionCallCancel")]
    (run,) = held("runs", "list", "--json").json["data"]["runs"]

    assert done.code == 130, done.stderr
    assert result(done)["data"]["run"]["status"] == run["status"] == "cancelled"
    assert len(held.cloud.requests("FunctionMap")) == before + 4
    assert cancelled[-1].startswith("fc-")


def test_queued_is_taken_back_before_a_container_starts(held: ModalCli) -> None:
    before = {one["task_id"] for one in held.cloud.containers(None)}
    taken_back = len(held.cloud.requests("FunctionCallCancel"))
    process = start(held, "render", WORKFLOWS / "image.json", "--json-events")
    run_id = wait_for_type(process, "submitted")["run_id"]
    wait_for(process, lambda event: event.get("phase") == "waiting")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    held.cloud.do("hold_inputs", on=False)
    shown = held("runs", "show", run_id, "--json")

    assert done.code == 130, done.stderr
    assert (shown.run["status"], shown.run["cost"]) == ("cancelled", None)
    assert len(held.cloud.requests("FunctionCallCancel")) == taken_back + 1
    assert {one["task_id"] for one in held.cloud.containers(None)} == before
    # Nothing stays warm for a run that no container took.
    assert result(done)["warnings"] == []


def test_running_keeps_what_is_finished_and_says_what_the_container_still_costs(
    modal_cli: ModalCli, tmp_path: Path
) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path, blurs=60), "--json-events")
    wait_for_early(process)
    process.send_signal(signal.SIGINT)
    done = finished(process)
    told = result(done)
    (output,) = told["data"]["outputs"]
    (warning,) = told["warnings"]

    assert done.code == 130, done.stderr
    assert told["data"]["run"]["status"] == "cancelled"
    assert float(told["data"]["run"]["cost"]) > 0
    assert Path(output["path"]).name.startswith("early")
    assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]
    assert "its container stays warm for 60 s, for at most $0.0" in warning
    assert "comfymodal stop" in warning


def test_second_interrupt_leaves_the_run_to_itself(modal_cli: ModalCli, tmp_path: Path) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path, blurs=60), "--json-events")
    run_id = wait_for_type(process, "submitted")["run_id"]
    wait_for_early(process)
    process.send_signal(signal.SIGINT)
    wait_for(process, lambda event: event.get("phase") == "stopping")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    error = result(done)["errors"][0]

    assert done.code == 130, done.stderr
    assert error["message"] == f"run {run_id} is stopping by itself"
    assert f"comfymodal runs fetch {run_id}" in error["hint"]
    wait_until(lambda: modal_cli("runs", "show", run_id, "--json").run["status"] == "cancelled")


@pytest.mark.soak
def test_interrupt_while_modal_is_gone_says_that_the_run_goes_on(modal_cli: ModalCli, tmp_path: Path) -> None:
    process = start(modal_cli, "render", slow_workflow(tmp_path, blurs=60), "--json-events")
    run_id = wait_for_type(process, "submitted")["run_id"]
    wait_for_early(process)
    modal_cli.cloud.go_away(3.0)
    wait_for_type(process, "service_silent")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    error = result(done)["errors"][0]
    wait_until(lambda: modal_cli("runs", "cancel", run_id).code == 0)

    assert done.code == 5, done.stderr
    assert error["message"].startswith(f"run {run_id} goes on: cannot ask the run to stop: ")
    assert error["hint"] == f"stop it: comfymodal runs cancel {run_id}"
    assert modal_cli("runs", "show", run_id, "--json").run["status"] == "cancelled"


@pytest.mark.soak
def test_attached_leaves_the_run_alone_and_says_how_to_stop_it(modal_cli: ModalCli, tmp_path: Path) -> None:
    begun = modal_cli("render", slow_workflow(tmp_path, blurs=60), "--detach", "--json")
    process = start(modal_cli, "runs", "attach", begun.run["id"], "--json-events")
    wait_for_type(process, "node")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    error = result(done)["errors"][0]
    still = modal_cli("runs", "show", begun.run["id"], "--json")
    stopped = modal_cli("runs", "cancel", begun.run["id"], "--json")

    assert done.code == 130, done.stderr
    assert error["message"] == f"run {begun.run['id']} goes on"
    assert f"comfymodal runs cancel {begun.run['id']}" in error["hint"]
    assert still.run["status"] == "running"
    assert (stopped.code, stopped.run["status"]) == (0, "cancelled")


@pytest.mark.soak
def test_download_of_200_mb_goes_on_where_it_was_interrupted(modal_cli: ModalCli, tmp_path: Path) -> None:
    before = len(modal_cli.cloud.requests("VolumeGetFile2"))
    uploads = len(modal_cli.cloud.requests("BlobCreate"))
    process = start(modal_cli, "render", large_workflow(tmp_path, latents=800), "--json-events")
    wait_for_type(process, "fetching")
    modal_cli.cloud.do("slow_blocks", bytes_per_s=20 * MIB)
    wait_for(process, lambda event: event["type"] == "fetching" and event.get("done_bytes", 0) > 8 * MIB)
    process.send_signal(signal.SIGINT)
    interrupted = finished(process)
    modal_cli.cloud.do("slow_blocks", bytes_per_s=0)
    error = result(interrupted)["errors"][0]
    (part,) = modal_cli.cwd.rglob("*.part")
    there = part.stat().st_size
    fetched = modal_cli("runs", "fetch", error["run_id"], "--json")
    (output,) = fetched.outputs
    starts = [
        int(request["body"].get("start", 0))
        for request in modal_cli.cloud.requests("VolumeGetFile2")[before:]
        if request["body"]["path"].endswith(".latent")
    ]
    with Path(output["path"]).open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()

    assert interrupted.code == 130, interrupted.stderr
    assert f"comfymodal runs fetch {error['run_id']}" in error["hint"]
    assert fetched.code == 0, fetched.stderr
    assert output["size_bytes"] > 200 * MIB * 0.99
    assert sha256 == output["sha256"]
    # The second command asked for the rest only.
    assert starts == [0, there]
    assert there > 8 * MIB
    assert not part.exists()
    # What a container returns is small: the file came from the volume.
    sizes = [int(request["body"]["content_length"]) for request in modal_cli.cloud.requests("BlobCreate")[uploads:]]
    assert max(sizes, default=0) < MIB
