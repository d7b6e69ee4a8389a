"""The note of what was sent to a volume: what it proves of a file that lists, and what it does not."""

from __future__ import annotations

import pytest

from comfymodal.targets.modal.volume_sent import KEPT, Sent, SentFiles, parse_sent

FILE = Sent(3, "aa", 1.5)


def test_a_note_that_was_read_knows_the_files_of_its_batch_by_their_time() -> None:
    note = parse_sent(SentFiles().add({"a": FILE}).text(), written=100)
    assert note.of("a", 3, 102) == FILE
    assert note.of("a", 4, 100) is None
    assert note.of("a", 3, 200) is None  # somebody else wrote it later
    assert note.of("b", 3, 100) is None


def test_a_file_that_was_seen_is_known_by_that_time_alone() -> None:
    note = SentFiles().add({"a": FILE})
    assert note.of("a", 3, 100) is None  # not there yet, so no time of the volume is known
    note.listed("a", 102)
    assert note.of("a", 3, 102) is not None
    assert parse_sent(note.text(), written=101).of("a", 3, 101) is None


def test_only_files_that_were_seen_are_handed_on() -> None:
    note = SentFiles().add({"a": FILE, "b": FILE})
    note.listed("a", 102)
    assert set(note.add({"c": FILE}).files) == {"a", "c"}


def test_old_files_make_room() -> None:
    note = SentFiles({f"{number}": Sent(1, "aa", None, 1) for number in range(KEPT)})
    kept = note.add({"new": FILE}).files
    assert len(kept) == KEPT
    assert "new" in kept
    assert "0" not in kept


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"files": 3}', b'{"files": {"a": [1]}, "batch": ""}', b"\xff"])
def test_a_damaged_note_knows_nothing(text: bytes) -> None:
    assert parse_sent(text, 1) == SentFiles()
