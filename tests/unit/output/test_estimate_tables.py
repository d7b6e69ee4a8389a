from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from comfymodal.operations.costs_estimate_results import CostsEstimated, EgressView, EstimateRow
from comfymodal.output.estimate_tables import estimate_end, estimate_table
from comfymodal.output.words import price_in_words, span_in_words

ROW = EstimateRow(
    "L40S",
    is_known=True,
    per_hour="$2.40/h",
    usd_per_hour="2.395584",
    prices_as_of="2026-10-07",
    run_s=20.0,
    low_usd="0.0612",
    typical_usd="0.08717264",
    high_usd="0.1201",
    worst_usd="2.8148112",
    per_item_usd="0.08717264",
    basis="12 runs",
    samples=12,
    startup_s=51.0,
    idle_s=60.0,
    startup_usd="0.03393744",
    run_usd="0.0133088",
    idle_usd="0.0399264",
    gpu_usd="0.071",
    cpu_memory_usd="0.01617264",
    overhead=6.55,
    vram_gb=48,
    fits=True,
    memory="18.0 GB were seen in use",
)
UNKNOWN = EstimateRow("FOO", is_known=False, basis="unknown: FOO is not a GPU of Modal")
UNMEASURED = EstimateRow(
    "H100",
    is_known=True,
    per_hour="$4.39/h",
    usd_per_hour="4.393584",
    prices_as_of="2026-10-07",
    worst_usd="5.16",
    basis="not known: no run of it there yet, 20 s on L40S",
    startup_s=51.0,
    startup_usd="0.06",
    idle_s=60.0,
    idle_usd="0.07",
    vram_gb=80,
)
EGRESS = "1.2 MB of outputs leave Modal: free within the plan's 1 TiB (Starter) a month, beyond it <$0.0001"


def told(*rows: EstimateRow, **more: Any) -> CostsEstimated:
    given: dict[str, Any] = {"kind": "render", "what": "w.json", "target": "modal", "items": 1, "rows": rows}
    return CostsEstimated(**{**given, "egress": EgressView(1_234_567, "0.000046"), "notes": ("a note",), **more})


def test_one_choice_is_told_with_its_parts() -> None:
    assert estimate_table(told(ROW)) == (
        (),
        [
            ("what", "w.json, 1 prompt"),
            ("on", "L40S $2.40/h"),
            ("cost", "$0.0612 to $0.1201, typically $0.0872 (12 runs)"),
            ("  start-up", "$0.0339 (51 s)"),
            ("  run", "$0.0133 (20 s)"),
            ("  idle", "$0.0399 (1:00 min)"),
            ("  of it GPU", "$0.0710"),
            ("  of it CPU, memory", "$0.0162"),
            ("each prompt", "$0.0872; 6.55 s are paid for each second of it"),
            ("at most", "$2.81"),
            ("memory", "fits: 18.0 GB were seen in use, 48 GB on it"),
            ("egress", EGRESS),
        ],
    )
    assert estimate_end(told(ROW)) == ["prices of 2026-10-07; all of it is an estimate", "a note"]


def test_what_is_not_known_is_no_zero() -> None:
    assert estimate_table(told(UNMEASURED, egress=None)) == (
        (),
        [
            ("what", "w.json, 1 prompt"),
            ("on", "H100 $4.39/h"),
            ("cost", "not known: no run of it there yet, 20 s on L40S"),
            ("at most", "$5.16"),
        ],
    )


def test_choices_stand_side_by_side() -> None:
    result = told(ROW, UNMEASURED, UNKNOWN)
    titles, rows = estimate_table(result) or ((), [])
    assert titles == ("GPU", "price", "time", "low", "typical", "high", "each", "at most", "fits", "by")
    assert rows == [
        ("L40S", "$2.40/h", "20 s", "$0.0612", "$0.0872", "$0.1201", "$0.0872", "$2.81", "✓", "12 runs"),
        ("H100", "$4.39/h", *["-"] * 5, "$5.16", "-", "not known: no run of it there yet, 20 s on L40S"),
        ("FOO", *["-"] * 8, "unknown: FOO is not a GPU of Modal"),
    ]
    assert all(len(row) == len(titles) for row in rows)
    assert estimate_end(result)[0] == EGRESS


def test_syncs_are_told_by_pair() -> None:
    free = EstimateRow(
        "here", is_known=True, low_usd="0", typical_usd="0", high_usd="0", worst_usd="0", basis="it runs here"
    )
    result = told(replace(ROW, name="models", per_item_usd=None), free, kind="sync", egress=None)
    assert estimate_table(result) == (
        ("pair", "usual", "typical", "at most", "by"),
        [
            ("models", "$0.0612 to $0.1201", "$0.0872", "$2.81", "12 runs"),
            ("here", "$0.00", "$0.00", "$0.00", "it runs here"),
        ],
    )


def test_nothing_to_pay_is_nothing() -> None:
    result = told(target="local", egress=None)
    assert estimate_table(result) == ((), [("what", "w.json, 1 prompt"), ("cost", "nothing")])
    assert estimate_end(result) == ["a note"]


def test_a_single_name_that_is_no_gpu_is_a_row() -> None:
    _, rows = estimate_table(told(UNKNOWN)) or ((), [])
    assert rows == [("FOO", *["-"] * 8, "unknown: FOO is not a GPU of Modal")]


def test_other_results_are_not_ours() -> None:
    assert estimate_table(object()) is None
    assert estimate_end(object()) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        pytest.param({}, "$0.06 to $0.12, typically $0.09 (12 runs)", id="a span"),
        pytest.param({"low": "$0.09", "high": "$0.09", "basis": "1 run"}, "typically $0.09 (1 run)", id="one run"),
        pytest.param({"typical": None, "basis": "not known: x"}, "not known: x", id="unknown"),
    ],
)
def test_amounts_as_people_read_them(more: dict[str, Any], words: str) -> None:
    assert span_in_words({"low": "$0.06", "typical": "$0.09", "high": "$0.12", "basis": "12 runs", **more}) == words


def test_the_line_before_a_spend_says_when_a_budget_shortens_it() -> None:
    event = {
        "gpu": "L40S",
        "per_hour": "$2.40/h",
        "where": "Modal",
        "typical": None,
        "basis": "not known: no run of it there yet",
        "worst": "$0.50",
        "deadline_s": 90.0,
        "is_shortened": True,
    }
    assert price_in_words(event) == (
        "L40S $2.40/h on Modal: not known: no run of it there yet; at most $0.50 (ends after 1:30 min, the budget's"
        " limit)"
    )
