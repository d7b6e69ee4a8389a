"""The order of looks, what is skipped, and which failure a command ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comfymodal.errors import CancelledError, ComfymodalError, NotFoundError, ProjectError, ServiceError
from comfymodal.operations.doctor import judge_clock, look_at_folder
from comfymodal.operations.examine import Check, Finding, examine, first_failure, row_of


def failing(error: ComfymodalError) -> Callable[[], Finding]:
    def look() -> Finding:
        raise error

    return look


def fine() -> Finding:
    return Finding("ok", "fine")


def test_looks_that_need_a_failed_one_are_skipped_and_the_others_taken() -> None:
    told = examine(
        [
            Check("token", failing(NotFoundError("none", hint="get one"))),
            Check("service", fine),
            Check("workspace", fine, ("token", "service")),
            Check("volume", fine, ("workspace",)),
            Check("clock", fine, ("service",)),
        ]
    )

    assert [(row.check, row.status, row.what) for row, _ in told] == [
        ("token", "fail", "none"),
        ("service", "ok", "fine"),
        ("workspace", "skipped", "cannot be told without: token"),
        ("volume", "skipped", "cannot be told without: workspace"),
        ("clock", "ok", "fine"),
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(NotFoundError("gone"), 4, id="not found"),
        pytest.param(ProjectError("refused"), 4, id="refused by Modal"),
        pytest.param(ServiceError("down"), 5, id="service"),
    ],
)
def test_every_failure_has_a_hint_and_an_exit_code(error: ComfymodalError, code: int) -> None:
    told = examine([Check("first", fine), Check("second", failing(error)), Check("third", failing(error))])
    first = first_failure(told)

    assert all(row.hint for row, _ in told[1:])
    assert first is not None
    assert (first.exit_code, first.message) == (code, f"second: {error.message} (and 1 more)")
    assert first.hint == told[1][0].hint


def test_warnings_and_what_is_not_used_are_no_failures() -> None:
    told = [row_of("a", Finding("warn", "hm", "do")), row_of("b", Finding("not used", "no"))]

    assert first_failure(told) is None


def test_an_interruption_ends_the_examination() -> None:
    with pytest.raises(CancelledError):
        examine([Check("live", failing(CancelledError("interrupted")))])


@pytest.mark.parametrize(
    ("ahead_s", "status", "said"),
    [
        (0.2, "ok", "within 1 s of Modal's"),
        (-59.6, "ok", "within 60 s of Modal's"),
        (61.0, "warn", "61 s ahead of Modal's"),
        (-7200.0, "warn", "7200 s behind Modal's"),
    ],
)
def test_a_clock_may_be_a_minute_off(ahead_s: float, status: str, said: str) -> None:
    finding = judge_clock(ahead_s, "a test")

    assert finding.status == status
    assert said in finding.what
    assert bool(finding.hint) == (status == "warn")


def test_an_output_folder_need_not_be_there_and_is_not_made(tmp_path: Path) -> None:
    finding = look_at_folder(tmp_path / "a" / "b")

    assert (finding.status, finding.what) == ("ok", f"{tmp_path}/a/b will be made in {tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_the_output_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = look_at_folder(tmp_path / "file" / "outputs")

    assert (finding.status, finding.exit_code) == ("fail", 4)
    assert str(tmp_path / "file") in finding.what
    assert finding.hint


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that not even root may write to")
def test_a_folder_nobody_can_write_to_fails() -> None:
    finding = look_at_folder(Path("/proc/outputs"))

    assert (finding.status, finding.exit_code) == ("fail", 4)
    assert finding.what.startswith("cannot write to /proc")
