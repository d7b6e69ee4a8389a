from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfymodal.output.words import bytes_in_words, count, home_path, seconds_in_words, shown_path


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (10, "10 s"), (59.4, "59 s")),
        *((59.6, "1:00 min"), (60, "1:00 min"), (61, "1:01 min"), (3599.4, "59:59 min"), (3599.6, "1:00 h")),
        *((3661, "1:01 h"), (360_000, "100:00 h")),
    ],
)
def test_seconds_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12.3 kB"), (123_456, "123 kB")),
        *((1_234_567, "1.2 MB"), (999_000_000, "999 MB"), (1_500_000_000, "1.5 GB"), (10**13, "10000.0 GB")),
    ],
)
def test_bytes_are_said_in_units_of_a_thousand(size: int, words: str) -> None:
    assert bytes_in_words(size) == words


@pytest.mark.parametrize(("number", "words"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_is_singular(number: int, words: str) -> None:
    assert count(number, "file") == words


def test_a_path_is_relative_below_the_working_directory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(str(tmp_path / "outputs" / "a.png")) == os.path.join("outputs", "a.png")
    assert shown_path(str(tmp_path / "..a.png")) == "..a.png"
    assert shown_path(str(tmp_path.parent / "a.png")) == str(tmp_path.parent / "a.png")
    assert shown_path("/etc/a.png") == "/etc/a.png"


@pytest.mark.skipif(os.name == "nt", reason="Windows does not delete a folder somebody stands in")
def test_a_path_is_shown_as_it_is_where_there_is_no_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shown_path("/etc/a.png") == "/etc/a.png"


def test_the_home_folder_is_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_path(str(tmp_path / "x")) == "~" + os.sep + "x"
    assert home_path(str(tmp_path) + "-other") == str(tmp_path) + "-other"
