"""`comfymodal costs compare`: what was used of Modal's GPUs, and what the same work costs on rented ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from comfymodal.costs.compare import PLANS_AS_OF, Rental, on_starter, on_team, price_text
from comfymodal.costs.rates import Rate, container_rate, money_json, nanodollars_of, parse_gpu
from comfymodal.errors import NotReadyError, ProjectError, UsageError
from comfymodal.operations.compare_results import CardView, CostsCompared, PlansView
from comfymodal.operations.compare_views import card_view
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.runs.usage import GpuUsage

GAP_H = 4.0
"""In a shorter gap nobody gives a rental back."""

SHORTEST_H = 24.0
"""Who began an hour ago has no pace yet."""

MONTH_H = 30 * 24.0
OLD_DAYS = 30
EXAMPLE = (
    "write what you see, and the day, into comfymodal.yaml:\n"
    "costs:\n  rentals:\n    vast: {{gpu: {gpu}, usd_per_hour: PRICE, as_of: {today}, setup_hours: 1}}\n"
    "or give a price here: comfymodal costs compare --gpu {gpu} --usd-per-hour PRICE"
)

LEFT_OUT = (
    "of Modal: volumes, egress, image builds, runs without a GPU; credits and the plan's fee are in their own line",
    "of a rental: traffic, disks of stopped ones, your time, and whether one with enough memory is free when needed",
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A rental and the GPU of Modal whose work it would do."""

    gpu: str
    rental: Rental


@dataclass(frozen=True, slots=True)
class CompareWish:
    """`gpu` is one of Modal's, None for all that were used. `offer` is a price given with flags."""

    since_s: float
    gpu: str | None = None
    offer: Rental | None = None


def compare_costs(wish: CompareWish, context: Context, desk: Desk, *, now: float) -> CostsCompared:
    """Compare real use with every rental of the project, or with the one of the flags.

    Raises `ProjectError` when there is neither use nor price, `UsageError` for a price that fits no GPU or several.
    """
    used, first = context.ledger.usage(now - wish.since_s, gap_s=GAP_H * 3600)
    today = datetime.fromtimestamp(now, UTC).date()
    gpus = _gpus(wish, used, context)
    offers = _offers(wish, gpus, context)
    if not offers and not any(usage.runs for usage in used):
        raise ProjectError(
            "there is nothing to compare: no use of a GPU on Modal in that time, and no price of a rental",
            hint=EXAMPLE.format(gpu=gpus[0], today=today),
        )
    _warn_of_dates(offers, today, desk)
    hours = _horizon_h(wish.since_s, first, now)
    by_gpu = {usage.gpu: usage for usage in used}
    cards = []
    for gpu in gpus:
        usage = by_gpu.get(gpu, GpuUsage(gpu))
        rate = None if usage.runs else _rate(gpu, context)
        cards.append(card_view(usage, rate, _of_gpu(offers, gpu), hours))
    return CostsCompared(hours, tuple(cards), _plans(used, hours), _left_out(cards))


def _gpus(wish: CompareWish, used: Sequence[GpuUsage], context: Context) -> list[str]:
    """Those that were used; those that a price is there for; without any use the project's."""
    project = context.project
    names = [usage.gpu for usage in used]
    asked = [wish.gpu] if wish.gpu else [rental.gpu for rental in project.costs.rentals.values()]
    if not names and not wish.gpu:
        asked += [*project.comfyui.gpu, *([project.training.gpu] if project.training.gpu else [])]
    for gpu in asked:
        if not any(_is_same(gpu, name) for name in names):
            names.append(gpu)
    return [name for name in names if wish.gpu is None or _is_same(name, wish.gpu)]


def _offers(wish: CompareWish, gpus: Sequence[str], context: Context) -> list[Offer]:
    if wish.offer is None:
        return [
            Offer(
                rental.gpu,
                Rental(
                    name,
                    nanodollars_of(rental.usd_per_hour + rental.disk_usd_per_hour),
                    rental.as_of,
                    speed=rental.speed,
                    setup_h=rental.setup_hours,
                    rerun=rental.rerun,
                ),
            )
            for name, rental in context.project.costs.rentals.items()
            if any(_is_same(rental.gpu, gpu) for gpu in gpus)
        ]
    if len(gpus) > 1:
        raise UsageError(f"--usd-per-hour is the price of which of {', '.join(gpus)}?", hint=f"add --gpu {gpus[0]}")
    return [Offer(gpus[0], wish.offer)]


def _of_gpu(offers: Iterable[Offer], gpu: str) -> list[Rental]:
    return [offer.rental for offer in offers if _is_same(offer.gpu, gpu)]


def _is_same(one: str, other: str) -> bool:
    """`A100` is `A100-40GB`; a name that this release does not know is only itself."""
    try:
        first, second = parse_gpu(one), parse_gpu(other)
    except ValueError:
        return one == other
    return (first.card, first.count) == (second.card, second.count)


def _rate(gpu: str, context: Context) -> Rate | None:
    """None for a GPU that another release ran on: what it costs is not known here."""
    try:
        return container_rate([parse_gpu(gpu)], context.rates)
    except (ValueError, NotReadyError):
        return None


def _horizon_h(since_s: float, first: float | None, now: float) -> float:
    """Before the first run there was nothing to rent a card for."""
    seen_h = max(SHORTEST_H, (now - first) / 3600) if first is not None else since_s / 3600
    return min(since_s / 3600, seen_h)


def _plans(used: Sequence[GpuUsage], hours: float) -> PlansView | None:
    """Credits pay for the workspace: of other projects' use nothing is known here."""
    total = sum(usage.nanodollars for usage in used)
    if not total:
        return None
    month = round(total * MONTH_H / hours)
    return PlansView(money_json(month), money_json(on_starter(month)), money_json(on_team(month)), PLANS_AS_OF)


def _left_out(cards: Sequence[CardView]) -> tuple[str, ...]:
    unknown = sum(card.unknown_runs for card in cards)
    bare = sorted({rental.name for card in cards for rental in card.rentals if not rental.setup_hours})
    more = [f"the time it takes to set up {', '.join(bare)} (setup_hours)"] if bare else []
    if unknown:
        more.append(f"{unknown} run{'' if unknown == 1 else 's'} whose cost or time is not known")
    return (*LEFT_OUT, *more)


def _warn_of_dates(offers: Iterable[Offer], today: date, desk: Desk) -> None:
    for rental in (offer.rental for offer in offers):
        days = (today - date.fromisoformat(rental.as_of)).days
        told = f"the price of {rental.name} ({price_text(rental.nanodollars_per_h)}) is of {rental.as_of}"
        if days > OLD_DAYS:
            desk.warn(f"{told}, {days} days ago: look again, such prices move")
        elif days < -1:
            # A day ahead is the other side of the world.
            desk.warn(f"{told}, which is still to come")
