"""`comfymodal costs rates`: what prices a run, whose prices those are and of which day, and asking Modal for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

from comfymodal.costs.live_rates import LiveRates, is_fresh, keep, parse_rates, rates_file, read_kept, unread_keys
from comfymodal.costs.rates import (
    AS_OF,
    BROAD_REGION,
    BROAD_REGIONS,
    EGRESS_NANODOLLARS_PER_GIB,
    GPUS,
    LIST,
    NARROW_REGION,
    REGIONS_AS_OF,
    RateTable,
    money_json,
)
from comfymodal.errors import ServiceError
from comfymodal.operations.context import Context
from comfymodal.operations.costs_rates_results import FactorView, PartView, RatesReport, RateView

SAME_WITHIN = Decimal("0.005")
"""The price page and the answer of the API round differently: by up to 0.3 %."""

REFRESH_PATIENCE_S = 3.0


def show_rates(context: Context, *, refresh: bool) -> RatesReport:
    """The prices that count now; with `refresh`, Modal is asked first.

    Raises `UsageError` (refresh of a project that runs here), `NotReadyError`, `ServiceError`; without it nothing.
    """
    if refresh:
        refresh_rates(context)
    modal = context.project.modal
    table, kept = context.rates, read_kept(rates_file(context.state, modal.workspace, modal.environment))
    is_own = table.source == "workspace"
    shown = kept if is_own else None
    return RatesReport(
        source=table.source,
        as_of=table.as_of,
        workspace=shown.workspace if shown else None,
        list_as_of=AS_OF,
        why_list=None if is_own else _why_list(kept, time.time()),
        region=table.region,
        gpus=tuple(_gpu_views(table)),
        container=(_view("core", table.core, LIST.core), _view("GiB of memory", table.gib, LIST.gib)),
        others=_others(table),
        factors=(
            FactorView(", ".join(BROAD_REGIONS), str(BROAD_REGION), table.region in BROAD_REGIONS),
            FactorView(
                "any narrower one", str(NARROW_REGION), table.region is not None and table.region not in BROAD_REGIONS
            ),
        ),
        factors_as_of=REGIONS_AS_OF,
        told=dict(shown.told) if shown else {},
        unread=unread_keys(shown.told) if shown else (),
    )


def refresh_rates(context: Context) -> LiveRates:
    """Ask Modal for the workspace's prices and keep them here; what it told before stays if it cannot be asked.

    Raises `UsageError` for a project that runs here, `NotReadyError`, `ServiceError`.
    """
    billing, modal = context.billing(), context.project.modal
    told, workspace = billing.rates(), billing.workspace()
    if not parse_rates(told, as_of="").gpus:
        raise ServiceError("Modal told no price of any GPU", hint="the same command may work later")
    try:
        return keep(rates_file(context.state, modal.workspace, modal.environment), told, workspace=workspace)
    except OSError as exc:
        raise ServiceError(
            f"cannot keep the prices on this machine: {exc.strerror or exc}",
            hint="is the disk full? see COMFYMODAL_STATE_DIR",
        ) from exc


@contextlib.contextmanager
def refreshing(context: Context) -> Iterator[None]:
    """Ask Modal meanwhile, because it is being talked to anyway; whatever comes of it, nobody is kept waiting long."""
    asking = threading.Thread(target=_refresh_quietly, args=(context,), daemon=True)
    asking.start()
    yield
    asking.join(REFRESH_PATIENCE_S)


def _refresh_quietly(context: Context) -> None:
    # Whatever goes wrong: a deploy is not about prices, and those that are known stay.
    with contextlib.suppress(Exception):
        refresh_rates(context)


def _gpu_views(table: RateTable) -> Iterator[RateView]:
    for name in GPUS:
        yield _view(name, table.gpus.get(name), LIST.gpus[name])
    for name in sorted(set(table.gpus) - set(GPUS)):
        yield _view(name, table.gpus[name], None)


def _view(name: str, price: int | None, listed: int | None) -> RateView:
    """Of nanodollars per second."""
    change = None
    if price is not None and listed is not None:
        exact = Decimal(price) / listed - 1
        change = 0.0 if abs(exact) < SAME_WITHIN else round(float(exact), 4)
    return RateView(
        name=name,
        per_hour=None if price is None else money_json(price * 3600),
        per_s=money_json(price),
        list_per_hour=None if listed is None else money_json(listed * 3600),
        change=change,
    )


def _others(table: RateTable) -> tuple[PartView, ...]:
    stored = table.storage_per_gib_month
    return (
        PartView(
            "storage",
            money_json(stored),
            "GiB and month",
            "of volumes; the first TiB of a workspace is free",
        ),
        PartView(
            "egress",
            money_json(EGRESS_NANODOLLARS_PER_GIB),
            "GiB",
            f"of what leaves Modal beyond 1 TiB a month (Starter) or 10 TiB (Team), as of {AS_OF}",
        ),
    )


def _why_list(kept: LiveRates | None, now: float) -> str:
    if kept is None:
        return "Modal was not asked yet"
    if not is_fresh(kept, now):
        return f"what Modal told on {kept.table.as_of} is too old"
    return f"Modal was asked for another workspace, {kept.workspace}"
