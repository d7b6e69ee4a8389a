from __future__ import annotations

import json
from typing import Any

import pytest

from comfymodal.costs.rates import sync_rate
from comfymodal.costs.storage_rates import BACKBLAZE, kind_of_remote, storage_rates
from comfymodal.costs.sync_estimate import IDLE_S, Requests, SyncCost, estimate_sync

GB = 10**9
PULL: dict[str, Any] = {
    "direction": "pull",
    "remote_kind": "b2",
    "pull_bytes": 200 * GB,
    "push_bytes": 0,
    "copy_files": 40,
    "listed_files": 2001,
    "on_modal": True,
    "seconds": 600.0,
}
PUSH: dict[str, Any] = {**PULL, "direction": "push", "pull_bytes": 0, "push_bytes": 200 * GB, "on_modal": False}


def price(**changes: Any) -> SyncCost:
    return estimate_sync(**{**PULL, **changes})


def test_the_container_of_a_sync_has_2_cores_and_4_gib() -> None:
    assert sync_rate().nanodollars_per_s == 2 * 13_100 + 4 * 2_220


def test_a_pull_costs_the_container_and_at_worst_the_download() -> None:
    cost = price()

    assert cost.modal == 35_080 * (600 + IDLE_S)
    # $0.01 per GB, as if nothing of the free part were left.
    assert (cost.egress, cost.storage_per_month, cost.requests_cost) == (2_000_000_000, 0, 0)
    assert cost.worst == 2_021_749_600
    # A file in pieces of 64 MiB is a request each; 2,001 files are three pages.
    assert cost.requests == Requests(0, 40 + 200 * GB // (64 << 20), 6)


def test_a_push_is_stored_from_then_on() -> None:
    cost = estimate_sync(**PUSH)

    assert (cost.egress, cost.modal, cost.worst) == (0, 0, 0)
    assert cost.storage_per_month == 200 * 6_950_000
    assert cost.requests == Requests(40 + 200 * GB // (96 << 20) + 4, 0, 6)
    assert cost.lines()[0] == ("Backblaze B2: 200.0 GB more stored: $1.39 a month (the account's first 10 GB are free)")


def test_both_ways_cost_both() -> None:
    cost = price(direction="both", push_bytes=GB)

    assert (cost.egress, cost.storage_per_month) == (2_000_000_000, 6_950_000)
    assert min(cost.requests.a, cost.requests.b) > 40


def test_a_byte_is_not_free() -> None:
    assert price(pull_bytes=1).egress == 1
    assert price(pull_bytes=0).egress == 0


def test_what_another_vendor_asks_is_not_known() -> None:
    cost = price(remote_kind="s3")

    assert (cost.egress, cost.requests_cost, cost.storage_per_month, cost.worst) == (None, None, 0, None)
    assert estimate_sync(**{**PUSH, "remote_kind": "s3"}).storage_per_month is None
    assert cost.to_dict()["egress_usd"] is None
    assert cost.lines()[-1] == (
        "the bucket: 200.0 GB down, up to 5,027 requests; what its vendor asks for them is not known here"
    )
    assert "$0.00" not in " ".join(cost.lines()[1:])


def test_a_time_that_is_not_known_is_priced_by_the_hour() -> None:
    cost = price(seconds=None)

    assert (cost.modal, cost.worst, cost.to_dict()["modal_usd"]) == (None, None, None)
    assert cost.lines()[0] == "Modal: $0.1263/h, list price of 2026-10-07; how long it takes is not known"


def test_between_a_folder_and_a_volume_nobody_asks_for_anything() -> None:
    cost = price(remote_kind=None, on_modal=False)

    assert (cost.worst, cost.storage_per_month, cost.requests, cost.lines()) == (0, 0, Requests(0, 0, 0), ())


def test_people_read_the_free_rule_and_where_prices_are_from() -> None:
    assert price().lines() == (
        "Modal: about $0.0217 for 600 s and 20 s idle ($0.1263/h, list price of 2026-10-07)",
        "Backblaze B2: 200.0 GB down: free up to 3 times of what is stored, on the month's average; beyond that $2.00",
        "Backblaze B2: up to 3,026 requests: free",
        f"Backblaze B2's prices of 2026-09-11, as others read the vendor's page: {BACKBLAZE.source}",
    )


def test_json_has_every_digit() -> None:
    told = json.loads(json.dumps(price(pull_bytes=1).to_dict()))

    assert told["egress_usd"] == "0.000000001"
    assert told["worst_usd"] == "0.021749601"
    assert told["modal_per_hour_usd"] == "0.126288"
    assert told["prices_as_of"] == BACKBLAZE.as_of


@pytest.mark.parametrize(
    ("kind", "endpoint", "found"),
    [
        ("b2", None, "b2"),
        ("b2", "http://127.0.0.1:9", "b2"),
        ("s3", "https://s3.us-west-004.backblazeb2.com", "b2-s3"),
        ("s3", "https://S3.eu-central-003.backblazeb2.com/", "b2-s3"),
        ("s3", "https://s3.us-west-004.backblazeb2.com.evil.example", "s3"),
        ("s3", "https://minio.example", "s3"),
        ("s3", None, "s3"),
    ],
)
def test_whose_bucket_it_is(kind: str, endpoint: str | None, found: str) -> None:
    assert kind_of_remote(kind, endpoint) == found
    assert (storage_rates(found) is None) == (found == "s3")
