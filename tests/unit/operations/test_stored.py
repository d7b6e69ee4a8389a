from __future__ import annotations

from pathlib import Path

from comfymodal.operations.costs_views import storage_views
from comfymodal.operations.stored import Stored, last_stored, note_stored

GIB = 1 << 30


def test_what_a_volume_held_is_remembered_and_torn_notes_are_none(tmp_path: Path) -> None:
    assert last_stored(tmp_path, "shop") == {}
    note_stored(tmp_path, "shop", "models", 7 * GIB)
    assert last_stored(tmp_path, "shop")["models"].size_bytes == 7 * GIB
    (tmp_path / "projects" / "shop" / "stored.json").write_text('{"models": {"size_bytes": "many"}')
    assert last_stored(tmp_path, "shop") == {}


def test_a_look_that_cannot_be_noted_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "projects").write_text("a file in the way")
    note_stored(tmp_path, "shop", "models", 1)
    assert last_stored(tmp_path, "shop") == {}


def test_storage_is_told_as_it_was_last_seen_and_the_free_part_costs_nothing() -> None:
    small, large = (
        next(storage_views(has_volumes=True, stored={"models": Stored(gib * GIB, 1_763_676_000.0)}, remotes=()))
        for gib in (412, 1524)
    )
    assert small.seen == "models held 412.0 GiB on 2025-11-20: $0.00 a month by itself"
    assert large.seen == "models held 1524.0 GiB on 2025-11-20: $45.00 a month by itself"
    (unseen,) = storage_views(has_volumes=True, stored={}, remotes=())
    assert unseen.seen is None
