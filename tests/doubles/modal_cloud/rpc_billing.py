"""What Modal asks and what it bills: containers by their real lifetimes, from their process's start to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import App, Cloud, Container, refuse

HOUR_S, DAY_S = 3600, 24 * 3600
CENT_PARTS = Decimal("1e-8")
"""So Modal rounds its amounts, and writes nothing as `0E-8`."""

BROAD_REGIONS = {"us", "eu", "ap"}
IRREGULAR_KEYS = {"A10": "a10g", "A100": "a100_40gb", "RTX-PRO-6000": "rtx6000", "ANY": "t4"}


class BillingRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def WorkspaceBillingRates(
        self, request: api_pb2.WorkspaceBillingRatesRequest
    ) -> api_pb2.WorkspaceBillingRatesResponse:
        rates = self._cloud.bills.scaled_rates()
        return api_pb2.WorkspaceBillingRatesResponse(rates=rates, formatted=str(rates))

    async def WorkspaceBillingReport(
        self, request: api_pb2.WorkspaceBillingReportRequest
    ) -> AsyncIterator[api_pb2.WorkspaceBillingReportItem]:
        self._require_open()
        size = {"h": HOUR_S, "d": DAY_S}.get(request.resolution) or refuse(
            Status.INVALID_ARGUMENT, f"Unknown resolution '{request.resolution}'."
        )
        start = request.start_timestamp.ToSeconds() // size * size
        for interval in range(start, request.end_timestamp.ToSeconds() - size + 1, size):
            if self._cloud.bills.is_late and interval + size > self._now() // HOUR_S * HOUR_S:
                return
            for app in self._cloud.apps.values():
                if (not request.app_ids or app.app_id in request.app_ids) and (
                    item := self._item(app, interval, size, set(request.tag_names))
                ):
                    yield item

    async def WorkspaceBillingSummary(
        self, request: api_pb2.WorkspaceBillingSummaryRequest
    ) -> api_pb2.WorkspaceBillingSummaryResponse:
        begin = request.start_timestamp.ToDatetime(tzinfo=UTC)
        over = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        span = range(int(begin.timestamp()), int(over.timestamp()), HOUR_S)
        metered = sum(
            (self._total(app, hour, HOUR_S) for hour in span for app in self._cloud.apps.values()), start=Decimal(0)
        )
        credits = min(metered, Decimal(30))
        answer = api_pb2.WorkspaceBillingSummaryResponse(
            metered_cost=amount(metered),
            billed_cost=amount(metered - credits),
            metered_cost_breakdown={"deployed_apps": amount(metered), "ephemeral_apps": "", "volumes": "0E-8"},
            adjustments={"credits": amount(-credits), "free_storage": "-0E-8", "plan_cost": ""},
        )
        answer.start_timestamp.FromDatetime(begin)
        answer.end_timestamp.FromDatetime(min(over, datetime.fromtimestamp(self._now(), UTC)))
        return answer

    def _require_open(self) -> None:
        if closed := self._cloud.bills.closed:
            refuse(Status[closed], "Billing reports are available on the Team and Enterprise plans.")

    def _item(self, app: App, begin: int, size: int, tag_names: set[str]) -> api_pb2.WorkspaceBillingReportItem | None:
        costs = self._costs(app, begin, size)
        if not costs:
            return None
        bills = self._cloud.bills
        costs = {name: cost * Decimal(str(bills.collected)) for name, cost in costs.items()}
        costs |= {name: Decimal(cost) for name, cost in bills.extra.items()}
        item = api_pb2.WorkspaceBillingReportItem(
            object_id=app.app_id,
            description=app.name,
            environment_name=app.environment,
            cost=amount(sum(costs.values(), start=Decimal(0))),
            cost_by_resource={name: amount(cost) for name, cost in costs.items()},
            tags={name: text for name, text in app.tags.items() if "*" in tag_names or name in tag_names},
        )
        item.interval.FromSeconds(begin)
        return item

    def _total(self, app: App, begin: int, size: int) -> Decimal:
        return sum(self._costs(app, begin, size).values(), start=Decimal(0))

    def _costs(self, app: App, begin: int, size: int) -> dict[str, Decimal]:
        """Dollars by resource of an app's containers in one interval; empty when none lived in it."""
        found: dict[str, Decimal] = {}
        for container in self._cloud.containers.values():
            seconds = self._seconds(container, begin, size) if container.app_id == app.app_id else 0
            if seconds:
                for name, per_hour in self._per_hour(container):
                    found[name] = found.get(name, Decimal(0)) + per_hour * seconds / HOUR_S
        return found

    def _seconds(self, container: Container, begin: int, size: int) -> Decimal:
        if not container.process_at:
            return Decimal(0)
        shift = self._cloud.bills.shift_s
        start, end = container.process_at + shift, (container.finished_at or time.time()) + shift
        return Decimal(str(max(0.0, min(end, begin + size) - max(start, begin))))

    def _per_hour(self, container: Container) -> Iterator[tuple[str, Decimal]]:
        """Each resource of a container with dollars per hour: the larger of what was asked for and what is used."""
        bills = self._cloud.bills
        rates = {key: Decimal(text) for key, text in bills.scaled_rates().items()}
        gpu, _, count = container.gpu.partition(":")
        used = bills.used_with_gpu if gpu else bills.used_without_gpu
        name = gpu.rstrip("!+")
        factor = multiplier(container.regions)
        if gpu:
            yield name, rates[gpu_key(name)] * int(count or 1) * factor
        yield "CPU", rates["cpu_hour_cost"] * Decimal(str(max(container.cores, used[0]))) * factor
        yield "Memory", rates["mem_gib_hour_cost"] * Decimal(str(max(container.gib, used[1]))) * factor

    def _now(self) -> float:
        return time.time() + self._cloud.bills.shift_s


def gpu_key(name: str) -> str:
    return f"gpu_hour_cost_{IRREGULAR_KEYS.get(name, name.lower().replace('-', '_'))}"


def multiplier(regions: tuple[str, ...]) -> Decimal:
    """Of several regions the cheapest counts."""
    factors = [Decimal("1.15" if region in BROAD_REGIONS else "1.75") for region in regions]
    return min(factors, default=Decimal(1))


def amount(value: Decimal) -> str:
    return str(value.quantize(CENT_PARTS))
