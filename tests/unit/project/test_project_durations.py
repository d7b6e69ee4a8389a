from __future__ import annotations

import random

import pytest

from comfymodal.project.durations import LONGEST_S, SHORTEST_S, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1d2h3m4s", 93784), ("0.5s", 0.5)),
        *((45, 45), (1.5, 1.5), (0.001, 0.001), ("365d", LONGEST_S)),
    ],
)
def test_a_duration_is_read_as_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "15", "15 m", "m", "1m1h", "1.5h", "-1s", "never", "15M", "1h ", "\uff11m", True, None, [], {}),
        *(0, -1, 1e-4, "0s", "366d", "9" * 500 + "d", 10**400, float("inf"), float("nan")),
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(900.0, "15m"), (5400.0, "1h30m"), (0.5, "0.5s"), (86400.0, "1d"), (61.25, "1m1.25s")]
)
def test_seconds_are_shown_the_short_way(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_what_is_shown_reads_back_to_the_millisecond() -> None:
    rng = random.Random(7)
    for _ in range(500):
        seconds = rng.choice([rng.uniform(SHORTEST_S, 10), rng.uniform(1, LONGEST_S), float(rng.randrange(1, 10**6))])
        assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0006)
