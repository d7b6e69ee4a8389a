"""Copies of volumes: how one container's copy and the committed state come to agree. Knows folders only."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

Known = dict[str, tuple[int, int]]
"""By path within the folder: modification time in ns and size; (-1, -1) for a folder."""

FOLDER = (-1, -1)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that nobody sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.new"
    temporary.write_bytes(data)
    temporary.replace(path)


def scan(folder: Path) -> Known:
    """All files and folders below *folder*."""
    found: Known = {}
    for root, folders, names in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            if not path.is_symlink():
                found[str(path.relative_to(folder))] = FOLDER
        for name in [*names, *(name for name in folders if Path(root, name).is_symlink())]:
            path = Path(root, name)
            stat = path.lstat()
            found[str(path.relative_to(folder))] = (stat.st_mtime_ns, stat.st_size)
    return found


def copy_folder(source: Path, target: Path, *, is_linking: bool) -> Known:
    """Fill *target* with what *source* has; as links to the same files where nobody will write to them."""
    target.mkdir(parents=True, exist_ok=True)
    copy = os.link if is_linking else shutil.copy2
    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True, copy_function=copy)
    return scan(target)


def commit(view: Path, store: Path, known: Known, room: Path) -> Known:
    """Give *store* what changed in *view* since they agreed; the last one to write a file wins."""
    now = scan(view)
    changed = [path for path, facts in now.items() if known.get(path) != facts]
    gone = [path for path in known if path not in now]
    move_over(view, store, changed, gone, room)
    return now


def reload(view: Path, store: Path, known: Known, room: Path) -> Known:
    """Give *view* what changed in *store*; what the container wrote and did not commit stays."""
    ours, theirs = scan(view), scan(store)
    mine = {path for path in {*ours, *known} if ours.get(path) != known.get(path)}
    changed = [path for path, facts in theirs.items() if path not in mine and ours.get(path) != facts]
    gone = [path for path in ours if path not in theirs and path not in mine]
    move_over(store, view, changed, gone, room)
    now = scan(view)
    return {path: facts for path, facts in now.items() if path not in mine} | {
        path: known[path] for path in mine if path in known
    }


def move_over(source: Path, target: Path, changed: Iterable[str], gone: Iterable[str], room: Path) -> None:
    """Copy and delete, each file whole: copied in *room* (same file system), then put in place."""
    room.mkdir(parents=True, exist_ok=True)
    for name in sorted(gone, reverse=True):
        remove(target / name)
    for name in sorted(changed):
        old, new = source / name, target / name
        if old.is_dir() and not old.is_symlink():
            if new.is_file():
                new.unlink()
            new.mkdir(parents=True, exist_ok=True)
            continue
        temporary = room / uuid.uuid4().hex
        try:
            shutil.copy2(old, temporary, follow_symlinks=False)
        except FileNotFoundError:
            continue  # deleted meanwhile: the next commit says so
        new.parent.mkdir(parents=True, exist_ok=True)
        if new.is_dir() and not new.is_symlink():
            shutil.rmtree(new)
        temporary.replace(new)


def remove(path: Path) -> None:
    """Delete a file, or a folder if it is empty."""
    if path.is_dir() and not path.is_symlink():
        if not any(path.iterdir()):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)


def open_files(pids: Iterable[int], folder: Path) -> list[str]:
    """Paths within *folder* that one of these processes has open, mapped, or as its working folder."""
    names = {folder.stat().st_ino: "."}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            names[path.lstat().st_ino] = str(path.relative_to(folder))
    device = folder.stat().st_dev
    return sorted({names[inode] for pid in pids for inode in inodes_of(pid, device) if inode in names})


def inodes_of(pid: int, device: int) -> set[int]:
    """What a process holds of one file system; a process that ended meanwhile holds nothing."""
    found: set[int] = set()
    process = Path("/proc", str(pid))
    try:
        links = [process / "cwd", *(process / "fd").iterdir()]
    except OSError:
        return found
    for link in links:
        try:
            stat = link.stat()
        except OSError:
            continue
        if stat.st_dev == device:
            found.add(stat.st_ino)
    try:
        lines = (process / "maps").read_text().splitlines()
    except OSError:
        return found
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}"
    return found | {int(words[4]) for words in map(str.split, lines) if len(words) > 5 and words[3] == wanted}
