"""Ten ways to waste money on a GPU, tried: `pytest -m bench -s -n 0 tests/bench/test_waste.py` prints the table.

GPU seconds are those of containers with a GPU in the control plane double, from start to end: they show what is
paid for at all, not how fast a real card is.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import WORKFLOWS, Done
from tests.e2e.conftest import make_modal_cli, modal_cloud
from tests.e2e.modal_runs import slow_workflow, start
from tests.e2e.modal_world import ModalCli, write_project

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
__all__ = ["make_modal_cli", "modal_cloud"]

WINDOW = "3s"


@pytest.fixture
def cli(make_modal_cli: Callable[..., ModalCli]) -> ModalCli:
    made = make_modal_cli(scaledown_window=WINDOW)
    assert made("deploy", "--yes").code == 0
    return made


def test_ten_ways_to_waste_money(cli: ModalCli, tmp_path: Path) -> None:
    print("\n| way | command | GPU seconds | what the operator saw |\n|---|---|---|---|")
    for name, way in WAYS.items():
        before = gpu_seconds(cli)
        command, line = way(cli, tmp_path)
        settle(cli)
        print(f"| {name} | `{command}` | {gpu_seconds(cli) - before:.0f} | {line} |", flush=True)


def wrong_node(cli: ModalCli, folder: Path) -> tuple[str, str]:
    return "render unknown_node.json", said(cli("render", WORKFLOWS / "unknown_node.json", "--json"))


def missing_model(cli: ModalCli, folder: Path) -> tuple[str, str]:
    return "render missing_model.json", said(cli("render", WORKFLOWS / "missing_model.json", "--json"))


def gated_repository(cli: ModalCli, folder: Path) -> tuple[str, str]:
    graph = json.loads((WORKFLOWS / "missing_model.json").read_text())
    text = json.dumps(graph).replace(".safetensors", "-flux1-dev.safetensors")
    (folder / "flux-dev.json").write_text(text)
    return "render flux-dev.json (a gated model)", said(cli("render", folder / "flux-dev.json", "--json"))


def dead_engine(cli: ModalCli, folder: Path) -> tuple[str, str]:
    text = (cli.cwd / "comfymodal.yaml").read_text()
    (cli.cwd / "comfymodal.yaml").write_text(text.replace("[--cpu,", "[--no-such-flag, --cpu,"))
    done = cli("render", WORKFLOWS / "image.json", "--yes", "--json")
    write_project(cli.cwd, cli.project, scaledown_window=WINDOW)
    assert cli("deploy", "--yes").code == 0
    return "render --yes, comfyui.args wrong", said(done)


def out_of_memory(cli: ModalCli, folder: Path) -> tuple[str, str]:
    graph = json.loads((WORKFLOWS / "image.json").read_text())
    node = next(node for node in graph.values() if node["class_type"] == "EmptyImage")
    node["inputs"] |= {"width": 16384, "height": 16384, "batch_size": 4096}
    (folder / "huge.json").write_text(json.dumps(graph))
    return "render huge.json", said(cli("render", folder / "huge.json", "--json"))


def forgotten_container(cli: ModalCli, folder: Path) -> tuple[str, str]:
    done = cli("render", WORKFLOWS / "image.json", "--detach", "--json")
    return "render --detach, laptop closed", f"run {done.run['id']}; the container ends {WINDOW} after it by itself"


def stray_interrupt(cli: ModalCli, folder: Path) -> tuple[str, str]:
    process = start(cli, "render", slow_workflow(folder, blurs=60), "--json")
    wait_for(lambda: [one for one in cli.containers() if one["state"] == "busy"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    return "render, then Ctrl-C", last_line(cli)


def double_submit(cli: ModalCli, folder: Path) -> tuple[str, str]:
    process = start(cli, "render", slow_workflow(folder, blurs=40), "--json")
    wait_for(lambda: [one for one in cli.containers() if one["state"] == "busy"])
    process.kill()
    process.communicate()
    done = cli("runs", "fetch", "last", "--json")
    return "render, kill -9, runs fetch last", f"{done.run['status']}, rendered once"


def stall(cli: ModalCli, folder: Path) -> tuple[str, str]:
    text = (cli.cwd / "comfymodal.yaml").read_text()
    (cli.cwd / "comfymodal.yaml").write_text(f"{text}\n  stall_timeout: 5s\n")
    process = start(cli, "render", slow_workflow(folder, blurs=60), "--json")
    (busy,) = wait_for(lambda: [one for one in cli.containers() if one["state"] == "busy"])
    time.sleep(2)
    frozen = [one for one in psutil.Process(int(str(busy["pid"]))).children(recursive=True) if "main.py" in cmd(one)]
    for one in frozen:
        one.suspend()
    out, _ = process.communicate(timeout=300)
    (cli.cwd / "comfymodal.yaml").write_text(text)
    return "render, ComfyUI hangs (stall_timeout: 5s)", json.loads(out)["errors"][0]["message"].splitlines()[0]


def wrong_gpu(cli: ModalCli, folder: Path) -> tuple[str, str]:
    return "render --gpu L40", said(cli("render", WORKFLOWS / "image.json", "--gpu", "L40", "--json"))


WAYS: dict[str, Callable[[ModalCli, Path], tuple[str, str]]] = {
    "wrong node": wrong_node,
    "missing model": missing_model,
    "gated repository": gated_repository,
    "dead engine": dead_engine,
    "out of memory, again and again": out_of_memory,
    "forgotten container": forgotten_container,
    "stray Ctrl-C": stray_interrupt,
    "double submit": double_submit,
    "stall": stall,
    "wrong GPU": wrong_gpu,
}


def said(done: Done) -> str:
    return f"exit {done.code}: {done.error['message'].splitlines()[0]}"


def last_line(cli: ModalCli) -> str:
    run = cli("runs", "show", "last", "--json").run
    return f"{run['status']}, ${run['cost']}"


def gpu_seconds(cli: ModalCli) -> float:
    """Of every container of the project with a GPU, ended or not."""
    return sum(
        (float(one["finished_at"] or time.time()) - float(one["started_at"]))
        for one in cli.cloud.containers(None)
        if one["app"] == cli.app and one["gpu"] and one["started_at"]
    )


def settle(cli: ModalCli) -> None:
    """Wait until every container of the project has ended."""
    wait_for(lambda: not cli.containers(), 120)


def wait_for(look: Callable[[], Any], timeout_s: float = 60) -> Any:
    until = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.1)
    return found


def cmd(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
