from __future__ import annotations

import pytest

from comfymodal.training.curves import evenly, finite, smoothed


def test_a_smoothed_constant_is_that_constant_from_the_first_step() -> None:
    assert [value for _, value in smoothed(tuple((step, 0.25) for step in range(40)))] == pytest.approx([0.25] * 40)


def test_smoothing_follows_slowly() -> None:
    jump = tuple((step, 0.0 if step < 100 else 1.0) for step in range(200))

    values = dict(smoothed(jump))

    assert values[99] == 0.0
    assert 0.1 < values[101] < 0.5
    assert values[199] > 0.99


def test_a_long_run_is_smoothed_more_than_a_short_one() -> None:
    def after_jump(length: int) -> float:
        return smoothed(tuple((step, float(step >= length // 2)) for step in range(length)))[length // 2 + 10][1]

    assert after_jump(4000) < after_jump(100)


def test_what_is_no_number_is_left_out() -> None:
    assert finite([(1, 0.5), (2, float("inf")), (3, float("nan")), (4, 1.0)]) == ((1, 0.5), (4, 1.0))
    assert smoothed(()) == ()


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(3, 6, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (7, 2, [0, 6]), (5, 1, [4]), (5, 0, []), (0, 3, [])],
)
def test_evenly_keeps_both_ends(count: int, most: int, kept: list[int]) -> None:
    assert list(evenly(range(count), most)) == kept
