from __future__ import annotations

import os
from pathlib import Path

from comfymodal.storage.partials import ORPHAN_AGE_S, sweep_partials

NOW = 2_000_000_000.0


def make(path: Path, age_s: float = ORPHAN_AGE_S + 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


def test_only_old_halves_of_files_that_are_synced_are_removed(tmp_path: Path) -> None:
    ours = make(tmp_path / "loras" / "a.bin.0123abcd.partial")
    kept = [
        make(tmp_path / "b.bin.0123abcd.partial", age_s=60),
        make(tmp_path / "notes.cafebabe.partial"),
        make(tmp_path / "b.bin.partial"),
        make(tmp_path / ".comfymodal" / "trash" / "20261121T000000Z" / "b.bin.0123abcd.partial"),
    ]
    assert sweep_partials(tmp_path, {"loras/a.bin", "b.bin"}, now=NOW) == 1
    assert not ours.exists()
    assert all(path.exists() for path in kept)
