"""What a bucket's vendor asks: a dated table of list prices in integer nanodollars, and which bucket it is for.

Standard library only. Only Backblaze B2 is known; what any other vendor asks is told as unknown, never as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RemoteKind = Literal["b2", "b2-s3", "s3"]
"""Backblaze by its own API, Backblaze by its S3 API, any other S3."""

BYTES_PER_GB = 10**9
CALLS_PER_PRICE = 1000

_BACKBLAZE_HOST = re.compile(r"https?://s3\.[a-z0-9-]+\.backblazeb2\.com(?::\d+)?/?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StorageRates:
    """One vendor's list prices for a plain account; taxes, contracts and free partners' networks left out.

    Prices of requests are per thousand of their class: A writes, B reads, C lists, copies and authorizes.
    """

    vendor: str
    as_of: str
    certainty: str
    """How the prices are known."""
    source: str
    """Where they can be looked up."""
    storage_per_gb_month: int
    """A month is 30 days."""
    free_storage_gb: int
    egress_per_gb: int
    free_egress_times: int
    """Downloads are free up to so many times what is stored, on the month's average."""
    class_a: int
    class_b: int
    class_c: int


BACKBLAZE = StorageRates(
    vendor="Backblaze B2",
    # Until 30 April 2026 storage was $6.00/TB, and beyond 2,500 calls a day B cost $0.004 per 10,000 and C per 1,000;
    # Backblaze's own page on prices by call still said so when this was read.
    as_of="2026-09-11",
    certainty="as others read the vendor's page",
    source="https://www.backblaze.com/cloud-storage/pricing",
    storage_per_gb_month=6_950_000,
    free_storage_gb=10,
    egress_per_gb=10_000_000,
    free_egress_times=3,
    class_a=0,
    class_b=0,
    class_c=0,
)

_RATES: Mapping[str, StorageRates] = {"b2": BACKBLAZE, "b2-s3": BACKBLAZE}


def kind_of_remote(kind: str, endpoint: str | None) -> RemoteKind:
    """Which bucket it is, of a remote's `kind` (b2 or s3) and address."""
    if kind == "b2":
        return "b2"
    return "b2-s3" if _BACKBLAZE_HOST.fullmatch(endpoint or "") else "s3"


def storage_rates(remote_kind: str) -> StorageRates | None:
    """The vendor's prices; None when they are not known."""
    return _RATES.get(remote_kind)
