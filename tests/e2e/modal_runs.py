"""Runs on Modal that last long enough for something to happen to them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import HELLO, Done
from tests.e2e.modal_world import ModalCli

BLURS = 12
SIDE = 512

Event = dict[str, Any]


def slow_workflow(folder: Path, *, blurs: int = BLURS) -> Path:
    """A workflow that saves one image at once and another after `blurs` slow steps; no two renders are cached."""
    graph: dict[str, Any] = {
        "canvas": node("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=random.randrange(1 << 24)),
        "early": node("SaveImage", images=["canvas", 0], filename_prefix="early"),
        "blur0": node("ImageAddNoise", image=["canvas", 0], seed=random.randrange(1 << 40), strength=0.5),
    }
    for number in range(1, blurs + 1):
        graph[f"blur{number}"] = node("ImageBlur", image=[f"blur{number - 1}", 0], blur_radius=31, sigma=1.0)
    graph["late"] = node("SaveImage", images=[f"blur{blurs}", 0], filename_prefix="late")
    path = folder / "slow.json"
    path.write_text(json.dumps(graph))
    return path


def large_workflow(folder: Path, *, latents: int) -> Path:
    """A workflow that saves one file of a quarter of a mebibyte per latent."""
    graph = {
        "empty": node("EmptyLatentImage", width=1024, height=1024, batch_size=latents),
        "save": node("SaveLatent", samples=["empty", 0], filename_prefix="large"),
    }
    path = folder / "large.json"
    path.write_text(json.dumps(graph))
    return path


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def start(cli: ModalCli, *arguments: str | Path) -> subprocess.Popen[str]:
    """A command that heeds Ctrl-C also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return cli.start(*arguments)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(process: subprocess.Popen[str], is_wanted: Callable[[Event], bool]) -> Event:
    """The first event of which this is true."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        event: Event = json.loads(line)
        seen.append(event)
        if is_wanted(event):
            return event
    raise AssertionError(f"ended without it: {seen[-5:]} {process.stderr.read() if process.stderr else ''}")


def wait_for_type(process: subprocess.Popen[str], kind: str) -> Event:
    return wait_for(process, lambda event: event["type"] == kind)


def wait_for_early(process: subprocess.Popen[str]) -> None:
    """Until the slow workflow has saved its first image and works on the second."""
    wait_for(process, lambda event: event["type"] == "node" and str(event["node_id"]) in ("blur2", "blur3", "blur4"))


def result(done: Done) -> Event:
    """The envelope after the events."""
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def hello(cli: ModalCli) -> Done:
    """A short render that is not cached."""
    return cli("render", HELLO, "--set", f"Mountains.seed={random.randrange(1 << 30)}", "--json")


def busy_container(cli: ModalCli) -> dict[str, Any]:
    return cli.cloud.wait_for_container(lambda one: one["app"] == cli.app and one["state"] == "busy")


def comfyui_of(container: dict[str, Any]) -> psutil.Process:
    """The ComfyUI in a container, as this machine counts processes."""
    children = psutil.Process(container["pid"]).children(recursive=True)
    (found,) = [process for process in children if any("main.py" in word for word in process.cmdline())]
    return found


def wait_until(condition: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.1)
