"""`comfymodal costs` as a process."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.unit.output.test_train_page import Page
from tests.unit.runs.cost_rows import fill

DAY_S = 86400


@pytest.fixture
def cli(tmp_path: Path, make_cli: Callable[[Path], Cli]) -> Cli:
    """In a project on Modal, with a client that cannot even be imported: nobody is asked for a report."""
    made = make_cli(tmp_path / "state")
    (made.cwd / "comfymodal.yaml").write_text("version: 1\nproject: demo\ntarget: modal\n")
    broken = made.cwd / "broken"
    broken.mkdir()
    (broken / "modal.py").write_text("raise RuntimeError('the client was imported')\n")
    return Cli(made.cwd, {**made.environ, "PYTHONPATH": str(broken)})


def ledger_of(cli: Cli) -> Path:
    return cli.state / "projects" / "demo" / "ledger.sqlite"


@pytest.fixture
def spent(cli: Cli) -> Cli:
    now = time.time()
    rows = [
        {"run_id": "a", "created_at": now - 60, "workflow": "cat.json", "billed": 2_000_000_000},
        {"run_id": "b", "created_at": now - 60, "workflow": "dog.json", "measured": 500_000_000, "idle": 1},
        {"run_id": "c", "created_at": now - 20 * DAY_S, "workflow": "old.json", "measured": 7, "idle": 0},
        {"run_id": "d", "created_at": now - 60, "workflow": "dog.json", "target": "local", "measured": 0, "idle": 0},
    ]
    fill(ledger_of(cli), rows)
    return cli


def test_without_a_ledger_the_report_is_empty_and_says_so(cli: Cli) -> None:
    done = cli("costs")

    assert (done.code, done.stderr) == (0, "")
    assert "no run is in the ledger of project demo yet; the first: comfymodal render WORKFLOW" in done.stdout


def test_json_is_one_envelope_with_money_as_text(spent: Cli) -> None:
    done = spent("costs", "--by", "workflow", "--json")

    assert done.code == 0, done.stderr
    envelope = json.loads(done.stdout)
    assert (envelope["command"], envelope["status"], envelope["errors"]) == (["costs"], "success", [])
    data = envelope["data"]
    assert [(group["key"], group["sums"]["total"]) for group in data["groups"]] == [
        ("cat.json", "2"),
        ("dog.json", "0.500000001"),
    ]
    assert (data["total"]["runs"], data["total"]["total"], data["total"]["billed_runs"]) == (3, "2.500000001", 1)
    assert (data["local_runs"], data["runs_ever"]) == (1, 4)


def test_csv_and_a_page_at_once(spent: Cli) -> None:
    done = spent("costs", "--since", "all", "--by", "run", "--top", "2", "--csv", "--html", "out/costs.html")

    assert (done.code, done.stderr) == (0, "")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["key"] for row in rows] == ["a", "b", "2"]
    assert sum(Decimal(row["total_usd"]) for row in rows) == Decimal("2.500000008")
    found = Page((spent.cwd / "out" / "costs.html").read_text())
    assert "$2.50 spent" in found.text


def test_lines_for_a_pipe_have_tabs_and_no_bars(spent: Cli) -> None:
    done = spent("costs", "--since", "30d", "--by", "gpu", "--html", "costs.html")

    assert done.code == 0, done.stderr
    assert "L40S\t3\t6\t$0.1500\t$0.5400\t$0.0080\t$2.00\t$2.50\t100%" in done.stdout
    assert "this machine\t1" in done.stdout
    assert done.stdout.endswith("page\tcosts.html\n")
    assert "█" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "owner"], "'owner' is none of day, run, workflow, gpu, kind, tag"),
        (["--since", "yesterday"], "'yesterday' is no period"),
        (["--csv", "--json"], "choose one of --csv and --json"),
        (["--open"], "there is no page without --html FILE"),
    ],
)
def test_flags_that_mean_nothing_are_refused(arguments: list[str], said: str, cli: Cli) -> None:
    done = cli("costs", *arguments)

    assert done.code == 2
    assert said in " ".join((done.stderr + done.stdout).split())
    assert not ledger_of(cli).exists()


def test_a_ledger_that_cannot_be_read_is_told(spent: Cli) -> None:
    connection = sqlite3.connect(ledger_of(spent))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    newer = spent("costs", "--json")
    ledger_of(spent).write_bytes(b"SQLite format 3\0" + bytes(4096))
    torn = spent("costs", "--csv")

    assert (newer.code, newer.error["hint"]) == (4, "upgrade: pip install -U comfymodal")
    assert torn.code == 4
    assert torn.stdout == ""
    assert "cannot use the ledger" in torn.stderr
    assert "hint: it is damaged: move it" in torn.stderr


def test_a_page_never_takes_the_place_of_a_device(spent: Cli) -> None:
    pipe = spent.cwd / "pipe"
    os.mkfifo(pipe)
    done = spent("costs", "--html", str(pipe))

    assert done.code == 3
    assert "it is a device or a pipe, not a file" in done.stderr
    assert pipe.is_fifo()


@pytest.mark.skipif(sys.platform == "win32", reason="script gives a terminal to a command")
def test_a_terminal_shows_bars(spent: Cli) -> None:
    argv = spent.argv("costs", "--by", "workflow")
    shown = terminal(argv, spent, columns=100)

    (cat,) = (line for line in shown.splitlines() if line.startswith("cat.json"))
    (dog,) = (line for line in shown.splitlines() if line.startswith("dog.json"))
    assert cat.count("█") > dog.count("█") > 0
    assert "total" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="script gives a terminal to a command")
def test_a_narrow_terminal_cuts_no_number_off(spent: Cli) -> None:
    by_run = terminal(spent.argv("costs", "--by", "run"), spent, columns=40)
    (spent.cwd / "comfymodal.yaml").write_text("version: 1\nproject: demo\ncosts: {daily_usd: 5.00}\n")
    budget = terminal(spent.argv("costs", "budget"), spent, columns=40)
    plain = [line.split("\t") for line in spent("costs", "--by", "run").stdout.splitlines()]
    plain = [row for row in plain if len(row) > 4]

    assert plain
    for row in plain:
        assert all(cell in by_run for cell in row[:-1]), (row, by_run)
    assert "$5.00" in budget
    assert "set aside" in budget


@pytest.mark.skipif(sys.platform == "win32", reason="script gives a terminal to a command")
def test_a_terminal_without_unicode_shows_escapes(spent: Cli) -> None:
    connection = sqlite3.connect(ledger_of(spent))
    with connection:
        connection.execute("UPDATE costs SET workflow = '猫' || char(10) || '.json' WHERE workflow = 'cat.json'")
    connection.close()
    shown = terminal(spent.argv("costs", "--by", "workflow"), spent, columns=100, LC_ALL="C", PYTHONUTF8="0")
    piped = spent("costs", "--by", "workflow").stdout

    assert "\\u732b" in shown
    assert "Traceback" not in shown
    # One row, one line.
    assert "猫 .json\t" in piped


def terminal(argv: list[str], cli: Cli, *, columns: int, **more: str) -> str:
    import pty

    own, other = pty.openpty()
    environ = {**cli.environ, "COLUMNS": str(columns), "PYTHONUTF8": "1", "TERM": "xterm", **more}
    with subprocess.Popen(argv, cwd=cli.cwd, env=environ, stdin=other, stdout=other, stderr=other):
        os.close(other)
        told = b""
        while True:
            try:
                piece = os.read(own, 65536)
            except OSError:  # the other end is gone
                break
            if not piece:
                break
            told += piece
    os.close(own)
    return told.decode()
