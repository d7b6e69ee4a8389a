"""Speed as ratios, on the real engine: `pytest -m bench -s -n 0`. Nothing here can fail for being slow.

The other side of `whole process` is comfy-cli's `comfy`, taken from the env var COMFY or from PATH when it is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from comfymodal.comfyui.engines import EngineInstall, launch_argv
from comfymodal.comfyui.server import answers, free_port
from comfymodal.comfyui.warm import WarmEngine, find_warm
from comfymodal.jobs import render
from comfymodal.jobs.contract import Engine
from tests.conftest import WORKFLOWS, Cli

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = 15
PROMPTS = 1000
IMAGE = json.loads((WORKFLOWS / "image.json").read_text())


@pytest.fixture
def engine(cli: Cli, engine_url: str) -> WarmEngine:
    found = find_warm(cli.engine_file.parent)
    assert found is not None
    assert found.url == engine_url
    return found


def test_help_against_importing_typer(cli: Cli) -> None:
    helped = [cpu_seconds([sys.executable, "-m", "comfymodal", "--help"]) for _ in range(ROUNDS)]
    imported = [cpu_seconds([sys.executable, "-c", "import typer"]) for _ in range(ROUNDS)]
    tell("--help, CPU, against `import typer`", helped, imported, aim="2.0 or less")


def test_whole_render_against_comfy_cli(cli: Cli, engine_url: str) -> None:
    comfy = os.environ.get("COMFY") or shutil.which("comfy")
    ours: list[float] = []
    theirs: list[float] = []
    parts = urlsplit(engine_url)
    for number in range(ROUNDS):
        ours.append(wall_seconds(partial(run_ours, cli, number)))
        if comfy:
            theirs.append(wall_seconds(partial(run_theirs, cli, number, comfy, parts.port or 0)))
    if theirs:
        tell("whole render, against `comfy run --wait`", ours, theirs, aim="0.25 or less")
    else:
        print(f"\nwhole render: {statistics.median(ours):.2f} s; no comfy-cli here to compare with")


def test_one_by_one_against_the_raw_protocol(engine: WarmEngine, tmp_path: Path) -> None:
    ours, raw = [], []
    for number in range(60):
        ours.append(asyncio.run(ours_one_by_one(engine, tmp_path / f"o{number}", 1))[0])
        raw.append(asyncio.run(raw_one_by_one(engine.url, 1))[0])
    tell_difference("one prompt in one process, against the raw protocol", ours, raw, aim="+1 ms at the median")


def test_many_queued_against_the_raw_queue(engine: WarmEngine, tmp_path: Path) -> None:
    ours, raw = [], []
    for number in range(3):
        raw.append(asyncio.run(raw_queue(engine.url, PROMPTS)))
        ours.append(wall_seconds(partial(run_job, engine, tmp_path / f"m{number}", PROMPTS)))
    rates_ours = [PROMPTS / seconds for seconds in ours]
    rates_raw = [PROMPTS / seconds for seconds in raw]
    tell(f"{PROMPTS} prompts, prompts per second, against the raw queue", rates_ours, rates_raw, aim="0.97 or more")


def test_boot_against_main_py(lonely_cli: Cli, engine_install: EngineInstall, tmp_path: Path) -> None:
    ours, raw = [], []
    for number in range(3):
        raw.append(raw_boot(engine_install, tmp_path / f"b{number}"))
        done = lonely_cli("render", WORKFLOWS / "image.json", "--json-events")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        ours.append(next(event["seconds"] for event in events if event["type"] == "engine_ready"))
        stop_engine(lonely_cli)
    tell("boot to the first answer, against `python main.py`", ours, raw, aim="1.0")


def run_ours(cli: Cli, number: int) -> None:
    done = cli("render", WORKFLOWS / "image.json", "--set", f"Canvas.color={1000 + number}", "-q")
    assert done.code == 0, done.stderr


def run_theirs(cli: Cli, number: int, comfy: str, port: int) -> None:
    graph = json.loads(json.dumps(IMAGE))
    graph["1"]["inputs"]["color"] = 5000 + number
    (cli.cwd / "theirs.json").write_text(json.dumps(graph))
    environ = {**cli.environ, "DO_NOT_TRACK": "1"}
    argv = [comfy, "--skip-prompt", "run", "--workflow", "theirs.json", "--wait", "--host", "127.0.0.1"]
    done = subprocess.run(
        [*argv, "--port", str(port)], cwd=cli.cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def ours_one_by_one(engine: WarmEngine, folder: Path, count: int) -> list[float]:
    """Seconds from posting a prompt to having its result, its picture saved and hashed, in a running process."""
    from comfymodal.comfyui.client import ComfyClient
    from comfymodal.jobs.follow import Follower
    from comfymodal.jobs.manifest import Manifest

    place = BenchPlace(engine, folder)
    job = make_job(count)
    run_folder = folder / "outputs" / "runs" / job["run_id"]
    seconds = []
    async with ComfyClient(engine.url, client_id=str(uuid.uuid4())) as client:
        await client.system_stats()
        manifest = Manifest.open(run_folder, job["prompts"])
        began = time.perf_counter()
        await Follower(job=job, place=place, engine=place.engine(), client=client, manifest=manifest).follow()
        seconds.append((time.perf_counter() - began) / count)
    return seconds


async def raw_one_by_one(url: str, count: int) -> list[float]:
    """The same by hand: connect, post, wait for `executing: null`, read the history, fetch the picture."""
    import aiohttp

    client_id = str(uuid.uuid4())
    seconds = []
    async with aiohttp.ClientSession() as session:
        await (await session.get(f"{url}/system_stats")).read()
        began = time.perf_counter()
        async with session.ws_connect(f"{url}/ws?clientId={client_id}") as line:
            for graph in graphs(count):
                prompt_id = str(uuid.uuid4())
                body = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
                await (await session.post(f"{url}/prompt", json=body)).read()
                async for frame in line:
                    message = json.loads(frame.data)
                    data = message["data"]
                    if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                        break
                history = await (await session.get(f"{url}/history/{prompt_id}")).json()
                (image,) = history[prompt_id]["outputs"]["3"]["images"]
                await (await session.get(f"{url}/view", params=image)).read()
                seconds.append((time.perf_counter() - began) / count)
    return seconds


async def raw_queue(url: str, count: int) -> float:
    """Post everything, then wait for the last: nothing is fetched, nothing is saved."""
    import aiohttp

    client_id = str(uuid.uuid4())
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client_id}") as line:
        began = time.perf_counter()
        open_ids = set()
        for graph in graphs(count):
            prompt_id = str(uuid.uuid4())
            open_ids.add(prompt_id)
            body = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
            await (await session.post(f"{url}/prompt", json=body)).read()
        async for frame in line:
            message = json.loads(frame.data)
            if message["type"] == "executing" and message["data"]["node"] is None:
                open_ids.discard(message["data"]["prompt_id"])
                if not open_ids:
                    break
        return time.perf_counter() - began


def run_job(engine: WarmEngine, folder: Path, count: int) -> None:
    outcome = render.run(make_job(count), BenchPlace(engine, folder))
    assert outcome["status"] == "succeeded", outcome["error"]
    assert len(outcome["prompts"]) == count


class BenchPlace:
    """A place with folders and nothing to tell."""

    deadline: float | None = None

    def __init__(self, engine: WarmEngine, folder: Path) -> None:
        self._engine = engine
        self.volumes: Mapping[str, Path] = {"outputs": folder / "outputs", "inputs": folder / "inputs"}

    def emit(self, event: Mapping[str, Any]) -> None: ...

    def commit(self, volume: str) -> None: ...

    def reload(self, volume: str) -> None: ...

    def control(self) -> None:
        return None

    def engine(self) -> Engine:
        return self._engine


def make_job(count: int) -> dict[str, Any]:
    prompts = [{"prompt_id": str(uuid.uuid4()), "graph": graph} for graph in graphs(count)]
    return {"run_id": f"bench-{uuid.uuid4().hex[:8]}", "prompts": prompts, "inputs": []}


def graphs(count: int) -> list[dict[str, Any]]:
    """Different ones: a cached prompt is no prompt."""
    found = []
    for _ in range(count):
        graph = json.loads(json.dumps(IMAGE))
        graph["1"]["inputs"]["color"] = uuid.uuid4().int % 2**24
        found.append(graph)
    return found


def raw_boot(install: EngineInstall, folder: Path) -> float:
    folder.mkdir()
    (folder / "web").mkdir()
    port = free_port()
    argv = [*launch_argv(install), "--cpu", "--port", str(port), "--base-directory", str(folder)]
    argv += ["--front-end-root", str(folder / "web"), "--disable-all-custom-nodes", "--disable-api-nodes"]
    began = time.perf_counter()
    with (folder / "log.txt").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        while not answers(f"http://127.0.0.1:{port}", timeout_s=5):
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        process.terminate()
    return seconds


def stop_engine(cli: Cli) -> None:
    from comfymodal.comfyui.warm import stop_warm

    stop_warm(cli.engine_file.parent)


def wall_seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_seconds(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def tell(what: str, ours: list[float], theirs: list[float], *, aim: str) -> None:
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"\n{what}: {mine:.3f} / {other:.3f} = {mine / other:.2f} (aim {aim})")


def tell_difference(what: str, ours: list[float], theirs: list[float], *, aim: str) -> None:
    mine, other = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    print(f"\n{what}: {mine:.1f} ms / {other:.1f} ms, {mine - other:+.1f} ms (aim {aim})")
