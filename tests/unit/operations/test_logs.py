from __future__ import annotations

from collections.abc import Sequence

import pytest

from comfymodal.errors import ServiceError
from comfymodal.operations.logs import OVERLAP_S, Follower, is_wanted, view_of
from comfymodal.targets.modal.logs import LogLine


def line(at: float, text: str, container: str = "ta-1") -> LogLine:
    return LogLine(at, container, "", "stdout", text)


class Log:
    """A log that grows with each look; ends with the last."""

    def __init__(self, *looks: Sequence[LogLine]) -> None:
        self._looks = list(looks)
        self.asked: list[float] = []

    def read(self, since: float) -> list[LogLine]:
        self.asked.append(since)
        return [one for one in self._looks[len(self.asked) - 1] if one.at >= since]

    def is_over(self) -> bool:
        return len(self.asked) == len(self._looks) - 1


def texts(first: Sequence[LogLine], log: Log, since: float = 0.0) -> list[str]:
    follower = Follower(first, log.read, since, every_s=0, late_s=0)
    return [one.text for one in follower.follow(log.is_over)]


def test_lines_that_were_shown_do_not_come_again() -> None:
    a, b, c = line(1, "a"), line(2, "b"), line(3, "c")
    assert texts([a], Log([a, b], [a, b], [a, b, c])) == ["b", "c"]


def test_a_line_that_was_said_twice_comes_twice() -> None:
    a = line(1, "a")
    assert texts([a], Log([a, a], [a, a, a])) == ["a", "a"]


def test_lines_that_arrive_late_and_out_of_order_come_once() -> None:
    early, late = line(10, "early"), line(12, "late")
    assert texts([], Log([late], [early, late], [early, late])) == ["late", "early"]


def test_a_look_goes_back_only_a_little() -> None:
    log = Log([line(1000, "a")], [line(1000, "a")], [line(1000, "a"), line(1001, "b")])
    assert texts([line(500, "old")], log) == ["a", "b"]
    assert log.asked == [500 - OVERLAP_S, 1000 - OVERLAP_S, 1000 - OVERLAP_S]


def test_the_last_lines_are_read_after_the_end() -> None:
    log = Log([line(1, "last")])
    assert texts([], log) == ["last"]
    assert len(log.asked) == 1


def test_the_same_words_of_two_containers_are_two_lines() -> None:
    assert texts([], Log([line(1, "a"), line(1, "a", "ta-2")])) == ["a", "a"]


def test_a_short_silence_loses_nothing_and_a_long_one_is_an_error() -> None:
    asked: list[float] = []

    def read(since: float) -> list[LogLine]:
        asked.append(since)
        if len(asked) == 2:
            raise ServiceError("away")
        return [line(1, "a"), line(2, "b")][: len(asked)]

    def follow(patience_s: float) -> list[str]:
        asked.clear()
        follower = Follower([], read, 0.0, every_s=0, late_s=0, patience_s=patience_s)
        return [one.text for one in follower.follow(lambda: len(asked) >= 2)]

    assert follow(60) == ["a", "b"]
    with pytest.raises(ServiceError, match="away"):
        follow(0)


def test_text_is_looked_for_as_it_is_written() -> None:
    assert is_wanted("CUDA out of memory", "out of")
    assert not is_wanted("CUDA out of memory", "OUT")
    assert not is_wanted("abc", "a.c")
    assert is_wanted("", None)


def test_a_line_is_shown_with_time_and_container() -> None:
    view = view_of(line(0.1234, "a"))
    assert (view.at, view.container_id, view.source, view.text) == ("1970-01-01T00:00:00.123Z", "ta-1", "stdout", "a")
    assert view_of(line(0, "a", "")).container_id is None
