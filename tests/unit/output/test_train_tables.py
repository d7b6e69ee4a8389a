"""What a person reads of `train` and `datasets`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfymodal.operations.train_results import (
    CostView,
    DatasetChecked,
    DatasetPushed,
    DatasetRow,
    DatasetsListed,
    DatasetView,
    NeedsView,
    ProblemView,
    TrainChecked,
    TrainFixed,
    TrainPlan,
    ValueChange,
)
from comfymodal.output.train_tables import train_end, train_lines, train_table

TRAINING: dict[str, Any] = {
    **{"arch": "flux", "base_model": "me/model", "is_full_finetune": False, "rank": 16, "steps": 2000, "lr": 1e-4},
    **{"batch_size": 2, "gradient_accumulation": 2, "save_every": 250, "keep_saves": 4, "sample_every": None},
}
TABLE: dict[str, Any] = {
    "resolution": 512,
    "batches": 9,
    "buckets": [{"width": 64 * edge, "height": 512, "pictures": edge} for edge in range(6, 0, -1)],
}
SEEN = DatasetView("./pics", "this machine", True, 20, 1, 18, 2_500_000, "ab", (TABLE,))
NEEDS = NeedsView(
    gpu="L40S",
    gpu_from="--gpu",
    vram_gb=48,
    memory_gb=24,
    memory_certainty="documented",
    memory_source="an example",
    verdict="fits",
    gpus=("L40S",),
    host_memory_gb=64,
    download_gb=34.1,
    scratch_gb=1.0,
    volume_gb=0.5,
    step_s=2.0,
    run_s=4020,
    run_low_s=2000,
    run_high_s=8000,
    time_certainty="estimate",
    risk_s=500,
    cost=CostView("1", "0.5", "2", "about $1.00 ($0.50 to $2.00)", "$2.40/h", "2026-10-07"),
)
CHANGE = ValueChange("train.lr", None, "0.0001", "the sweep")
PLAN = TrainPlan("mine", "", TRAINING, NEEDS, 12.5, 160.0, (SEEN,), (CHANGE,))
ERROR = ProblemView("error", "no_job", "t.yaml:1:1", "job", "is missing", "put it there")
WARNING = ProblemView("warning", "few", "t.yaml:3:1", "datasets[0]", "3 pictures", None, (), ("mine--r8",))
NOTE = ProblemView("info", "passed_over", "", "", "2 files passed over")


def checked(*plans: TrainPlan, problems: tuple[ProblemView, ...] = (), can_fix: bool = False) -> TrainChecked:
    return TrainChecked("t.yaml", "short", problems, plans or (PLAN,), can_fix, None, 0)


def rows(result: object) -> list[tuple[str, ...]]:
    found = train_table(result)
    assert found is not None
    return found[1]


def test_problems_stand_above_with_their_place_and_hint() -> None:
    result = checked(problems=(ERROR, WARNING, NOTE), can_fix=True)
    assert train_lines(result) == [
        "t.yaml:1:1: job: is missing",
        "  hint: put it there",
        "warning: t.yaml:3:1: datasets[0]: 3 pictures (only mine--r8)",
        "note: 2 files passed over",
    ]
    assert rows(result)[0] == ("config", "t.yaml (short form): 1 problem and 1 warning")
    assert train_end(result) == ["hint: comfymodal train t.yaml --fix writes a corrected copy"]
    assert train_end(checked()) == []


def test_a_plan_is_told_line_by_line() -> None:
    assert rows(checked()) == [
        ("config", "t.yaml (short form): ok"),
        ("name", "mine"),
        ("model", "flux, me/model"),
        ("trains", "a LoRA of rank 16, 2000 steps of 4 pictures, lr 0.0001"),
        ("saves", "every 250 steps, 4 are kept, no samples"),
        ("dataset", "./pics: 20 pictures, 1 video, 18 captions, 2.5 MB, this machine"),
        ("  at 512", "6 of 384x512, 5 of 320x512, 4 of 256x512, 3 of 192x512, 2 of 128x512, 1 of 64x512; 9 batches"),
        ("epoch", "12.5 steps; 2000 steps are 160 epochs"),
        ("GPU", "L40S (--gpu): fits: needs about 24 of 48 GB (documented, an example)"),
        ("memory", "64 GB beside the GPU"),
        ("disk", "34.1 GB to download once, 1 GB local, 0.5 GB kept (estimate)"),
        ("time", "about 1:07 h, 33:20 min to 2:13 h (estimate)"),
        ("at risk", "8:20 min of work between two saves"),
        ("cost", "about $1.00 ($0.50 to $2.00) at $2.40/h, prices of 2026-10-07"),
        ("change", "train.lr: nothing -> 0.0001 (the sweep)"),
    ]


def test_of_many_sizes_the_fullest_are_shown() -> None:
    buckets = [*TABLE["buckets"], {"width": 32, "height": 512, "pictures": 1}]
    seen = replace(SEEN, tables=({**TABLE, "buckets": buckets},))
    assert rows(DatasetChecked(seen, "flux", (), None, 0))[-1][1].endswith("1 of 64x512, 1 more size; 9 batches")


def test_of_a_sweep_each_run_has_a_line() -> None:
    other = replace(PLAN, name="mine--r8", settings="network.linear=8")
    bare = replace(other, name="mine--r9", needs=None)
    told = rows(checked(PLAN, other, bare))
    assert told[1] == ("sweep", "3 runs; the figures below are of the first")
    assert told[-2] == ("mine--r8", "network.linear=8, about 1:07 h, about $1.00 ($0.50 to $2.00)")
    assert told[-1] == ("mine--r9", "network.linear=8")


def test_what_is_not_known_is_not_made_up() -> None:
    away = DatasetView("volume:/x", "volume comfy-datasets", False)
    unknown = ("memory_gb", "host_memory_gb", "scratch_gb", "run_s", "risk_s", "cost")
    nothing: dict[str, Any] = dict.fromkeys(unknown)
    plan = replace(PLAN, steps_per_epoch=None, datasets=(away,), needs=replace(NEEDS, **nothing), changes=())
    assert rows(checked(plan))[5:] == [
        ("dataset", "volume:/x, volume comfy-datasets: not looked at"),
        ("GPU", "L40S (--gpu): has 48 GB; what this model needs is not known"),
    ]


def test_a_fix_says_what_it_did_and_where() -> None:
    long = ValueChange("sample.prompts", "1", '"' + "x" * 99 + '"', "why")
    fixed = TrainFixed("t.yaml", "t.fixed.yaml", (CHANGE, long), ("the folder",), (WARNING,), None, 0)
    assert rows(fixed)[1][1] == f'sample.prompts: 1 -> "{"x" * 56}... (why)'
    assert rows(fixed)[2:] == [
        ("look at", "the folder"),
        ("written", "t.fixed.yaml (comments are not carried over): 1 warning"),
    ]
    assert rows(replace(fixed, written=None))[-1] == ("nothing written", "it would be: 1 warning")
    assert rows(replace(fixed, written=None, changes=(), problems=(ERROR,))) == [
        ("t.yaml", "there is nothing that --fix can mend: 1 problem")
    ]


def test_datasets_checked_and_listed() -> None:
    assert rows(DatasetChecked(SEEN, "t.yaml (flux)", (), None, 0))[0] == ("rules", "of t.yaml (flux)")
    listed = DatasetsListed("folder /d", (DatasetRow("people", 3, 0, 2, 900), DatasetRow("", 0, 1, 0, 100)), 1000)
    assert rows(listed) == [
        ("people", "3 pictures", "2 captions", "900 B"),
        ("(no folder)", "0 pictures, 1 video", "0 captions", "100 B"),
        ("2 datasets in folder /d", "", "", "1.0 kB"),
    ]


def test_a_dataset_that_was_pushed_says_what_configs_call_it() -> None:
    pushed = DatasetPushed("volume:/people", "volume v", SEEN, "flux", (), 2, 9, 1, 900, False, None, 0)
    assert rows(pushed)[-1] == ("volume:/people", "2 files sent (900 B), 9 there before, 1 deleted, in volume v")
    assert train_end(pushed) == ["a training config now may say: dataset: volume:/people"]
    planned = replace(pushed, is_dry_run=True, same=0)
    assert rows(planned)[-1] == ("volume:/people", "2 files would be sent (900 B), 1 would be deleted, in volume v")
    assert train_end(planned) == []
    refused = replace(pushed, error={"code": "input_file", "message": "x", "hint": None}, exit_code=3)
    assert "volume:/people" not in [row[0] for row in rows(refused)]
    assert train_end(refused) == []


def test_other_results_are_not_told_here() -> None:
    assert train_table("x") is None
    assert train_lines("x") == []
