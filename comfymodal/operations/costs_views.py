"""Sums as people and scripts see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from comfymodal.costs.rates import AS_OF, STORAGE_NANODOLLARS_PER_GIB_MONTH, money_json, money_text
from comfymodal.costs.storage_rates import RemoteKind, StorageRates, storage_rates
from comfymodal.operations.costs_results import GroupView, OthersView, RunFactsView, StorageView, SumsView
from comfymodal.operations.stored import Stored
from comfymodal.operations.views import iso_time
from comfymodal.runs.sums import Sums
from comfymodal.runs.totals import RunFacts, Totals

VOLUME_PRICE = "$0.09 per GiB and month above the workspace's first 1 TiB"
FREE_GIB = 1024
"""Of Modal's volumes; read where the prices of containers were."""


def sums_view(sums: Sums) -> SumsView:
    def known(nanodollars: int, of_runs: int) -> str | None:
        # A sum over no run would read as if they had cost nothing.
        return money_json(nanodollars) if of_runs else None

    return SumsView(
        runs=sums.runs,
        active_runs=sums.active_runs,
        outputs=sums.outputs,
        estimate=known(sums.estimated, sums.estimated_runs),
        estimated_runs=sums.estimated_runs,
        estimated_total=known(sums.estimated_spent, sums.estimated_runs),
        measured=known(sums.measured, sums.measured_runs),
        idle=known(sums.idle, sums.idle_runs),
        billed=known(sums.billed, sums.billed_runs),
        billed_runs=sums.billed_runs,
        drift=known(sums.drift, sums.billed_runs),
        total=known(sums.spent, sums.spent_runs),
        unknown_runs=sums.unknown_runs,
        failed=known(sums.failed, sums.spent_runs),
        failed_runs=sums.failed_runs,
        reserved=money_json(sums.reserved),
        seconds={
            "start": round(sums.start_s, 3),
            "run": round(sums.run_s, 3),
            "idle": round(sums.idle_s, 3),
            "lost": round(sums.lost_s, 3),
        },
    )


def group_views(found: Totals) -> tuple[GroupView, ...]:
    return tuple(
        GroupView(
            group.key,
            _share(group.sums, found),
            sums_view(group.sums),
            None if group.run is None else _facts(group.run),
        )
        for group in found.groups
    )


def others_view(found: Totals) -> OthersView | None:
    """The folded rows as one; None where all are shown."""
    return OthersView(found.folded, _share(found.others, found), sums_view(found.others)) if found.folded else None


def storage_views(
    *, has_volumes: bool, stored: Mapping[str, Stored], remotes: Iterable[tuple[str, RemoteKind]]
) -> Iterator[StorageView]:
    """Unit prices of the volumes on Modal, with what they held when last seen, and of each bucket, by name and kind."""
    if has_volumes:
        yield StorageView("Modal volumes", VOLUME_PRICE, AS_OF, "comfymodal models du", _seen(stored))
    for name, kind in remotes:
        rates = storage_rates(kind)
        if rates is None:
            yield StorageView(f"bucket {name}", None, None, "the prices of its vendor")
        else:
            yield StorageView(f"bucket {name}", _price(rates), rates.as_of, rates.source)


def _seen(stored: Mapping[str, Stored]) -> str | None:
    """Modal's free part is the workspace's: by themselves, these volumes cost so much."""
    if not stored:
        return None
    gib = sum(each.size_bytes for each in stored.values()) / (1 << 30)
    beyond = max(0.0, gib - FREE_GIB)
    day = iso_time(min(each.at for each in stored.values()))[:10]
    cost = money_text(round(beyond * STORAGE_NANODOLLARS_PER_GIB_MONTH))
    return f"{' and '.join(sorted(stored))} held {gib:.1f} GiB on {day}: {cost} a month by itself"


def _price(rates: StorageRates) -> str:
    return (
        f"{money_text(rates.storage_per_gb_month * 1000)} per TB and month above {rates.free_storage_gb} GB "
        f"({rates.vendor}); downloads beyond {rates.free_egress_times} times what is stored "
        f"{money_text(rates.egress_per_gb)} per GB"
    )


def _share(sums: Sums, found: Totals) -> float | None:
    return sums.spent / found.total.spent if found.total.spent else None


def _facts(run: RunFacts) -> RunFactsView:
    return RunFactsView(run.kind, run.target, run.status, run.workflow, run.gpu, run.tag, _time(run.created_at))


def _time(seconds: float) -> str | None:
    """None for what no calendar has: a clock may say anything."""
    try:
        return iso_time(seconds)
    except (ValueError, OverflowError, OSError):
        return None
