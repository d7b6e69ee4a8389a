from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from comfymodal.errors import ConflictError, NotFoundError, SyncRefusedError
from comfymodal.storage.names import ignores_case, inside, stamp_of
from comfymodal.storage.trash import (
    Trashed,
    empty,
    keep_replaced,
    list_trash,
    older_than,
    put_away,
    restore,
    set_aside,
    trash_name,
)
from comfymodal.storage.values import FileState

STAMP = "20261121T130300Z"


def write(root: Path, name: str, text: str = "content") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_file_put_away_is_in_the_trash_and_can_come_back(tmp_path: Path) -> None:
    write(tmp_path, "loras/a b.bin")

    name = put_away(tmp_path, "loras/a b.bin", STAMP)

    assert name == trash_name(STAMP, "loras/a b.bin") == f".comfymodal/trash/{STAMP}/loras/a b.bin"
    assert files(tmp_path) == {name: "content"}
    (item,) = list_trash(tmp_path)
    assert item == Trashed(STAMP, "loras/a b.bin", 7)
    assert restore(tmp_path, item) == tmp_path / "loras" / "a b.bin"
    assert files(tmp_path) == {"loras/a b.bin": "content"}
    assert list_trash(tmp_path) == ()


def test_what_is_replaced_keeps_its_place_until_its_successor_is_there(tmp_path: Path) -> None:
    write(tmp_path, "a", "old")

    name = keep_replaced(tmp_path, "a", STAMP)
    assert files(tmp_path) == {"a": "old", name: "old"}
    write(tmp_path, "a.partial", "new").replace(tmp_path / "a")

    assert files(tmp_path) == {"a": "new", name: "old"}


def test_without_hard_links_it_is_moved(tmp_path: Path, mocker: MockerFixture) -> None:
    # No file system without hard links can be had in a test without root.
    mocker.patch.object(os, "link", side_effect=OSError(errno.EPERM, "Operation not permitted"))
    write(tmp_path, "a", "old")

    name = keep_replaced(tmp_path, "a", STAMP)

    assert files(tmp_path) == {name: "old"}


def test_keeping_twice_keeps_one_and_deleting_afterwards_deletes(tmp_path: Path) -> None:
    write(tmp_path, "a")

    assert keep_replaced(tmp_path, "a", STAMP) == keep_replaced(tmp_path, "a", STAMP)
    name = put_away(tmp_path, "a", STAMP)

    assert files(tmp_path) == {name: "content"}


def test_the_trash_never_overwrites(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        write(tmp_path, "a", text)
        put_away(tmp_path, "a", STAMP)
    write(tmp_path, "b", "file")
    put_away(tmp_path, "b", STAMP)
    write(tmp_path, "b/c", "below what was a file")
    put_away(tmp_path, "b/c", STAMP)

    found = {(item.stamp, item.path) for item in list_trash(tmp_path)}
    assert found == {
        (STAMP, "a"),
        (f"{STAMP}-2", "a"),
        (f"{STAMP}-3", "a"),
        (STAMP, "b"),
        (f"{STAMP}-2", "b/c"),
    }
    assert sorted(files(tmp_path / ".comfymodal").values())[-3:] == ["one", "three", "two"]


@pytest.mark.parametrize("act", [put_away, keep_replaced])
def test_a_file_that_changed_since_the_plan_is_left_alone(tmp_path: Path, act: object) -> None:
    assert callable(act)
    path = write(tmp_path, "a")
    os.utime(path, (1000, 1000))

    for expected in (FileState(6, mtime=1000.0), FileState(7, mtime=1001.0)):
        with pytest.raises(ConflictError, match="changed while the sync ran"):
            act(tmp_path, "a", STAMP, expected=expected)
    assert files(tmp_path) == {"a": "content"}
    act(tmp_path, "a", STAMP, expected=FileState(7, mtime=1000.0))
    assert len(list_trash(tmp_path)) == 1


def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    write(tmp_path, "file")
    for path in ("nothing", "no/folder", "file/below"):
        with pytest.raises(NotFoundError):
            put_away(tmp_path, path, STAMP)


def test_paths_that_climb_out_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = write(tmp_path, "outside/a")
    (root / "link").symlink_to(tmp_path / "outside")

    for path in ("../outside/a", str(outside), "link/a", "x/../../outside/a"):
        with pytest.raises(SyncRefusedError):
            put_away(root, path, STAMP)
        with pytest.raises(SyncRefusedError):
            inside(root, path)
    with pytest.raises(SyncRefusedError):
        restore(root, Trashed(STAMP, "../outside/b", 1))
    with pytest.raises(SyncRefusedError):
        empty(root, [Trashed("../../..", "outside/a", 1)])
    assert outside.read_text() == "content"


def test_a_conflict_copy_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "a", "mine")
    write(tmp_path, "a.conflict", "somebody's")

    with pytest.raises(ConflictError, match="appeared"):
        set_aside(tmp_path, "a", "a.conflict")
    set_aside(tmp_path, "a", "sub/a.conflict-2")

    assert files(tmp_path) == {"a.conflict": "somebody's", "sub/a.conflict-2": "mine"}


def test_restoring_overwrites_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", "old")
    put_away(tmp_path, "a", STAMP)
    write(tmp_path, "a", "new")
    (item,) = list_trash(tmp_path)

    with pytest.raises(ConflictError, match="there again"):
        restore(tmp_path, item)
    with pytest.raises(NotFoundError):
        restore(tmp_path, Trashed(STAMP, "b", 1))
    assert (tmp_path / "a").read_text() == "new"
    assert list_trash(tmp_path) == (item,)


def test_emptying_deletes_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    for stamp in (stamp_of(1000), stamp_of(2000)):
        write(tmp_path, "loras/a")
        put_away(tmp_path, "loras/a", stamp)
    write(tmp_path, f".comfymodal/trash/{STAMP}-2/b")
    write(tmp_path, ".comfymodal/trash/by hand/c")
    items = list_trash(tmp_path)

    old = older_than(items, 2000)
    assert [item.trashed_at for item in items] == [1000.0, 2000.0, 1795266180.0, None]
    assert old == items[:1]
    assert empty(tmp_path, old) == (1, 7)
    assert empty(tmp_path, old) == (0, 0)
    assert list_trash(tmp_path) == items[1:]
    assert empty(tmp_path, items) == (3, 3 * 7)
    assert not (tmp_path / ".comfymodal" / "trash").exists()


def test_an_empty_trash_is_empty(tmp_path: Path) -> None:
    assert list_trash(tmp_path) == ()
    assert empty(tmp_path, []) == (0, 0)


def test_whether_a_disk_ignores_case_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()

    assert ignores_case(tmp_path) is (tmp_path / "PROBE").exists()


def test_a_file_made_anew_while_the_old_one_goes_to_the_trash_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    rename = Path.rename

    def rename_and_make_anew(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        self.write_bytes(b"new")
        return moved

    monkeypatch.setattr(Path, "rename", rename_and_make_anew)
    put_away(tmp_path, "a.bin", "stamp")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
