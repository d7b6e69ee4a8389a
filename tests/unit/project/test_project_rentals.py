"""Rented GPUs in the project file: what is read, and how mistakes in them are told."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.operations.config import ConfigRow, config_schema, show_config
from tests.unit.project.test_project_sync import load, refusal

FULL = """\
version: 1
costs:
  per_run_usd: 2.50
  rentals:
    vast: {gpu: l40s, usd_per_hour: 0.750, as_of: 2026-11-20}
    big-one: {gpu: "H100:2", usd_per_hour: "$5.10", as_of: "2026-11-19", speed: 2, setup_hours: 1.5, rerun: 1.1,
              disk_usd_per_hour: .05}
"""


def test_rentals_are_read_with_exact_prices(tmp_path: Path) -> None:
    rentals = load(tmp_path, FULL).settings.costs.rentals
    vast, big = rentals["vast"], rentals["big-one"]
    assert (vast.gpu, vast.usd_per_hour, vast.as_of) == ("L40S", Decimal("0.750"), "2026-11-20")
    assert (vast.speed, vast.setup_hours, vast.rerun, vast.disk_usd_per_hour) == (1.0, 0.0, 1.0, Decimal(0))
    assert (big.gpu, big.usd_per_hour, big.disk_usd_per_hour) == ("H100:2", Decimal("5.10"), Decimal("0.05"))
    assert (big.speed, big.setup_hours, big.rerun) == (2.0, 1.5, 1.1)


def test_config_show_has_a_row_for_each_key_of_a_rental(tmp_path: Path) -> None:
    rows = {row.key: row for row in show_config(load(tmp_path, FULL)).rows}
    where = "file comfymodal.yaml:5"
    assert rows["costs.rentals.vast.usd_per_hour"] == ConfigRow(
        "costs.rentals.vast.usd_per_hour", "0.750", where, "run"
    )
    assert rows["costs.rentals.big-one.speed"].value == 2.0
    assert rows["costs.rentals.vast.speed"] == ConfigRow("costs.rentals.vast.speed", 1.0, "default", "run")
    assert rows["costs.per_run_usd"].value == "2.50"


def test_the_json_schema_knows_rentals() -> None:
    parts = config_schema()["$defs"]
    assert parts["Rental"]["required"] == ["gpu", "usd_per_hour", "as_of"]
    found = parts["Costs"]["properties"]["rentals"]
    assert found["patternProperties"] == {"^[a-z0-9][a-z0-9_-]{0,39}$": {"$ref": "#/$defs/Rental"}}
    assert found["additionalProperties"] is False
    assert parts["Rental"]["properties"]["disk_usd_per_hour"]["default"] == 0


DOLLARS = "must be US dollars an hour, at most 10000, for example 0.75"
ALONE = "write the number alone, with a point"
KEYS = "keys here: gpu, usd_per_hour, as_of, speed, setup_hours, rerun, disk_usd_per_hour"


def case(value: str, place: str, message: str, hint: str | None = None) -> Any:
    return pytest.param(value, place, message, hint, id=value)


@pytest.mark.parametrize(
    ("value", "place", "message", "hint"),
    [
        case("usd_per_hour: 0.75", "2:22 as_of", "is missing", KEYS),
        case("usd_per_hour: cheap, as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: '0,75', as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: -1, as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: .inf, as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: 10001, as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: [1], as_of: 2026-11-20", "2:46 usd_per_hour", DOLLARS, ALONE),
        case("usd_per_hour: 0, as_of: 2026-11-20", "2:46 usd_per_hour",
             "must be above 0: a card of your own has no price by the hour to compare with"),
        case("usd_per_hour: 1, as_of: 20.11.2026", "2:56 as_of", "must be a day, written as 2026-11-20"),
        case("usd_per_hour: 1, as_of: 2026-02-30", "2:56 as_of", "must be a day, written as 2026-11-20"),
        case("usd_per_hour: 1, as_of: 2026", "2:56 as_of", "must be text, not 2026", "put quotes around it"),
        case("usd_per_hour: 1, as_of: 2026-11-20, speed: 0", "2:75 speed", "must be 0.01 to 100, not 0"),
        case("usd_per_hour: 1, as_of: 2026-11-20, speed: .nan", "2:75 speed", "must be 0.01 to 100, not nan"),
        case("usd_per_hour: 1, as_of: 2026-11-20, rerun: 0.9", "2:75 rerun", "must be 1 to 10, not 0.9"),
        case("usd_per_hour: 1, as_of: 2026-11-20, disk_per_hour: 9", "2:68 disk_per_hour", "unknown key",
             "did you mean `disk_usd_per_hour`"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rental_has_its_place_and_a_hint(
    tmp_path: Path, value: str, place: str, message: str, hint: str | None
) -> None:
    found, *words = refusal(tmp_path, f"version: 1\ncosts: {{rentals: {{v: {{gpu: L4, {value}}}}}}}\n")
    assert (found.replace("costs.rentals.v.", ""), *words) == (place, message, hint)


def test_a_rental_names_a_gpu_of_modal(tmp_path: Path) -> None:
    text = "version: 1\ncosts: {rentals: {v: {gpu: RTX4090, usd_per_hour: 0.4, as_of: 2026-11-20}}}\n"
    place, message, _ = refusal(tmp_path, text)
    assert (place, message[:29]) == ("2:28 costs.rentals.v.gpu", "RTX4090 is not a GPU of Modal")
