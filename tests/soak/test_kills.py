"""Kill anything at any moment, run it again, it goes on: `pytest -m soak -s`.

After each kill the next command must work, no finished output may be lost, and none may come twice.
ROUNDS (env var) changes how many kills there are; the seed is printed, and taken from SEED.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import WORKFLOWS, Cli, Done

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("ROUNDS", "160"))
SEED = int(os.environ.get("SEED", "20261121"))
PHASES = ("boot", "prompt", "download")
VICTIMS = ("client", "worker", "engine", "supervisor", "everything")


def test_random_kills(lonely_cli: Cli) -> None:
    chance = random.Random(SEED)
    print(f"\nseed {SEED}, {ROUNDS} rounds")
    endings: collections.Counter[str] = collections.Counter()
    make_workflow(lonely_cli)
    for number in range(ROUNDS):
        phase, victim = chance.choice(PHASES), chance.choice(VICTIMS)
        if phase == "boot":
            stop_engine(lonely_cli)
        elif not list((lonely_cli.state / "engines").glob("*/engine.json")):
            assert lonely_cli("render", WORKFLOWS / "image.json").code == 0
        colour = str(chance.randrange(2**24))
        process = lonely_cli.start("render", "soak.json", "--set", f"Canvas.color={colour}", "--json-events")
        hit = strike(lonely_cli, process, phase, victim, chance)
        process.communicate(timeout=120)
        ending = check_round(lonely_cli, f"round {number}: {victim} killed in {phase} ({hit})")
        endings[f"{phase:<8} {victim:<10} -> {ending}"] += 1
    for line, count in sorted(endings.items()):
        print(f"{count:4d}  {line}")
    assert_nothing_runs_on(lonely_cli)


def make_workflow(cli: Cli) -> None:
    """Three pictures, the last after about a second of blurring: long enough to be hit anywhere."""
    graph = {
        "1": node("EmptyImage", "Canvas", width=512, height=512, batch_size=1, color=0),
        "2": node("SaveImage", "First", images=["1", 0], filename_prefix="first"),
    }
    previous = "1"
    for number in range(3, 7):
        graph[str(number)] = node("ImageBlur", f"Blur {number}", image=[previous, 0], blur_radius=8, sigma=3.0)
        previous = str(number)
    graph["7"] = node("SaveImage", "Second", images=[previous, 0], filename_prefix="second")
    graph["8"] = node("ImageInvert", "Invert", image=[previous, 0])
    graph["9"] = node("SaveImage", "Third", images=["8", 0], filename_prefix="third")
    (cli.cwd / "soak.json").write_text(json.dumps(graph))


def node(class_type: str, title: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def strike(cli: Cli, process: subprocess.Popen[str], phase: str, victim: str, chance: random.Random) -> str:
    """Wait for the phase, a random moment more, and kill; return what was hit."""
    wanted = {"boot": "engine_starting", "prompt": "prompt_started", "download": "prompt_saving"}[phase]
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["type"] in (wanted, "result"):
            break
    time.sleep(chance.uniform(0, {"boot": 5.0, "prompt": 0.4, "download": 0.1}[phase]))
    names = ("client", "worker", "engine", "supervisor") if victim == "everything" else (victim,)
    hit = []
    for name in names:
        for pid in pids(cli, process, name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            hit.append(name)
    return "+".join(hit) or "too late"


def pids(cli: Cli, process: subprocess.Popen[str], name: str) -> list[int]:
    if name == "client":
        return [process.pid] if process.poll() is None else []
    if name == "worker":
        call_id = newest_call(cli)
        return [int(call_id.partition("@")[0])] if call_id else []
    notes = list((cli.state / "engines").glob("*/engine.json"))
    found = [json.loads(note.read_text()).get({"engine": "process"}.get(name, name)) for note in notes]
    return [identity["pid"] for identity in found if identity]


def newest_call(cli: Cli) -> str | None:
    path = cli.state / "projects" / "default" / "ledger.sqlite"
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT call_id FROM runs ORDER BY created_at DESC LIMIT 1").fetchone()
    finally:
        connection.close()
    return row[0] if row else None


def check_round(cli: Cli, what: str) -> str:
    """The next command works; the run that was hit is whole, or says what it lacks and can be repeated."""
    plain = cli("render", WORKFLOWS / "image.json", "--json")
    assert plain.code == 0, f"{what}: next render: {plain.stderr} {plain.stdout}"
    runs = cli("runs", "list", "--limit", "2", "--json").json["data"]["runs"]
    hit_run = next((run for run in runs if run["title"] == "soak.json"), None)
    if hit_run is None:
        return "killed before it was submitted"
    fetched = cli("runs", "fetch", hit_run["id"], "--json")
    if fetched.code == 0:
        assert_whole(fetched, what)
        return "whole"
    assert fetched.code in (5, 6), f"{what}: fetch: {fetched.code} {fetched.stdout}"
    again = cli("runs", "again", hit_run["id"], "--json")
    assert again.code == 0, f"{what}: again: {again.stdout}"
    assert_whole(again, what)
    return "repeated"


def assert_whole(done: Done, what: str) -> None:
    assert [output["title"] for output in done.outputs] == ["First", "Second", "Third"], f"{what}: {done.outputs}"
    paths = {Path(output["path"]) for output in done.outputs}
    assert len(paths) == 3, what
    for output in done.outputs:
        data = Path(output["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == output["sha256"], what
    folder = next(iter(paths)).parent
    left = {path.name for path in folder.iterdir()} - {path.name for path in paths} - {"receipt.json"}
    assert not left, f"{what}: also there: {left}"


def stop_engine(cli: Cli) -> None:
    from comfymodal.comfyui.warm import stop_warm

    for folder in (cli.state / "engines").glob("*"):
        stop_warm(folder)


def assert_nothing_runs_on(cli: Cli) -> None:
    """After the engine is stopped no process of ours is left that nobody would ever end."""
    stop_engine(cli)
    give_up_at = time.monotonic() + 30
    while left := [process for process in psutil.process_iter(["cmdline"]) if belongs(process, cli)]:
        assert time.monotonic() < give_up_at, [process.info["cmdline"] for process in left]
        time.sleep(0.5)


def belongs(process: psutil.Process, cli: Cli) -> bool:
    return any(str(cli.state) in word for word in process.info["cmdline"] or ())
