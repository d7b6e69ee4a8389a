"""The report of costs over a large ledger: `pytest -m bench -s -n 0`. Nothing here can fail for being slow.

Each line is a whole process: seconds, how many times that of an empty Python, and the most memory it had.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.runs.ledger import Ledger
from comfymodal.runs.totals import GROUPINGS
from tests.conftest import Cli
from tests.unit.runs.cost_rows import ROW

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = 5
DAYS = 90
WORKFLOWS = 300


@pytest.mark.parametrize("runs", [100_000, 1_000_000], ids=["1e5", "1e6"])
def test_a_report_by_any_grouping(runs: int, make_cli: Callable[[Path], Cli], tmp_path: Path) -> None:
    cli = make_cli(tmp_path / "state")
    (cli.cwd / "comfymodal.yaml").write_text("version: 1\nproject: bench\ntarget: modal\n")
    path = cli.state / "projects" / "bench" / "ledger.sqlite"
    fill(path, runs)
    size = sum(each.stat().st_size for each in path.parent.iterdir())
    python = min(measured([sys.executable, "-c", "pass"], cli)[0] for _ in range(ROUNDS))
    print(f"\n{runs} runs, {size / 1e6:.0f} MB of ledger; an empty Python takes {python:.3f} s")
    tell("config show", [*cli.argv("config", "show", "--json")], cli, python)
    tell("costs (7 days)", [*cli.argv("costs", "--json")], cli, python)
    for by in GROUPINGS:
        tell(f"costs --by {by} --since all", cli.argv("costs", "--by", by, "--since", "all", "--json"), cli, python)
    page = tmp_path / "page.html"
    tell("costs --since all --html", cli.argv("costs", "--since", "all", "--html", page, "--json"), cli, python)


def tell(what: str, argv: list[str], cli: Cli, python: float) -> None:
    rounds = [measured(argv, cli) for _ in range(ROUNDS)]
    wall, cpu = min(each[0] for each in rounds), min(each[1] for each in rounds)
    memory = max(each[2] for each in rounds)
    print(f"{what:32} {wall:.2f} s ({cpu:.2f} of CPU), {wall / python:.0f} times an empty Python, {memory:.0f} MB")


def measured(argv: list[str], cli: Cli) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and megabytes of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=cli.cwd, env=dict(cli.environ), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    # Linux tells kilobytes, macOS bytes.
    memory = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, memory


def fill(path: Path, runs: int) -> None:
    """As a ledger is after 90 busy days: each run with a wide row and a narrow one, most billed."""
    Ledger(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    marks = ", ".join("?" * len(ROW))
    connection.executemany(f"INSERT INTO costs ({', '.join(ROW)}) VALUES ({marks})", cost_rows(runs))
    connection.execute(
        "INSERT INTO runs SELECT run_id, kind, target, status, workflow, created_at, ended_at, 'fc-01', NULL, :request,"
        " :result, measured, :rate FROM costs",
        {"request": '{"job": "%s"}' % ("x" * 900), "result": '{"outputs": "%s"}' % ("x" * 600), "rate": "{}"},
    )
    connection.execute("COMMIT")
    connection.close()


def cost_rows(runs: int) -> Iterator[tuple[Any, ...]]:
    chance, now = random.Random(runs), time.time()
    for number in range(runs):
        target = chance.choices(["modal", "local"], [9, 1])[0]
        kind = chance.choices(["render", "sync", "train"], [90, 8, 2])[0]
        gpu = "" if target == "local" or kind == "sync" else chance.choice(["L40S", "A100-80GB", "H100"])
        cost = 0 if target == "local" else chance.randrange(10**9)
        at = now - DAYS * 86400 * (1 - number / runs)
        row = {
            "run_id": f"261121-093012-{kind}-{number:07x}",
            "created_at": at,
            "kind": kind,
            "target": target,
            "status": chance.choices(["succeeded", "failed", "cancelled"], [94, 4, 2])[0],
            "workflow": f"workflow-{chance.randrange(WORKFLOWS)}.json",
            "fingerprint": f"{chance.randrange(WORKFLOWS):064x}",
            "tag": chance.choice(["", "night", "day"]),
            "gpu_asked": gpu,
            "gpu_billed": gpu,
            "container": f"ta-{number // 5:012d}",
            "began_at": at + 5,
            "ended_at": at + 40,
            "measured": cost,
            "idle": cost // 5,
            "billed": cost * 6 // 5 if number < runs * 0.9 and cost else None,
        }
        yield tuple({**ROW, **row}.values())
