"""What a sync may cost: the bucket's vendor and, where it runs on Modal, the container that moves the files. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from comfymodal.costs.rates import LIST, Rate, RateTable, hourly_text, money_json, money_text, sync_rate
from comfymodal.costs.storage_rates import BYTES_PER_GB, CALLS_PER_PRICE, RemoteKind, StorageRates, storage_rates

IDLE_S = 20.0
"""How long the container stays when its sync is done; paid like the rest."""

_PAGE = 1000
"""Files that one call lists."""
_FIXED_CALLS = 3
"""Authorizing, finding the bucket, and one look whether it is there."""
_READ_CHUNK, _WRITE_CHUNK = 64 << 20, 96 << 20
"""A large file is read and written in pieces of so many bytes, one request each (storage.rclone.presets)."""
_UPLOAD_ADDRESSES = 4
"""One is asked for per upload that runs at the same time."""


@dataclass(frozen=True, slots=True)
class Requests:
    """At most so many, by the classes of B2's price list: A writes, B reads, C lists, copies and authorizes."""

    a: int
    b: int
    c: int

    @property
    def total(self) -> int:
        return self.a + self.b + self.c


@dataclass(frozen=True, slots=True)
class SyncCost:
    """Money in nanodollars; None is "not known", never "nothing".

    `egress` is the worst: as if nothing of the vendor's free part were left. `storage_per_month` is what is added by
    the files that go up, beyond the vendor's free part, as long as they lie there. `modal` is the container; None
    when how long it takes is not known.
    """

    remote_kind: RemoteKind | None
    pull_bytes: int
    push_bytes: int
    requests: Requests
    requests_cost: int | None
    egress: int | None
    storage_per_month: int | None
    modal: int | None
    seconds: float | None
    rate: Rate | None
    """Of the container; None on this machine."""

    @property
    def worst(self) -> int | None:
        """What this sync itself may cost, storage left out; None when a part of it is not known."""
        parts = (self.requests_cost, self.egress, self.modal)
        return None if None in parts else sum(part for part in parts if part is not None)

    def to_dict(self) -> dict[str, Any]:
        """JSON; amounts are dollars as text, so that no digit is lost, or null."""
        rates = storage_rates(self.remote_kind or "")
        return {
            "remote_kind": self.remote_kind,
            "vendor": rates.vendor if rates else None,
            "prices_as_of": rates.as_of if rates else None,
            "requests": {"a": self.requests.a, "b": self.requests.b, "c": self.requests.c},
            "requests_usd": money_json(self.requests_cost),
            "egress_usd": money_json(self.egress),
            "storage_per_month_usd": money_json(self.storage_per_month),
            "modal_usd": money_json(self.modal),
            "modal_per_hour_usd": money_json(self.rate.nanodollars_per_h) if self.rate else None,
            "modal_prices_as_of": self.rate.as_of if self.rate else None,
            "seconds": self.seconds,
            "worst_usd": money_json(self.worst),
        }

    def lines(self) -> tuple[str, ...]:
        """The same for people, one thing a line."""
        told = [*self._modal_lines()]
        if self.remote_kind is None:
            return tuple(told)
        rates = storage_rates(self.remote_kind)
        if rates is None:
            return (*told, *self._unknown_lines())
        told += self._vendor_lines(rates)
        told.append(f"{rates.vendor}'s prices of {rates.as_of}, {rates.certainty}: {rates.source}")
        return tuple(told)

    def _modal_lines(self) -> tuple[str, ...]:
        if self.rate is None:
            return ()
        hourly = f"{hourly_text(self.rate)}, list price of {self.rate.as_of}"
        if self.modal is None or self.seconds is None:
            return (f"Modal: {hourly}; how long it takes is not known",)
        return (f"Modal: about {money_text(self.modal)} for {self.seconds:.0f} s and {IDLE_S:.0f} s idle ({hourly})",)

    def _unknown_lines(self) -> tuple[str, ...]:
        moved = [f"{_gb(size)} {way}" for size, way in ((self.pull_bytes, "down"), (self.push_bytes, "up")) if size]
        what = ", ".join([*moved, f"up to {_calls(self.requests.total)}"])
        return (f"the bucket: {what}; what its vendor asks for them is not known here",)

    def _vendor_lines(self, rates: StorageRates) -> list[str]:
        told = []
        if self.egress is not None and self.pull_bytes:
            free = f"free up to {rates.free_egress_times} times of what is stored, on the month's average"
            told.append(f"{rates.vendor}: {_gb(self.pull_bytes)} down: {free}; beyond that {money_text(self.egress)}")
        if self.storage_per_month is not None and self.push_bytes:
            told.append(
                f"{rates.vendor}: {_gb(self.push_bytes)} more stored: {money_text(self.storage_per_month)} a month "
                f"(the account's first {rates.free_storage_gb} GB are free)"
            )
        price = money_text(self.requests_cost) if self.requests_cost else "free"
        told.append(f"{rates.vendor}: up to {_calls(self.requests.total)}: {price}")
        return told


def estimate_sync(  # noqa: PLR0913 - one keyword for each thing that is paid for
    *,
    direction: Literal["pull", "push", "both"],
    remote_kind: RemoteKind | None,
    pull_bytes: int,
    push_bytes: int,
    copy_files: int,
    listed_files: int,
    on_modal: bool,
    seconds: float | None,
    table: RateTable = LIST,
) -> SyncCost:
    """Price a plan: what it moves, and what it took to make it.

    `remote_kind` is None between two places that are no bucket (see `kind_of_remote` for the others); `listed_files`
    lie in the bucket; `seconds` is how long the sync may take, None when nothing says so.
    """
    rate = sync_rate(table) if on_modal else None
    modal = 0 if rate is None else None if seconds is None else rate.cost(seconds + IDLE_S)
    rates = storage_rates(remote_kind or "")
    requests = _requests(direction, remote_kind, (pull_bytes, push_bytes), copy_files, listed_files)
    # Between two places that are no bucket, nobody but Modal asks for anything.
    down, up = (pull_bytes, push_bytes) if remote_kind else (0, 0)
    return SyncCost(
        remote_kind=remote_kind,
        pull_bytes=pull_bytes,
        push_bytes=push_bytes,
        requests=requests,
        requests_cost=_price_of(requests, rates),
        egress=_by_size(down, rates.egress_per_gb if rates else None),
        storage_per_month=_by_size(up, rates.storage_per_gb_month if rates else None),
        modal=modal,
        seconds=seconds,
        rate=rate,
    )


def _requests(
    direction: str, remote_kind: RemoteKind | None, size: tuple[int, int], copy_files: int, listed_files: int
) -> Requests:
    if remote_kind is None:
        return Requests(0, 0, 0)
    pull_bytes, push_bytes = size
    reads = copy_files + pull_bytes // _READ_CHUNK if direction != "push" else 0
    writes = copy_files + push_bytes // _WRITE_CHUNK + _UPLOAD_ADDRESSES if direction != "pull" and copy_files else 0
    # The S3 API's listing does not tell the hash of a file that was uploaded in parts: one HEAD each.
    heads = 0 if remote_kind == "b2" else listed_files
    return Requests(a=writes, b=reads + heads, c=_FIXED_CALLS + -(-listed_files // _PAGE))


def _price_of(requests: Requests, rates: StorageRates | None) -> int | None:
    if requests.total == 0:
        return 0
    if rates is None:
        return None
    total = requests.a * rates.class_a + requests.b * rates.class_b + requests.c * rates.class_c
    return -(-total // CALLS_PER_PRICE)


def _by_size(size: int, per_gb: int | None) -> int | None:
    if size == 0:
        return 0
    # Rounded up, as a bound must be.
    return None if per_gb is None else -(-size * per_gb // BYTES_PER_GB)


def _gb(size: int) -> str:
    return f"{size / BYTES_PER_GB:.1f} GB" if size >= BYTES_PER_GB // 10 else f"{size / 10**6:.1f} MB"


def _calls(number: int) -> str:
    return f"{number:,} requests"
