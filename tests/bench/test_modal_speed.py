"""What comfymodal adds to a call on Modal: `pytest -m bench -s -n 0 tests/bench/test_modal_speed.py`.

The other side is the least a person would write by hand: the same deployed class, called with a job by Modal's SDK from
a fresh Python. It checks nothing, downloads nothing, and cannot be followed or repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from comfymodal.runs.names import new_run_id
from tests.bench.test_speed import tell
from tests.conftest import WORKFLOWS
from tests.e2e.conftest import make_modal_cli, modal_cloud
from tests.e2e.modal_world import ModalCli

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
__all__ = ["make_modal_cli", "modal_cloud"]

ROUNDS = 12
IMAGE = json.loads((WORKFLOWS / "image.json").read_text())
BY_HAND = """
import json, sys, modal
outcome = modal.Cls.from_name(sys.argv[1], "RenderBox")().run.remote(json.load(open(sys.argv[2])))
assert outcome["status"] == "succeeded", outcome
"""


def test_warm_render_against_the_bare_sdk(make_modal_cli: Callable[..., ModalCli], tmp_path: Path) -> None:
    cli = make_modal_cli(max_containers=1)
    assert cli("deploy", "--yes").code == 0
    ours, theirs, inside = [], [], []
    for number in range(ROUNDS + 1):
        began = time.perf_counter()
        done = cli("render", WORKFLOWS / "image.json", "--set", f"Canvas.color={number}", "--json")
        ours.append(time.perf_counter() - began)
        assert done.code == 0, done.stderr
        inside.append(done.run["phases"]["render"])
        theirs.append(by_hand(cli, tmp_path, 1000 + number))
    # The first one of each met a cold container, or warmed something up.
    tell("a warm render on Modal, against the same call by the bare SDK", ours[1:], theirs[1:], aim="1.5 or less")
    print(f"of which ComfyUI rendered {sorted(inside)[len(inside) // 2]:.3f} s")


def by_hand(cli: ModalCli, folder: Path, color: int) -> float:
    graph = json.loads(json.dumps(IMAGE))
    graph["1"]["inputs"]["color"] = color
    prompt = {"prompt_id": str(uuid.uuid4()), "graph": graph, "extra_data": {}}
    job = {"version": 1, "kind": "render", "run_id": new_run_id(time.time()), "prompts": [prompt], "inputs": []}
    (folder / "job.json").write_text(json.dumps(job))
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", BY_HAND, cli.app, str(folder / "job.json")], env=dict(cli.environ), check=True
    )
    return time.perf_counter() - began
