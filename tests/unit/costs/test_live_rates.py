from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from comfymodal.costs.live_rates import (
    CLOCK_SLACK_S,
    MOST_AGE_S,
    current_table,
    gpu_of_key,
    keep,
    parse_rates,
    rates_file,
    read_kept,
    unread_keys,
)
from comfymodal.costs.rates import GPUS, LIST, container_rate, cpu_rate, dollars, parse_gpu, sync_rate
from comfymodal.errors import NotReadyError

# All 16 keys, as `modal billing rates --json` had them in August and September 2026 (facts/costs.md 1.2).
TOLD = {
    "gpu_hour_cost_t4": "0.59000",
    "gpu_hour_cost_l4": "0.80000",
    "gpu_hour_cost_a10g": "1.10000",
    "gpu_hour_cost_l40s": "1.95000",
    "gpu_hour_cost_a100_40gb": "2.10000",
    "gpu_hour_cost_a100_80gb": "2.50000",
    "gpu_hour_cost_rtx6000": "3.03000",
    "gpu_hour_cost_h100": "3.95000",
    "gpu_hour_cost_h200": "4.54000",
    "gpu_hour_cost_b200": "6.25000",
    "gpu_hour_cost_b300": "7.10000",
    "cpu_hour_cost": "0.04730",
    "mem_gib_hour_cost": "0.00800",
    "cpu_hour_cost_sandbox": "0.141900",
    "mem_gib_hour_cost_sandbox": "0.024000",
    "volume_storage_gib_month_cost": "0.09000",
}
NOON = 1_795_262_400.0
"""2026-11-21 12:00 UTC."""


def test_every_key_of_modal_finds_its_gpu() -> None:
    table = parse_rates(TOLD, as_of="2026-11-21")
    assert set(table.gpus) == set(GPUS)
    assert (table.source, table.as_of) == ("workspace", "2026-11-21")
    # Modal rounds the page and the answer differently: at most 0.5 % apart.
    for name, price in table.gpus.items():
        assert abs(price / LIST.gpus[name] - 1) < 0.005, name
    assert table.gpus["L40S"] == 541_667
    assert (table.core, table.gib, table.storage_per_gib_month) == (13_139, 2_222, 90_000_000)
    rate = container_rate([parse_gpu("A10")], table)
    told = (rate.source, rate.as_of, round(dollars(rate.nanodollars_per_h), 4))
    assert told == ("workspace", "2026-11-21", Decimal("1.5452"))


def test_a_key_nobody_knew_is_a_gpu_by_its_suffix() -> None:
    assert [gpu_of_key(f"gpu_hour_cost_{name}") for name in ("r100_288gb", "a10", "rtx_pro_6000", "h100_sxm")] == [
        "R100-288GB",
        "A10",
        "RTX-PRO-6000",
        "H100-SXM",
    ]
    table = parse_rates({**TOLD, "gpu_hour_cost_r100_288gb": "9.0", "egress_gib_cost": "0.04"}, as_of="2026-11-21")
    assert table.gpus["R100-288GB"] == 2_500_000
    unread = ("cpu_hour_cost_sandbox", "mem_gib_hour_cost_sandbox", "egress_gib_cost")
    assert unread_keys({**TOLD, "egress_gib_cost": "0.04"}) == unread


@pytest.mark.parametrize("junk", ["", "0E-8", "-0E-8", "0", "-1", "NaN", "Infinity", "1e999999", "1e-99", None, "two"])
def test_what_is_no_price_is_unknown_and_never_nothing(junk: object) -> None:
    table = parse_rates({**TOLD, "gpu_hour_cost_l40s": junk, "cpu_hour_cost": junk}, as_of="2026-11-21")
    assert "L40S" not in table.gpus
    with pytest.raises(NotReadyError, match="what L40S costs is unknown"):
        container_rate([parse_gpu("L40S")], table)
    for price in (cpu_rate, sync_rate):
        with pytest.raises(NotReadyError, match="what cores and memory cost is unknown"):
            price(table)


def test_fresh_prices_of_the_workspace_come_before_the_list(tmp_path: Path) -> None:
    path = rates_file(tmp_path, None, "staging")
    kept = keep(path, {key: Decimal(value) for key, value in TOLD.items()}, workspace="acme", now=NOON)
    assert kept == read_kept(path)
    assert (kept.told, kept.table.as_of) == (TOLD, "2026-11-21")
    assert current_table(path, now=NOON + 1) == kept.table
    assert current_table(path, now=NOON + 1, workspace="acme").source == "workspace"
    assert current_table(path, now=NOON + 1, workspace="other") is LIST
    assert current_table(path, now=NOON + MOST_AGE_S - 1) == kept.table
    assert current_table(path, now=NOON + MOST_AGE_S) is LIST
    # Written by a clock that ran ahead.
    assert current_table(path, now=NOON - CLOCK_SLACK_S - 1) is LIST
    assert current_table(rates_file(tmp_path, "acme", None), now=NOON) is LIST


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": "comfymodal-rates/1", "fetched_at": 1795262400, "rates": {"gpu_hour_co',
        "[]",
        '{"l40s": 1}',
        '{"format": "comfymodal-rates/2", "fetched_at": 1795262400, "rates": {"gpu_hour_cost_l40s": "1"}}',
        '{"format": "comfymodal-rates/1", "fetched_at": NaN, "rates": {"gpu_hour_cost_l40s": "1"}}',
        '{"format": "comfymodal-rates/1", "fetched_at": "now", "rates": {"gpu_hour_cost_l40s": "1"}}',
        '{"format": "comfymodal-rates/1", "fetched_at": 1795262400, "rates": {"gpu_hour_cost_l40s": "0E-8"}}',
        '{"format": "comfymodal-rates/1", "fetched_at": 1795262400, "rates": 5}',
    ],
)
def test_a_torn_or_foreign_file_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    assert read_kept(path) is None
    assert current_table(path, now=NOON) is LIST


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = rates_file(tmp_path, None, None)
    before = keep(path, TOLD, workspace="acme", now=NOON)
    # A folder stands where the new text would be written first.
    path.with_name(f"{path.name}.{os.getpid()}.part").mkdir()
    with pytest.raises(OSError, match="part"):
        keep(path, {**TOLD, "gpu_hour_cost_l40s": "9"}, workspace="acme", now=NOON + 1)
    assert read_kept(path) == before


def test_a_region_multiplies_the_workspaces_own_prices() -> None:
    table = replace(parse_rates(TOLD, as_of="2026-11-21"), region="eu")
    assert cpu_rate(table).nanodollars_per_s == round((13_139 + 2_222) * 1.15)
