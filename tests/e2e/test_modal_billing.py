"""What Modal tells about money, through the real client against the double's bill; no engine, no project's containers.

The app has the names of a project's own, so that its calls are found, and functions that only wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from comfymodal.costs.live_rates import rates_file, read_kept
from tests.conftest import ENGINE_DATA, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python

# Deploys what a project may have, runs something in each kind of container, and waits until they are gone.
SPEND = """
import time
import modal
from waiting import RenderBox, carry

boxes = modal.App("comfymodal-money-render", tags={"comfymodal.project": "money"}, include_source=False)
source = modal.Image.debian_slim("3.11").add_local_python_source("waiting")
boxes.cls(image=source, gpu="L40S", scaledown_window=2, region="us")(RenderBox)
boxes.deploy()
files = modal.App("comfymodal-money-sync", include_source=False)
files.function(image=source, name="carry", cpu=2.0, memory=4096, scaledown_window=2, retries=1)(carry)
files.deploy()
box = modal.Cls.from_name("comfymodal-money-render", "RenderBox")
calls = [box().run.spawn(0.5), box.with_options(gpu="H100:2")().run.spawn(0.5)]
calls.append(modal.Function.from_name("comfymodal-money-sync", "carry").spawn(0.1, True))
for call in calls:
    try:
        call.get(timeout=30)
    except LookupError:
        pass
"""

WAITING = """
import time
import modal

class RenderBox:
    @modal.enter()
    def boot(self):
        time.sleep(0.3)

    @modal.method()
    def run(self, seconds):
        time.sleep(seconds)

def carry(seconds, fails):
    time.sleep(seconds)
    if fails:
        raise LookupError("as told")
"""

ASK = """
import dataclasses, json, os, sys
from pathlib import Path
from comfymodal.errors import ComfymodalError
from comfymodal.operations.context import open_context

billing = open_context(None, environ=os.environ, cwd=Path.cwd()).billing()
for line in sys.stdin:
    what, *arguments = json.loads(line)
    try:
        told = getattr(billing, what)(*arguments)
    except ComfymodalError as error:
        plain = {"error": error.to_dict(), "exit_code": error.exit_code}
    else:
        plain = [dataclasses.asdict(one) for one in told] if isinstance(told, list) else dataclasses.asdict(told)
    print(json.dumps(plain), flush=True)
"""
"""Answers questions in a process of its own: the client is one for a whole process, and its address with it."""

PROJECT = "version: 1\nproject: money\ntarget: modal\nmodal: {region: us}\n"
HOUR_S = 3600


@dataclass(frozen=True)
class World:
    cloud: ModalCloud
    cli: Cli
    _asked: subprocess.Popen[str]

    def ask(self, what: str, *arguments: object) -> Any:
        assert self._asked.stdin is not None
        assert self._asked.stdout is not None
        print(json.dumps([what, *arguments]), file=self._asked.stdin, flush=True)
        return json.loads(self._asked.stdout.readline())

    def report(self) -> list[dict[str, Any]]:
        found = self.ask("report", time.time() - HOUR_S, time.time() + 2 * HOUR_S)
        assert isinstance(found, list), found
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three containers lived, one of them for a retried failure, and are gone."""
    folder = tmp_path_factory.mktemp("billing")
    cloud = ModalCloud.start(folder / "cloud", container_python=container_python(ENGINE_DATA / "containers"))
    home = folder / "home"
    home.mkdir()
    (home / "comfymodal.yaml").write_text(PROJECT)
    (home / "waiting.py").write_text(WAITING)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "COMFYMODAL_STATE_DIR": str(folder / "state")}
    cli = Cli(home, {**environ, **cloud.environ})
    subprocess.run([sys.executable, "-c", SPEND], cwd=home, env={**cli.environ, "PYTHONPATH": str(home)}, check=True)
    until = time.monotonic() + 20
    while cloud.containers():
        assert time.monotonic() < until
        time.sleep(0.05)
    with start_asked(cli) as asked:
        yield World(cloud, cli, asked)
        asked.communicate()
    cloud.stop()
    assert "Traceback" not in cloud.log, cloud.log


def start_asked(cli: Cli, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASK],
        cwd=cli.cwd,
        env={**cli.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def ordinary_bill(world: World) -> Iterator[None]:
    yield
    world.cloud.do("bill", price=1.0, shift_s=0.0, closed="", is_late=False, collected=1.0, extra={})


def lived(world: World, app: str) -> dict[str, list[float]]:
    """Seconds of each container of an app, by GPU."""
    found: dict[str, list[float]] = {}
    for one in world.cloud.containers(None):
        if one["app"] == app:
            found.setdefault(one["gpu"], []).append(one["finished_at"] - one["process_at"])
    return found


def test_lifetimes_are_billed_by_what_was_asked_for_and_where(world: World) -> None:
    seconds = lived(world, "comfymodal-money-render")
    rows = [row for row in world.report() if row["description"] == "comfymodal-money-render"]

    assert set(seconds) == {"L40S", "H100:2"}
    # Start and idle window are paid for, too.
    assert all(each > 0.3 + 0.5 + 2 for one in seconds.values() for each in one)
    gpus = {"L40S": 1.95 * sum(seconds["L40S"]), "H100": 2 * 3.95 * sum(seconds["H100:2"])}
    billed = {name: sum(row["by_resource"][name] for row in rows) / 1e9 for name in gpus}
    assert billed == {name: pytest.approx(dollars * 1.15 / HOUR_S, rel=1e-4) for name, dollars in gpus.items()}
    assert all(row["cost"] == pytest.approx(sum(row["by_resource"].values()), abs=40) for row in rows)
    assert {row["interval_start"] % HOUR_S for row in rows} == {0}
    assert (rows[0]["environment"], rows[0]["tags"]) == ("main", {"comfymodal.project": "money"})


def test_a_container_that_lived_across_a_full_hour_is_billed_in_both(world: World) -> None:
    whole = sum(row["cost"] for row in world.report())
    spans = [(one["process_at"], one["finished_at"]) for one in world.cloud.containers(None) if one["gpu"] == "L40S"]
    middle = sum(spans[0]) / 2
    world.cloud.do("bill", shift_s=-middle % HOUR_S)
    rows = [row for row in world.report() if "L40S" in row["by_resource"]]

    assert len(rows) == 2
    assert rows[1]["interval_start"] - rows[0]["interval_start"] == HOUR_S
    halves = [row["by_resource"]["L40S"] for row in rows]
    assert halves[0] == pytest.approx(halves[1], rel=1e-3)
    assert sum(row["cost"] for row in world.report()) == pytest.approx(whole, abs=100)


def test_a_late_a_partial_and_a_strange_report_are_told_as_they_are(world: World) -> None:
    whole = sum(row["cost"] for row in world.report())
    world.cloud.do("bill", is_late=True)
    assert world.report() == []
    world.cloud.do("bill", is_late=False, collected=0.5)
    assert sum(row["cost"] for row in world.report()) == pytest.approx(whole / 2, abs=100)

    world.cloud.do("bill", collected=1.0, extra={"Tape": "0E-8", "Discount": "-0.5"})
    rows = world.report()
    assert [row["by_resource"]["Tape"] for row in rows] == [0] * len(rows)
    assert {row["by_resource"]["Discount"] for row in rows} == {-500_000_000}
    assert all(row["cost"] < 0 for row in rows)

    world.cloud.do("bill", extra={"Tape": "NaN"})
    assert {(row["cost"], row["by_resource"]["Tape"]) for row in world.report()} == {(None, None)}


def test_seconds_can_cost_dollars_and_the_month_is_summed_up(world: World) -> None:
    world.cloud.do("bill", price=1000.0)
    cost = sum(row["cost"] for row in world.report())
    month = world.ask("summary")

    assert cost > 10**10
    assert month["metered"] == month["by_kind"]["deployed_apps"] == pytest.approx(cost, rel=1e-3)
    assert month["billed"] == month["metered"] + month["adjustments"]["credits"]
    assert month["by_kind"]["volumes"] == month["adjustments"]["free_storage"] == 0


def test_calls_are_those_of_every_function_and_every_variant(world: World) -> None:
    now = time.time()
    rows = world.ask("calls", now - HOUR_S, now + 1)

    assert isinstance(rows, list), rows
    told = [(row["app"].rpartition("-")[2], row["function"], row["status"]) for row in rows]
    assert sorted(told) == [("render", "RenderBox.*", "success")] * 2 + [("sync", "carry", "failure")]
    assert rows == sorted(rows, key=lambda row: float(row["created_at"]))
    assert {row["container_id"] for row in rows} <= {one["task_id"] for one in world.cloud.containers(None)}
    boxes = [row for row in rows if row["function"] == "RenderBox.*"]
    assert all(row["startup_s"] >= 0.3 and 0.5 <= row["execution_s"] < 5 for row in boxes)
    assert all(0 < row["started_at"] - row["created_at"] < 30 for row in rows)
    assert world.ask("calls", now + 60, now + 120) == []


@pytest.mark.parametrize("status", ["PERMISSION_DENIED", "FAILED_PRECONDITION", "UNIMPLEMENTED"])
def test_a_bill_that_is_not_open_to_the_plan_is_no_failure_of_the_service(world: World, status: str) -> None:
    world.cloud.do("bill", closed=status)
    told = world.ask("report", 0, HOUR_S)
    assert (told["error"]["code"], told["exit_code"]) == ("billing_unavailable", 4)
    assert "Team and Enterprise plans" in told["error"]["message"]


def test_an_amount_that_is_no_number_and_a_service_that_is_away(world: World) -> None:
    world.cloud.do("bill", rates={"gpu_hour_cost_l40s": ""})
    told = world.cli("costs", "rates", "--refresh", "--json")
    assert (told.code, told.error["code"]) == (5, "service_failed")
    assert "is no number" in told.error["message"]

    with start_asked(world.cli, MODAL_SERVER_URL="http://127.0.0.1:9") as asked:
        away = json.loads(asked.communicate(json.dumps(["report", 0, HOUR_S]))[0])
    assert (away["error"]["code"], away["exit_code"]) == ("service_failed", 5)


def test_prices_of_the_workspace_are_asked_for_once_and_kept(world: World) -> None:
    told = {"gpu_hour_cost_l40s": "2.34", "gpu_hour_cost_h100": "0E-8", "gpu_hour_cost_z9_1tb": "3"}
    told |= {"cpu_hour_cost": "0.0473", "mem_gib_hour_cost": "0.008", "egress_gib_cost": "0.04"}
    world.cloud.do("bill", rates=told)
    refreshed = world.cli("costs", "rates", "--refresh", "--json")
    lines = dict(line.split("\t", 1) for line in world.cli("costs", "rates").stdout.splitlines())

    assert refreshed.code == 0, refreshed.stderr
    data = refreshed.json["data"]
    assert (data["source"], data["workspace"], data["region"]) == ("workspace", "double", "us")
    assert (data["told"], data["unread"]) == (told, ["egress_gib_cost"])
    assert {one["name"]: one["change"] for one in data["gpus"] if one["per_hour"]} == {"L40S": 0.1993, "Z9-1TB": None}
    assert lines["L40S"] == "$2.34\t$0.0006500\t+19.9% ($1.95 there)"
    assert lines["H100"] == "unknown\t\t$3.95 there"
    assert lines["Z9-1TB"].endswith("\tnot in it")
    assert lines["region us, eu, ap"].endswith("this project's: us")
    assert lines["prices"].startswith("of workspace double\t")

    world.cloud.do("bill", rates={"gpu_hour_cost_l40s": "0E-8"})
    useless = world.cli("costs", "rates", "--refresh", "--json")
    assert (useless.code, useless.error["message"]) == (5, "Modal told no price of any GPU")
    kept = read_kept(rates_file(world.cli.state, None, None))
    assert kept is not None
    assert kept.told == told
