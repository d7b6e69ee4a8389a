from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comfymodal.errors import ConflictError, NotReadyError
from comfymodal.storage.base import (
    Base,
    Entry,
    is_same_time,
    lasting_time,
    matches,
    read_base,
    recall,
    same_content,
    to_hash,
    write_base,
)
from comfymodal.storage.names import base_file, pair_id
from comfymodal.storage.values import FileState

PAIR = "here <-> there"
ENTRY = Entry(3, {"sha1": "aa"}, "id-1", 100.5, 200.0, verified=True)
BASE = Base(PAIR, entries={"ünï/a.bin": ENTRY, "b": replace(ENTRY, version=None, mtime=None)}, pending={"b": "pull"})


def test_a_base_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "not there yet" / "base.json"

    written = write_base(path, BASE)

    assert written == replace(BASE, generation=1)
    assert read_base(path, PAIR) == written
    assert [found.name for found in path.parent.iterdir()] == ["base.json"]


def test_the_same_base_is_the_same_text(tmp_path: Path) -> None:
    backwards = replace(BASE, entries={path: BASE.entries[path] for path in ("b", "ünï/a.bin")})
    write_base(tmp_path / "one", BASE)
    write_base(tmp_path / "two", backwards)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_lost_base_is_none(tmp_path: Path) -> None:
    assert read_base(tmp_path / "base.json", PAIR) is None


def test_a_base_cut_anywhere_is_none(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    write_base(path, BASE)
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert read_base(path, PAIR) is None, length


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "3"),
        ("size", None),
        ("hashes", ["aa"]),
        ("hashes", {"sha1": 1}),
        ("etag", 5),
        ("mtime", "x"),
        ("verified", 1),
        ("synced_at", None),
    ],
)
def test_one_damaged_entry_makes_the_whole_base_none(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "base.json"
    write_base(path, BASE)
    tree = json.loads(path.read_text())
    tree["entries"]["b"][key] = value
    path.write_text(json.dumps(tree))

    assert read_base(path, PAIR) is None


@pytest.mark.parametrize("text", ["[]", "null", '{"version": "1"}', '{"version": 1}', "[" * 100_000, "\xff"])
def test_other_files_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(text, encoding="latin-1")

    assert read_base(path, PAIR) is None


def test_the_base_of_other_places_is_none(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    write_base(path, BASE)

    assert read_base(path, "here <-> elsewhere") is None


def test_a_newer_base_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    write_base(path, BASE)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))

    with pytest.raises(NotReadyError, match="format 2"):
        read_base(path, PAIR)


def test_a_writer_goes_on_from_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    first = write_base(path, BASE)
    second = write_base(path, replace(first, pending={}))

    assert (second.generation, read_base(path, PAIR)) == (2, second)


def test_another_writer_is_noticed_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    mine = write_base(path, BASE)
    theirs = write_base(path, replace(mine, pending={}))

    with pytest.raises(ConflictError, match="changed by another sync"):
        write_base(path, mine)
    assert read_base(path, PAIR) == theirs


def test_two_writers_at_the_same_generation_are_told_apart(tmp_path: Path) -> None:
    path, aside = tmp_path / "base.json", tmp_path / "aside.json"
    mine = write_base(path, BASE)
    write_base(aside, replace(BASE, entries={}))
    aside.replace(path)

    with pytest.raises(ConflictError):
        write_base(path, mine)


def test_a_base_that_appeared_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    write_base(path, BASE)

    with pytest.raises(ConflictError):
        write_base(path, Base(PAIR))


def test_a_base_that_vanished_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    mine = write_base(path, BASE)
    path.unlink()

    with pytest.raises(ConflictError):
        write_base(path, mine)


def test_a_damaged_base_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text('{"version": 1, "entr')

    written = write_base(path, BASE)

    assert read_base(path, PAIR) == written == replace(BASE, generation=1)


def test_pairs_have_files_of_their_own(tmp_path: Path) -> None:
    one, other = pair_id("models:/", "store:a/b"), pair_id("models:/", "store:a-b")

    assert base_file(tmp_path, one) != base_file(tmp_path, other)
    assert base_file(tmp_path, one).parent == tmp_path / ".comfymodal" / "bases"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (FileState(1, {"sha1": "a"}), FileState(2, {"sha1": "a"}), False),
        (FileState(1, {"sha1": "a"}), FileState(1, {"sha1": "A"}), True),
        (FileState(1, {"sha1": "a"}), FileState(1, {"sha1": "b"}), False),
        (FileState(1, {"sha1": "a", "md5": "m"}), FileState(1, {"sha1": "a", "md5": "n"}), False),
        (FileState(1, {"sha1": "a"}), FileState(1, {"md5": "m"}), None),
        (FileState(1), FileState(1), None),
        (FileState(1, mtime=5.0), FileState(1, mtime=5.0), None),
        (FileState(0), FileState(0, {"md5": "m"}), True),
    ],
)
def test_sameness_is_size_and_any_common_hash(one: FileState, other: FileState, expected: bool | None) -> None:
    assert same_content(one, other) is expected
    assert same_content(other, one) is expected


def test_a_version_decides_only_where_hashes_cannot() -> None:
    assert matches(FileState(1, version="v"), FileState(1, version="v")) is True
    assert matches(FileState(1, version="v"), FileState(1, version="w")) is False
    assert matches(FileState(1, {"sha1": "a"}, version="v"), FileState(1, {"sha1": "a"}, version="w")) is True
    assert matches(FileState(1, {"sha1": "a"}, version="v"), FileState(1, {"sha1": "b"}, version="v")) is False
    assert matches(FileState(1, version="v"), FileState(1)) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (5.1234, 5.1239, True),
        (5.123, 5.128, False),
        (5.0, 5.9, True),
        (5.0, 6.0, False),
        (None, 5.0, False),
        (None, None, False),
    ],
)
def test_times_are_equal_as_precisely_as_the_places_keep_them(
    one: float | None, other: float | None, expected: bool
) -> None:
    assert is_same_time(one, other) is expected
    assert is_same_time(other, one) is expected


def test_a_file_younger_than_a_clock_tick_when_listed_proves_nothing_later() -> None:
    assert lasting_time(90.0, listed_at=100.0) == 90.0
    assert lasting_time(99.0, listed_at=100.0) is None
    assert lasting_time(None, listed_at=100.0) is None


def test_only_files_that_look_untouched_are_recalled() -> None:
    base = Base(PAIR, entries={"old": ENTRY, "touched": ENTRY, "grown": ENTRY, "hashed": ENTRY})
    here = {
        "old": FileState(3, mtime=100.5),
        "touched": FileState(3, mtime=101.7),
        "grown": FileState(4, mtime=100.5),
        "hashed": FileState(3, {"sha1": "bb"}, mtime=100.5),
        "new": FileState(3, mtime=100.5),
    }

    found = recall(here, base)

    assert {path: dict(state.hashes) for path, state in found.items()} == {
        "old": {"sha1": "aa"},
        "touched": {},
        "grown": {},
        "hashed": {"sha1": "bb"},
        "new": {},
    }
    assert recall(here, None) == here


def test_only_what_hashes_can_decide_is_hashed() -> None:
    base = Base(PAIR, entries={"known": replace(ENTRY, hashes={"sha256": "cc"})})
    here = {path: FileState(3) for path in ("known", "rival", "alone", "no hash there", "other size")} | {
        "decided": FileState(3, {"sha1": "aa"})
    }
    there = {
        "known": FileState(3, {"sha1": "aa"}),
        "rival": FileState(3, {"md5": "mm"}),
        "no hash there": FileState(3),
        "other size": FileState(4, {"md5": "mm"}),
        "decided": FileState(3, {"sha1": "bb"}),
    }

    assert to_hash(here, there, base) == {"known": ("sha1", "sha256"), "rival": ("md5",)}
