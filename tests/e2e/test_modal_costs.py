"""What runs of all kinds are measured to cost, beside what the control plane bills for the same containers.

The double bills the real lifetimes of its containers, at many times Modal's prices: a second of a test must weigh as
much as a cent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import EngineInstall
from comfymodal.costs.reconcile import HOUR_S, LEAST_TOLERANCE, tolerance
from comfymodal.operations.context import open_context
from comfymodal.operations.reconcile import reconcile_costs
from comfymodal.targets.modal.recipe import SYNC_PACKAGES
from tests.conftest import ENGINE_DATA, WORKFLOWS, Cli
from tests.doubles.modal_cloud.client import ModalCloud, container_python
from tests.e2e.modal_runs import wait_for_type
from tests.e2e.modal_world import ModalCli, run_modal, start_cloud, write_project
from tests.e2e.train_world import trainer_image
from tests.e2e.training import make_world
from tests.unit.operations.sync_target import Clerk

_numbers = itertools.count(1)

MORE = """\
training: {gpu: A100-80GB, secret: standin}
sync:
  copy: {from: "models:/checkpoints", to: "outputs:/copies"}
costs: {daily_usd: 900000, tags: {early: {total_usd: 800000}}}
"""


@pytest.fixture(scope="module")
def cloud(
    engine_install: EngineInstall, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModalCloud]:
    folder = tmp_path_factory.mktemp("modal")
    python = container_python(ENGINE_DATA / "test-cache", SYNC_PACKAGES)
    made = start_cloud(folder, engine_install, image_env=trainer_image(folder, python))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    run_modal(made, environ, "volume", "create", "comfy-models")
    run_modal(made, environ, "volume", "put", "comfy-models", tiny_checkpoint, "checkpoints/tiny.ckpt")
    # Long enough that what is supposed of a container's end (`ENDING_S`) is less than 2 % of its life.
    run_modal(made, environ, "secret", "create", "standin", "STANDIN_STEP_S=0.15", "HF_TOKEN=hf_of_a_test")
    # RenderBox asks for no cores and no memory: what ComfyUI uses is billed, and we count 4 and 32.
    made.do("bill", used_with_gpu=[4, 32])
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture
def cli(cloud: ModalCloud, tmp_path: Path, make_cli: Callable[[Path], Cli]) -> ModalCli:
    made = make_world(make_cli(tmp_path / "state")).cli
    project = f"mixed{next(_numbers)}"
    write_project(made.cwd, project, scaledown_window="60s", max_containers=2, more=MORE)
    bare = {key: value for key, value in made.environ.items() if not key.startswith(("AI_TOOLKIT", "STANDIN"))}
    return ModalCli(made.cwd, {**bare, **cloud.environ}, cloud, project)


def render(cli: ModalCli, number: int) -> None:
    """One client of four is killed as soon as its run is handed over."""
    process = cli.start(
        "render", WORKFLOWS / "image.json", "--set", f"Canvas.color={number}", "--tag", "early", "--json-events"
    )
    leave(process) if number % 4 == 1 else finish(process)


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out[-2000:], err)


def leave(process: subprocess.Popen[str]) -> None:
    wait_for_type(process, "submitted")
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_until_all_ended(cli: ModalCli, number: int) -> list[dict[str, Any]]:
    give_up_at = time.monotonic() + 90
    while True:
        runs: list[dict[str, Any]] = cli("runs", "list", "--limit", "50", "--json").json["data"]["runs"]
        if len(runs) >= number and not [run for run in runs if run["status"] in ("submitting", "running")]:
            return runs
        assert time.monotonic() < give_up_at, runs
        time.sleep(0.5)


def wait_until_old(cloud: ModalCloud, cli: ModalCli, seconds: float) -> None:
    """What is supposed of a container's end (`ENDING_S`) must be little beside its life."""
    boxes = [found for found in cloud.containers(None) if found["app"] == f"comfymodal-{cli.project}-render"]
    born_at = max(found["process_at"] for found in boxes if found["is_alive"])
    time.sleep(max(0.0, born_at + seconds - time.time()))


def without_a_bill(cli: ModalCli, cloud: ModalCloud, run_id: str, number: int) -> None:
    """Where the plan has no bill, a run whose end nobody saw gets its seconds from Modal's history of calls."""
    path = Path(cli.environ["COMFYMODAL_STATE_DIR"]) / "projects" / cli.project / "ledger.sqlite"
    columns = "measured, run_s, start_s, container"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (before,) = connection.execute(f"SELECT {columns} FROM costs WHERE run_id = ?", (run_id,))
        connection.execute(
            "UPDATE costs SET measured = NULL, run_s = NULL, start_s = NULL, container = '' WHERE run_id = ?", (run_id,)
        )
        cloud.do("bill", closed="PERMISSION_DENIED")
        done = cli("costs", "reconcile", "--json")
        cloud.do("bill", closed="")
        (after,) = connection.execute(f"SELECT {columns} FROM costs WHERE run_id = ?", (run_id,))
    assert done.code == 0, done.stdout
    assert (done.json["data"]["source"], done.json["data"]["statuses"]) == ("calls", {"unavailable": number})
    assert "call history" in done.json["warnings"][0]
    assert after[3] == before[3]
    assert abs(after[1] - before[1]) < 1
    assert after[0] > 0


def print_lives(cli: ModalCli, cloud: ModalCloud) -> None:
    """What each container was billed for, and what of it the ledger knows: where the two differ is seen here."""
    path = Path(cli.environ["COMFYMODAL_STATE_DIR"]) / "projects" / cli.project / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        known = dict(
            connection.execute(
                "SELECT container, sum(start_s + run_s + lost_s + idle_s) FROM costs WHERE container <> '' GROUP BY 1"
            )
        )
    for found in cloud.containers(None):
        if cli.project in found["app"] and found["finished_at"]:
            life, ending = (found["finished_at"] - found[key] for key in ("process_at", "told_at"))
            ours = known.get(found["task_id"], 0)
            print(f"{found['app']} {found['function']}: {life:.2f} s, known {ours:.2f} s, took {ending:.2f} s to end")


@pytest.mark.parametrize(
    ("renders", "syncs", "trainings", "price"),
    [
        # Containers that live for a minute, half a second more or less at their ends, and an inspection beside them.
        pytest.param(2, 1, 1, 25.0, id="four"),
        pytest.param(13, 4, 3, 50.0, marks=[pytest.mark.soak, pytest.mark.timeout(900)], id="twenty"),
    ],
)
def test_mixed_runs_are_measured_to_cost_what_is_billed(
    renders: int, syncs: int, trainings: int, price: float, cli: ModalCli, cloud: ModalCloud
) -> None:
    cloud.do("bill", price=price)
    deployed = cli("deploy", "--yes")
    assert deployed.code == 0, deployed.stderr
    assert cli("costs", "rates", "--json").json["data"]["source"] == "workspace"
    # Of a few, one after the other: a second container would be started, and billed, for one that may never reach it.
    with ThreadPoolExecutor(1 if renders == 2 else 2) as pool:
        for done in [pool.submit(render, cli, number) for number in range(renders)]:
            done.result()
    for number in range(syncs):
        process = cli.start("sync", "copy", "--yes", "--json-events")
        leave(process) if number == 2 else finish(process)
    for number in range(trainings):
        process = cli.start("train", "train.yaml", "--name", f"lora{number}", "--yes", "--no-publish", "--json-events")
        # The last: for one that waits, another container is started, billed, and not used when the first is free.
        leave(process) if number == 2 else finish(process)
    # What sent the pictures was done on this machine, and costs nothing.
    runs = [run for run in wait_until_all_ended(cli, renders + syncs + trainings) if run["target"] == "modal"]
    assert {run["status"] for run in runs} == {"succeeded"}
    assert [run for run in runs if run["cost"] is None or Decimal(run["cost"]) <= 0] == []
    without_a_bill(cli, cloud, runs[-1]["id"], len(runs))
    wait_until_old(cloud, cli, 55)
    stopped = cli("stop", "--yes", "--json")
    assert stopped.code == 0, stopped.stderr

    # Four hours from now, nobody expects more of the hours in which they ran.
    context = open_context(None, environ=cli.environ, cwd=cli.cwd)
    os.environ.update(cloud.environ)
    found = reconcile_costs(context, Clerk(), since=time.time() - HOUR_S, now=time.time() + 4 * HOUR_S)
    measured, billed = (round(Decimal(usd) * 10**9) for usd in (found.measured, found.billed or "0"))
    print_lives(cli, cloud)
    print(f"measured ${found.measured}, billed ${found.billed}, unattributed ${found.unattributed}")
    assert tolerance(billed) > LEAST_TOLERANCE, "so little that more than 2 % would be let pass"
    assert abs(billed - measured) <= tolerance(billed)
    assert found.statuses == {"matched": len(runs)}
    assert found.exit_code == 0

    report = cli("costs", "--by", "kind", "--since", "all", "--json").json["data"]
    assert Decimal(report["total"]["billed"]) == Decimal(found.billed or "0")
    tags = cli("costs", "--by", "tag", "--since", "all", "--json").json["data"]["groups"]
    assert {group["key"]: group["sums"]["runs"] for group in tags}["early"] == renders
    assert context.ledger.reserved() == 0
    budget = cli("costs", "budget", "--json")
    assert json.loads(budget.stdout)["data"]["budgets"][1]["spent"] != "0"
