"""`comfymodal costs compare` as an operator has it."""

from __future__ import annotations

import time

from tests.conftest import Cli
from tests.unit.runs.cost_rows import cost_row, write_costs

PROJECT = """\
version: 1
costs:
  rentals:
    vast: {gpu: L40S, usd_per_hour: 0.75, as_of: 2026-01-01, setup_hours: 1}
"""


def test_real_use_is_compared_with_a_price_of_the_project(engineless_cli: Cli) -> None:
    (engineless_cli.cwd / "comfymodal.yaml").write_text(PROJECT)
    assert engineless_cli("runs", "list").code == 0
    now = time.time()
    rows = [cost_row(now - 86400 * day) for day in (1, 2, 3)]
    write_costs(engineless_cli.state / "projects" / "default" / "ledger.sqlite", rows).close()

    shown = engineless_cli("costs", "compare")
    assert (shown.code, shown.stdout.splitlines()[1]) == (
        0,
        "Break-even with vast ($0.75/h of 2026-01-01) is 18 % = 4.3 h a day.",
    )
    assert "✓\tModal L40S\t$3.60/h\t$2.13\t\t\t" in shown.stdout.splitlines()
    assert "the price of vast ($0.75/h) is of 2026-01-01" in shown.stderr

    told = engineless_cli("costs", "compare", "--usd-per-hour", "0.001", "--json").json
    (card,) = told["data"]["cards"]
    assert (told["command"], card["usd"], card["cheapest"]) == (["costs", "compare"], "2.13", "returned the rental")
    assert told["warnings"] == []

    refused = engineless_cli("costs", "compare", "--speed", "2")
    assert (refused.code, refused.stdout) == (2, "")
