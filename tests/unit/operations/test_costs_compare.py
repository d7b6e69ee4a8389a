from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.compare import Rental
from comfymodal.costs.rates import parse_money
from comfymodal.errors import ProjectError, UsageError
from comfymodal.operations.compare_results import CardView, CostsCompared, OptionView
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.costs_compare import CompareWish, compare_costs
from comfymodal.operations.desk import Question, Setup
from tests.unit.runs.cost_rows import cost_row, write_costs

NOW = 1_795_000_000.0
"""2026-11-18."""
DAY = 86400.0
MONTH_S = 30 * DAY
L40S_PER_S = 665_440
OFFER = Rental("the rental", parse_money("0.75"), "2026-11-18")

PROJECT = """\
version: 1
comfyui: {gpu: L40S}
costs:
  rentals:
    vast: {gpu: L40S, usd_per_hour: 0.70, as_of: 2026-11-10, setup_hours: 1, disk_usd_per_hour: 0.05}
    pod: {gpu: A100, usd_per_hour: 1, as_of: 2026-08-01, rerun: 1.5, setup_hours: 2}
"""


@dataclass
class Desk:
    """Only warnings are ever told here."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def event(self, event: Mapping[str, Any]) -> None:
        raise AssertionError(event)

    def agree(self, setup: Setup) -> bool:
        raise AssertionError(setup)

    def confirm(self, question: Question) -> bool:
        raise AssertionError(question)


def an_hour_a_day(gpu: str = "L40S", days: int = 30, **more: Any) -> list[dict[str, Any]]:
    """Each day one hour of work, 15 minutes of start-up before it and 3 of idling after it, all at the same rate."""
    return [
        cost_row(
            NOW - number * DAY + 3600,
            run_id=f"{gpu}-{number}",
            created_at=NOW - number * DAY + 2700,
            ended_at=NOW - number * DAY + 7200,
            gpu_billed=gpu,
            **{"start_s": 900.0, "run_s": 3600.0, "idle_s": 180.0, "measured": L40S_PER_S * 4500} | more,
            idle=L40S_PER_S * 180,
        )
        for number in range(1, days + 1)
    ]


def context_of(folder: Path, rows: Iterable[dict[str, Any]] = (), project: str = "version: 1\n") -> Context:
    (folder / "comfymodal.yaml").write_text(project)
    context = open_context(None, environ={"COMFYMODAL_STATE_DIR": str(folder / "state")}, cwd=folder)
    assert context.ledger.newest(limit=1) == []
    write_costs(folder / "state" / "projects" / "default" / "ledger.sqlite", rows).close()
    return context


def compare(context: Context, desk: Desk | None = None, **wish: Any) -> CostsCompared:
    return compare_costs(CompareWish(**{"since_s": MONTH_S, **wish}), context, desk or Desk(), now=NOW)


def option(card: CardView, how: str, factor: float = 1.0, rental: int = 0) -> OptionView:
    return next(one for one in card.rentals[rental].options if (one.how, one.price_factor) == (how, factor))


def test_an_hour_a_day_beside_a_rental(tmp_path: Path) -> None:
    result = compare(context_of(tmp_path, an_hour_a_day(days=29), PROJECT), gpu="L40S")
    (card,) = result.cards
    (vast,) = card.rentals
    hours = 29 * 24 - 0.75
    assert result.hours == pytest.approx(hours)
    assert (card.runs, card.useful_hours, card.paid_hours) == (29, 29.0, 37.7)
    assert card.overhead == pytest.approx(1.3)
    assert card.use == pytest.approx(29 / hours)
    assert (card.usd_per_hour, card.usd) == ("2.395584", "90.3135168")
    assert (vast.name, vast.usd_per_hour, vast.cards, vast.sessions) == ("vast", "0.75", 1, 29)

    kept = option(card, "kept")
    # u* = v rho (1 + S / W) / (m phi), of 24 hours.
    assert kept.break_even_hours == pytest.approx(24 * 0.75 * (1 + 1 / hours) / (2.395584 * 1.3))
    assert float(kept.usd or 0) == pytest.approx(0.75 * (hours + 1))
    assert float(kept.saving_usd or 0) == pytest.approx(float(kept.usd or 0) - 90.3135168)
    returned = option(card, "returned")
    # 75 minutes each, and an hour to set it up.
    assert returned.of_hours == pytest.approx(1.25)
    assert float(returned.usd or 0) == pytest.approx(29 * 2.25 * 0.75)
    assert card.cheapest == "returned vast"
    assert option(card, "returned", 1.5).usd == "73.40625"
    assert card.even_usd_per_hour is not None
    assert float(card.even_usd_per_hour) == pytest.approx(90.3135168 / hours)


def test_modal_is_ticked_where_it_is_cheaper_than_every_way_to_rent(tmp_path: Path) -> None:
    dear = Rental("x", parse_money("3"), "2026-11-18")
    (card,) = compare(context_of(tmp_path, an_hour_a_day()), offer=dear).cards
    assert card.cheapest == "modal"
    assert float(option(card, "returned").saving_usd or 0) > 0


def test_cards_are_those_used_and_those_a_price_is_there_for(tmp_path: Path) -> None:
    desk = Desk()
    cards = compare(context_of(tmp_path, an_hour_a_day("H100"), PROJECT), desk).cards
    assert [(card.gpu, card.runs, [one.name for one in card.rentals]) for card in cards] == [
        ("H100", 30, []),
        ("L40S", 0, ["vast"]),
        ("A100", 0, ["pod"]),
    ]
    assert desk.warnings == ["the price of pod ($1.00/h) is of 2026-08-01, 109 days ago: look again, such prices move"]
    assert (cards[0].cheapest, cards[1].cheapest) == (None, None)


def test_a_price_is_for_the_card_by_whatever_name(tmp_path: Path) -> None:
    (card,) = compare(context_of(tmp_path, an_hour_a_day("A100-40GB"), PROJECT), gpu="A100").cards
    assert (card.gpu, [rental.name for rental in card.rentals]) == ("A100-40GB", ["pod"])


def test_a_gpu_this_release_does_not_know_is_told_all_the_same(tmp_path: Path) -> None:
    (card,) = compare(context_of(tmp_path, an_hour_a_day("X900"))).cards
    assert (card.gpu, card.rentals, card.runs) == ("X900", (), 30)
    folder = tmp_path / "unknown"
    folder.mkdir()
    (card,) = compare(context_of(folder, an_hour_a_day("X900", run_s=None)), offer=OFFER).cards
    assert (card.runs, card.unknown_runs, card.usd_per_hour, card.rentals[0].options) == (0, 30, None, ())


def test_without_use_the_break_even_is_that_of_list_prices(tmp_path: Path) -> None:
    result = compare(context_of(tmp_path), gpu="L40S", offer=OFFER)
    (card,) = result.cards
    assert (card.runs, card.use, card.overhead, card.cheapest, result.plans) == (0, None, None, None, None)
    assert (card.usd_per_hour, card.price_as_of) == ("2.395584", "2026-10-07")
    assert [each.how for each in card.rentals[0].options] == ["kept"] * 3
    assert option(card, "kept").break_even_hours == pytest.approx(24 * 0.75 / 2.395584)
    assert (option(card, "kept").usd, option(card, "kept").saving_usd) == (None, None)


def test_without_use_and_price_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="nothing to compare") as caught:
        compare(context_of(tmp_path, project="version: 1\ncomfyui: {gpu: [H100, L40S]}\n"))
    assert "vast: {gpu: H100, usd_per_hour: PRICE, as_of: 2026-11-18" in str(caught.value.hint)


def test_use_alone_tells_below_which_price_a_rental_would_be_cheaper(tmp_path: Path) -> None:
    (card,) = compare(context_of(tmp_path, an_hour_a_day())).cards
    assert float(card.even_usd_per_hour or 0) == pytest.approx(30 * 1.3 * 2.395584 / 719.25)


def test_a_price_from_flags_needs_one_gpu(tmp_path: Path) -> None:
    context = context_of(tmp_path, [*an_hour_a_day(), *an_hour_a_day("H100")], PROJECT)
    with pytest.raises(UsageError, match="price of which of"):
        compare(context, offer=OFFER)
    (card,) = compare(context, offer=OFFER, gpu="H100").cards
    assert [rental.name for rental in card.rentals] == ["the rental"]


def test_who_began_yesterday_is_not_compared_with_a_month_of_rent(tmp_path: Path) -> None:
    context = context_of(tmp_path, an_hour_a_day(days=3))
    assert compare(context).hours == pytest.approx(71.25)
    assert compare(context, since_s=DAY * 2).hours == 48.0
    other = tmp_path / "other"
    other.mkdir()
    assert compare(context_of(other, [cost_row(NOW - 3600)])).hours == 24.0


def test_where_nothing_succeeded_nothing_is_compared(tmp_path: Path) -> None:
    (card,) = compare(context_of(tmp_path, an_hour_a_day(status="failed"), PROJECT), gpu="L40S").cards
    assert (card.useful_hours, card.overhead, card.even_usd_per_hour, card.cheapest) == (0.0, None, None, None)
    assert card.rentals[0].options == ()


def test_plans_and_what_is_left_out(tmp_path: Path) -> None:
    rows = [*an_hour_a_day(), *an_hour_a_day("H100", days=1, run_s=None)]
    result = compare(context_of(tmp_path, rows), gpu="L40S", offer=OFFER)
    assert result.plans is not None
    month = float(result.plans.usd)
    assert month == pytest.approx(30 * 1.3 * 2.395584 * 720 / 719.25)
    assert float(result.plans.starter_usd) == pytest.approx(month - 30)
    assert result.plans.team_usd == "250"
    assert result.left_out[-1] == "the time it takes to set up the rental (setup_hours)"
    every = compare(context_of(tmp_path, []), since_s=MONTH_S)
    assert every.left_out[-1] == "1 run whose cost or time is not known"


def test_a_price_of_the_day_after_tomorrow_is_told(tmp_path: Path) -> None:
    desk = Desk()
    project = "version: 1\ncosts: {rentals: {v: {gpu: L4, usd_per_hour: 1, as_of: 2027-11-18}}}\n"
    compare(context_of(tmp_path, project=project), desk)
    assert desk.warnings == ["the price of v ($1.00/h) is of 2027-11-18, which is still to come"]


def test_results_are_json(tmp_path: Path) -> None:
    result = compare(context_of(tmp_path, an_hour_a_day(), PROJECT))
    assert json.loads(json.dumps(asdict(result)))["cards"][0]["rentals"][0]["options"][0]["price_factor"] == 1.0
