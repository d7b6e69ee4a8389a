"""Where a sync puts what it deletes and replaces: `.comfymodal/trash/<stamp>/<path>` at the root of the place.

For folders and mounted volumes; on a remote the same names are used, and rclone does the moving. Give the root of
the whole volume, not of the pair's folder in it: then one trash holds it all.
"""

from __future__ import annotations

import calendar
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import ConflictError, NotFoundError
from comfymodal.storage.base import is_same_time
from comfymodal.storage.names import OWN_FOLDER, inside
from comfymodal.storage.values import FileState

TRASH = f"{OWN_FOLDER}/trash"

_Move = Callable[[Path, Path], None]

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Trashed:
    """A file in the trash; `path` is where it was."""

    stamp: str
    path: str
    size_bytes: int

    @property
    def trashed_at(self) -> float | None:
        """Unix seconds; None for a folder that is not named by us."""
        try:
            return float(calendar.timegm(time.strptime(self.stamp[:16], "%Y%m%dT%H%M%SZ")))
        except ValueError:
            return None


def trash_name(stamp: str, path: str = "") -> str:
    """The path of a trashed file (or of the stamp's folder) relative to the root of its place, remotes included."""
    return f"{TRASH}/{stamp}/{path}".rstrip("/")


def put_away(root: Path, path: str, stamp: str, expected: FileState | None = None) -> str:
    """Move a file into the trash and return its name there, relative to `root`.

    Raises `ConflictError` when it is no longer as `expected` (size and time), `NotFoundError` when it is gone.
    """
    return _place(root, path, stamp, expected, _rename)


def keep_replaced(root: Path, path: str, stamp: str, expected: FileState | None = None) -> str:
    """Let the trash hold what a copy is about to replace, and return its name there; raises as `put_away`.

    The file keeps its place too (a hard link), so that no moment is without it. Where links are not to be had it is
    moved: write `settle.begin` before.
    """
    return _place(root, path, stamp, expected, _link_or_rename)


def set_aside(root: Path, path: str, keep_as: str, *, expected: FileState | None = None) -> Path:
    """Rename a file to the name of its conflict copy; raises as `put_away`, and when that name is taken."""
    source, target = _require_as_expected(root, path, expected), inside(root, keep_as)
    if os.path.lexists(target):
        raise ConflictError(f"{keep_as!r} appeared while the sync ran", hint="run the sync again", path=keep_as)
    _rename(source, target)
    return target


def list_trash(root: Path) -> tuple[Trashed, ...]:
    """All that is in the trash, oldest first."""
    folder = root / TRASH
    found = []
    for place in _files_under(folder):
        stamp, _, path = place.relative_to(folder).as_posix().partition("/")
        if path:
            found.append(Trashed(stamp, path, place.lstat().st_size))
    return tuple(sorted(found, key=lambda item: (item.stamp, item.path)))


def older_than(items: Iterable[Trashed], before: float) -> tuple[Trashed, ...]:
    """What was thrown away before that moment (Unix seconds)."""
    return tuple(item for item in items if item.trashed_at is not None and item.trashed_at < before)


def restore(root: Path, item: Trashed) -> Path:
    """Put a file back where it was; raises `ConflictError` when its place is taken, `NotFoundError` when it is gone."""
    source, target = root / trash_name(item.stamp, item.path), inside(root, item.path)
    if not source.is_file():
        raise NotFoundError(f"{item.path!r} of {item.stamp} is not in the trash", hint="comfymodal trash list")
    if os.path.lexists(target):
        raise ConflictError(
            f"{item.path!r} is there again: nothing was restored",
            hint="move or delete that file, then restore again",
            path=item.path,
        )
    _rename(source, target)
    _remove_empty_folders(root / TRASH)
    return target


def empty(root: Path, items: Iterable[Trashed]) -> tuple[int, int]:
    """Delete these for good; return how many files and bytes that were. What is gone already is passed over."""
    files, size_bytes = 0, 0
    for item in items:
        place = inside(root, trash_name(item.stamp, item.path))
        try:
            place.unlink()
        except FileNotFoundError:
            continue
        files, size_bytes = files + 1, size_bytes + item.size_bytes
    _remove_empty_folders(root / TRASH)
    return files, size_bytes


def _place(root: Path, path: str, stamp: str, expected: FileState | None, move: _Move) -> str:
    source = _require_as_expected(root, path, expected)
    for number in range(1, 10_000):
        # Another run of the same second, or a file where now a folder is: the next stamp takes it.
        name = trash_name(stamp if number == 1 else f"{stamp}-{number}", path)
        target = inside(root, name)
        if os.path.lexists(target) and not target.samefile(source):
            continue
        try:
            move(source, target)
        except (FileExistsError, NotADirectoryError):
            continue
        return name
    raise ConflictError(f"the trash has ten thousand {path!r} of {stamp}", hint="comfymodal trash empty", path=path)


def _require_as_expected(root: Path, path: str, expected: FileState | None) -> Path:
    place = inside(root, path)
    try:
        found = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path!r} is gone", hint="run the sync again", path=path) from None
    if expected is None:
        return place
    if found.st_size != expected.size or (expected.mtime and not is_same_time(found.st_mtime, expected.mtime)):
        raise ConflictError(
            f"{path!r} changed while the sync ran; it was left alone", hint="run the sync again", path=path
        )
    return place


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target) and os.path.samestat(source.lstat(), target.lstat()):
        # Two names of one file (see `keep_replaced`): a rename between them does nothing at all.
        source.unlink()
    else:
        source.rename(target)


def _link_or_rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        source.rename(target)


def _files_under(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _remove_empty_folders(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        try:
            Path(place).rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
