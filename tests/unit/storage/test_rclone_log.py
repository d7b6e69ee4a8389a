from __future__ import annotations

import json

import pytest

from comfymodal.storage.rclone.log import Moving, moving_files, parse_line, speed


def test_a_copied_file() -> None:
    said = {"level": "info", "msg": "Multi-thread Copied (new)", "size": 7, "object": "a/ü.bin", "objectType": "x"}

    line = parse_line(json.dumps(said))

    assert (line.path, line.size, line.is_copied, line.is_error, line.is_deleted) == ("a/ü.bin", 7, True, False, False)


@pytest.mark.parametrize("message", ["Copied (server-side copy)", "Copied (replaced existing)", "Copied (Rcat, new)"])
def test_other_words_for_copied(message: str) -> None:
    assert parse_line(json.dumps({"level": "info", "msg": message, "object": "a"})).is_copied


def test_a_message_about_copying_is_no_copy() -> None:
    said = {"level": "error", "msg": "Failed to copy: multi-thread copy: Copied (not)", "object": "a"}

    line = parse_line(json.dumps(said))

    assert (line.is_copied, line.is_error) == (False, True)


def test_an_attempt_that_succeeded_is_logged_as_an_error_and_is_none() -> None:
    assert not parse_line('{"level":"error","msg":"Attempt 2/3 succeeded"}').is_error


def test_what_is_no_json_is_kept_and_counts_as_an_error() -> None:
    for text in ("panic: runtime error", "[1, 2]", '{"level": "in', "12"):
        line = parse_line(f"{text}\n")
        assert (line.level, line.message, line.is_error) == ("", text, True)


def test_statistics() -> None:
    stats = {"transferring": [{"name": "a", "bytes": 5, "size": 9, "speed": 2.5}, {"name": "b", "eta": None}]}

    line = parse_line(json.dumps({"level": "notice", "msg": "\nTransferred", "stats": stats}))

    assert line.stats is not None
    assert moving_files(line.stats) == (Moving("a", 5, 9), Moving("b", 0, 0))
    assert speed(line.stats) == 2.5


def test_statistics_without_transfers() -> None:
    assert moving_files({}) == ()
    assert moving_files({"transferring": None}) == ()
    assert speed({}) == 0
    assert parse_line('{"level":"notice","msg":"x","stats":"no"}').stats is None
