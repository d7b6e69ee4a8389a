"""A measured step of an earlier training beats arithmetic, where it was the same training on the same GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfymodal.operations.train_check import TrainRequest, examine
from comfymodal.operations.train_datasets import read_places
from comfymodal.operations.train_results import NeedsView
from comfymodal.project.folders import ledger_file
from comfymodal.runs.ledger import Ledger, Run
from comfymodal.training.ai_toolkit.rewrite import Placement, rewrite
from tests.unit.operations.test_train_check import Desk
from tests.unit.runs.test_ledger import RUN
from tests.unit.training.pictures import fill

SHORT = "name: mine\nmodel: flux\ndataset: ./pictures\ntrigger: p3r5on\nresolution: 512\nsteps: 600\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "pictures")
    (tmp_path / "train.yaml").write_text(SHORT)
    (tmp_path / "comfymodal.yaml").write_text("version: 1\nproject: mine\ntarget: modal\n")
    return tmp_path


def looked(folder: Path, **flags: Any) -> tuple[NeedsView, dict[str, Any]]:
    """What a dry run says, and the config as a run would send it."""
    places = read_places(None, environ={"COMFYMODAL_STATE_DIR": str(folder / "state")}, cwd=folder)
    (run,) = examine(TrainRequest(Path("train.yaml"), folder, is_dry_run=True, **flags), places, Desk()).runs
    assert run.plan.needs is not None
    assert run.accepted.config is not None
    return run.plan.needs, rewrite(run.accepted.config, Placement("mine", device="cuda")).config


def trained(folder: Path, config: dict[str, Any], *, gpu: str = "L40S", step_s: Any = 3.0, step: int = 600) -> None:
    ledger = Ledger(ledger_file("mine", folder / "state"))
    number = len(ledger.newest(limit=99))
    run: Run = replace(
        RUN,
        id=f"t{number}",
        kind="train",
        target="modal",
        created_at=float(number),
        request={"job": {"config": config, "origin": {}}},
        rate={"gpu": gpu, "nanodollars_per_s": 1, "as_of": "x"},
    )
    ledger.add(run)
    result = {"result": {"step": step, "seconds_per_step": step_s}}
    ledger.settle(run.id, status="cancelled", ended_at=9.0, result=result)
    ledger.close()


def test_a_check_without_earlier_trainings_estimates_and_makes_no_ledger(folder: Path) -> None:
    needs, _ = looked(folder)
    assert needs.time_certainty == "estimate"
    assert not ledger_file("mine", folder / "state").exists()


def test_the_median_of_the_same_training_on_the_same_gpu_counts(folder: Path) -> None:
    _, config = looked(folder)
    for step_s in (3.0, 4.0, 100.0):
        trained(folder, config, step_s=step_s)
    needs, _ = looked(folder)
    assert (needs.step_s, needs.time_certainty) == (4.0, "measured")
    assert needs.run_s is not None
    assert needs.run_s > 600 * 4
    assert needs.cost is not None
    assert needs.cost.worst_usd is not None
    assert float(needs.cost.high_usd) < float(needs.cost.worst_usd)
    # Its own length is not what makes it alike.
    longer, _ = looked(folder, steps=1200)
    assert (longer.step_s, longer.time_certainty) == (4.0, "measured")


@pytest.mark.parametrize(
    ("of", "flags"),
    [
        pytest.param({"gpu": "H100"}, {}, id="another GPU"),
        pytest.param({"step": 3}, {}, id="hardly begun"),
        pytest.param({"step_s": None}, {}, id="never told"),
        pytest.param({"step_s": 0.0}, {}, id="no time at all"),
        pytest.param({}, {"set_": ("resolution=1024",)}, id="more pixels"),
        pytest.param({}, {"gpu": "A100-80GB"}, id="wanted on another GPU"),
    ],
)
def test_what_is_not_alike_says_nothing(of: dict[str, Any], flags: dict[str, Any], folder: Path) -> None:
    _, config = looked(folder)
    trained(folder, config, **of)
    assert looked(folder, **flags)[0].time_certainty == "estimate"


def test_configs_of_another_shape_hide_no_others(folder: Path) -> None:
    _, config = looked(folder)
    trained(folder, {"config": 5})
    trained(folder, config, step_s=3.0)
    trained(folder, {})
    assert looked(folder)[0].time_certainty == "measured"


def test_a_ledger_that_cannot_be_read_is_told_and_no_fault(folder: Path) -> None:
    path = ledger_file("mine", folder / "state")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 500)
    assert looked(folder)[0].time_certainty == "estimate"
