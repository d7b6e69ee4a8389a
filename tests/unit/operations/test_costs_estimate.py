"""`costs estimate`: from a ledger and tables alone; what is not known is said, never 0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.rates import container_rate, parse_gpu, sync_rate
from comfymodal.errors import NotFoundError, NotReadyError, TrainingConfigError, UsageError, WorkflowError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.costs_estimate import RenderWish, estimate_render
from comfymodal.operations.costs_estimate_others import estimate_syncs, estimate_training
from comfymodal.operations.costs_estimate_results import CostsEstimated, EstimateRow
from comfymodal.operations.desk import Question, Setup
from comfymodal.operations.money import price_run
from comfymodal.operations.train_check import TrainRequest
from comfymodal.workflow.graph import read_workflow
from tests.unit.runs.test_history import ran
from tests.unit.training.pictures import fill

GRAPH = {"1": {"class_type": "KSampler", "inputs": {"seed": 1}}}
PROJECT = """version: 1
project: demo
target: modal
remotes: {store: {type: b2, bucket: models}}
sync:
  models: {from: "store:comfy", to: "models:/"}
  renders: {from: "outputs:/", to: "store:renders"}
  here: {from: "./pictures", to: "./copies"}
"""
L40S = container_rate([parse_gpu("L40S")])


class Clerk:
    """Fulfils `operations.desk.Desk`; nothing may be asked."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def event(self, event: Mapping[str, Any]) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def agree(self, setup: Setup) -> bool:
        raise AssertionError("nothing is set up")

    def confirm(self, question: Question) -> bool:
        raise AssertionError("nothing is asked")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "comfymodal.yaml").write_text(PROJECT)
    (tmp_path / "w.json").write_text(json.dumps(GRAPH))
    fill(tmp_path / "pictures")
    environ = {"COMFYMODAL_STATE_DIR": str(tmp_path / "state")}
    return open_context(None, environ=environ, cwd=tmp_path)


def sha(context: Context) -> str:
    return read_workflow(context.folder / "w.json").sha256


def rendered(context: Context, number: int, run_s: float = 20.0, **more: Any) -> None:
    ran(context.ledger, number, run_s, sha256=sha(context), **more)


def told(context: Context, clerk: Clerk | None = None, **wish: Any) -> CostsEstimated:
    return estimate_render(RenderWish(context.folder / "w.json", **wish), context, clerk or Clerk())


def nano(usd: str | None) -> int:
    assert usd is not None
    return int(Decimal(usd) * 10**9)


def test_without_a_run_only_the_worst_is_known(context: Context) -> None:
    clerk = Clerk()
    (row,) = told(context, clerk).rows
    assert (row.name, row.low_usd, row.typical_usd, row.high_usd, row.per_item_usd) == ("L40S", None, None, None, None)
    assert nano(row.worst_usd) == L40S.cost(600 + 3600 - 30 + 60)
    assert (row.basis, row.fits, row.samples) == ("not known: no run of it there yet", None, 0)
    assert clerk.warnings == [
        "no engine was ever asked about its nodes here: whether it takes this workflow is not checked"
    ]


def test_earlier_runs_say_what_the_next_one_costs(context: Context) -> None:
    for number, run_s in enumerate((18.0, 20.0, 26.0)):
        rendered(context, number, run_s, start_s=51.0)
    (row,) = told(context).rows
    assert (row.samples, row.basis, row.run_s, row.startup_s) == (3, "3 runs", 20.0, 51.0)
    assert [nano(amount) for amount in (row.low_usd, row.typical_usd, row.high_usd)] == [
        L40S.cost(129),
        87_172_640,
        L40S.cost(137),
    ]
    parts = (row.startup_usd, row.run_usd, row.idle_usd)
    assert sum(map(nano, parts)) == nano(row.typical_usd) == nano(row.gpu_usd) + nano(row.cpu_memory_usd)
    assert row.overhead == 6.55
    assert nano(row.cpu_memory_usd) / nano(row.typical_usd) == pytest.approx(0.1855, abs=0.0001)


def test_of_many_prompts_each_costs_less(context: Context) -> None:
    rendered(context, 1, 20.0, start_s=51.0)
    (row,) = told(context, items=40).rows
    assert nano(row.typical_usd) == L40S.cost(911)
    assert nano(row.per_item_usd) == L40S.cost(911) // 40
    assert row.overhead == 1.139


def test_more_than_the_timeout_allows_is_said(context: Context) -> None:
    rendered(context, 1, 20.0)
    (row,) = told(context, items=1000).rows
    assert row.basis == "1 run; comfyui.timeout ends it before it is done"
    assert nano(row.typical_usd) < nano(row.worst_usd)


def test_gpus_are_compared_by_what_each_did_itself(context: Context) -> None:
    rendered(context, 1, 20.0, start_s=10.0, result={"engine": {"peak_vram_bytes": 45_500_000_000}})
    rendered(context, 2, 8.0, gpu="H100", start_s=12.0)
    l40s, h100, a100, nonsense = told(context, gpus=("L40S", "H100", "A100-80GB", "RTX 9090")).rows
    assert (l40s.run_s, h100.run_s) == (20.0, 8.0)
    assert h100.elsewhere_s == {"L40S": 20.0}
    assert (a100.typical_usd, a100.basis) == (None, "not known: no run of it there yet, 8 s on H100, 20 s on L40S")
    assert nano(a100.worst_usd) > nano(l40s.worst_usd)
    assert (l40s.fits, h100.fits, a100.fits) == (True, True, True)
    assert (nonsense.is_known, nonsense.usd_per_hour, nonsense.worst_usd) == (False, None, None)
    assert nonsense.basis.startswith("unknown: RTX 9090 is not a GPU of Modal")


@pytest.mark.parametrize(
    ("peak", "fits"),
    [
        pytest.param(None, None, id="never seen"),
        pytest.param(22_800_000_000, True, id="just fits"),
        pytest.param(22_800_000_001, None, id="more than is sure"),
    ],
)
def test_it_fits_only_where_that_was_seen(peak: int | None, fits: bool | None, context: Context) -> None:
    rendered(context, 1, result={"engine": {"peak_vram_bytes": peak}})
    (row,) = told(context, gpus=("L4",)).rows
    assert (row.vram_gb, row.fits) == (24, fits)


def test_of_a_list_of_gpus_the_runs_on_any_count_at_the_price_of_the_dearest(context: Context) -> None:
    (context.folder / "comfymodal.yaml").write_text(PROJECT + "comfyui: {gpu: [L40S, A100-80GB]}\n")
    context = context.reopen({})
    rendered(context, 1, 20.0)
    rendered(context, 2, 14.0, gpu="A100-80GB")
    (row,) = told(context).rows
    assert (row.name, row.per_hour, row.samples, row.run_s) == ("L40S or A100-80GB", "up to $2.94/h", 2, 17.0)


def test_what_leaves_modal_is_counted(context: Context) -> None:
    assert told(context).egress is None
    rendered(context, 1, result={"outputs": [{"size_bytes": 1 << 30}]})
    found = told(context, items=3).egress
    assert found is not None
    assert (found.size_bytes, found.usd) == (3 << 30, "0.12")


def test_on_this_machine_nothing_is_paid_unless_gpus_are_named(context: Context) -> None:
    local = context.reopen({"target": "local"})
    assert told(local).rows == ()
    assert "nothing is paid" in told(local).notes[0]
    (row,) = told(local, gpus=("H100",)).rows
    assert nano(row.worst_usd) > 0


def test_overrides_are_applied_and_their_limits_told(context: Context) -> None:
    assert "whatever was set" in " ".join(told(context, overrides=("1.seed=5",)).notes)
    with pytest.raises((WorkflowError, UsageError)):
        told(context, overrides=("7.seed=5",))


def test_a_render_is_told_the_same_before_it_starts(context: Context) -> None:
    for number, run_s in enumerate((18.0, 20.0, 26.0)):
        rendered(context, number, run_s, start_s=51.0)
    (row,) = told(context).rows
    run = context.ledger.newest(limit=1)[0]
    run = _again(run.request, context)
    priced, price = price_run(run, context, None, max_cost=None)
    assert price is not None
    expected = price.expected
    assert [nano(row.low_usd), nano(row.typical_usd), nano(row.high_usd), nano(row.worst_usd)] == [
        expected.low,
        expected.typical,
        expected.high,
        expected.worst,
    ]
    event = price.event(context.modal_spec())
    assert (event["low"], event["typical"], event["high"]) == ("$0.0858", "$0.0872", "$0.0912")
    assert (event["samples"], event["basis"], event["typical_usd"]) == (3, "3 runs", "0.08717264")
    assert priced.rate is not None


def _again(request: Mapping[str, Any], context: Context) -> Any:
    from dataclasses import replace

    from tests.unit.runs.test_ledger import RUN

    job: dict[str, Any] = {"prompts": [{}], "gpu": None, "origin": {}}
    return replace(RUN, id="next", target="modal", request={**request, "job": job})


def test_a_damaged_ledger_is_our_error(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "state" / "projects" / "demo" / "ledger.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 500)
    with pytest.raises(NotReadyError, match="ledger"):
        told(context)


def test_syncs_cost_what_they_did_before(context: Context) -> None:
    for number, run_s in enumerate((100.0, 140.0)):
        ran(context.ledger, number, run_s, kind="sync", title="sync models", gpu="", sha256="", start_s=2.0)
    models, renders, here = estimate_syncs((), context, Clerk()).rows
    assert nano(models.typical_usd) == sync_rate().cost(2 + 120 + 20)
    assert (models.samples, models.fits, models.vram_gb) == (2, None, None)
    assert (renders.typical_usd, renders.basis) == (None, "not known: no run of it there yet")
    assert nano(renders.worst_usd) == sync_rate().cost(60 + 86_370 + 20)
    assert (here.typical_usd, here.worst_usd, here.basis) == ("0", "0", "it runs on this machine")
    assert [row.name for row in estimate_syncs(("renders",), context, Clerk()).rows] == ["renders"]
    with pytest.raises(NotFoundError, match="no sync pair"):
        estimate_syncs(("nonsense",), context, Clerk())


SHORT = "name: mine\nmodel: flux\ndataset: ./pictures\ntrigger: p3r5on\nresolution: 512\nsteps: 600\n"


def training(context: Context, text: str = SHORT, gpus: tuple[str, ...] = ()) -> CostsEstimated:
    (context.folder / "train.yaml").write_text(text)
    return estimate_training(TrainRequest(Path("train.yaml"), context.folder), gpus, context, Clerk())


def amounts(row: EstimateRow) -> list[int]:
    return [nano(amount) for amount in (row.low_usd, row.typical_usd, row.high_usd, row.worst_usd)]


def test_a_training_is_estimated_on_the_gpu_it_would_have(context: Context) -> None:
    (row,) = training(context).rows
    assert (row.name, row.basis, row.samples) == ("L40S", "an estimate, nothing measured", 0)
    assert amounts(row) == sorted(amounts(row))
    assert (row.fits, row.memory) == (True, "about 24 GB (documented)")


def test_trainings_are_compared_on_gpus(context: Context) -> None:
    l40s, h100, nonsense = training(context, gpus=("L40S", "H100", "FOO")).rows
    assert l40s.run_s is not None
    assert h100.run_s is not None
    assert h100.run_s < l40s.run_s
    assert not nonsense.is_known


def test_a_sweep_is_all_of_its_runs(context: Context) -> None:
    (one,) = training(context).rows
    swept = training(context, SHORT + "sweep: {lr: [1e-4, 2e-4, 4e-4]}\n")
    (row,) = swept.rows
    assert swept.items == 3
    assert amounts(row) == [3 * amount for amount in amounts(one)]
    assert row.per_item_usd == one.typical_usd


def test_a_training_that_is_wrong_is_not_estimated(context: Context) -> None:
    with pytest.raises(TrainingConfigError) as caught:
        training(context, SHORT.replace("steps: 600", "steps: many"))
    assert "--check" in str(caught.value.hint)


def test_a_training_here_costs_nothing(context: Context) -> None:
    assert training(context.reopen({"target": "local"})).rows == ()
