from __future__ import annotations

from datetime import UTC, datetime

import pytest

from comfymodal.costs.period import parse_since

NOW = datetime(2026, 11, 21, 13, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("7d", datetime(2026, 11, 15, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 21, tzinfo=UTC)),
        ("30d", datetime(2026, 10, 23, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 20, 13, 30, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 21, 12, 0, tzinfo=UTC)),
        (" 2026-11-01 ", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
    ],
)
def test_a_period_begins_where_it_says(text: str, since: datetime) -> None:
    assert parse_since(text, now=NOW) == since.timestamp()


def test_all_has_no_beginning() -> None:
    assert parse_since("ALL", now=NOW) is None


@pytest.mark.parametrize("text", ["", "week", "7", "-7d", "0d", "2026-13-01", "2026-11-22", "999999d", "7d3h", "1e3d"])
def test_what_is_no_period_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"period|to come|calendar"):
        parse_since(text, now=NOW)
