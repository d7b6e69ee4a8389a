"""First process of a container: its own view of the file system, then one program; ends when that ends.

Run by `unshare --mount --pid --fork` with the path of a JSON file:
`{"root": folder, "binds": [[source, target, is_read_only]], "hidden": [folder], "argv": [...], "cwd": folder}`.
Standard library only. Nothing it does is seen outside.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

READ_ONLY, REMOUNT, BIND, RECURSIVE = 1, 32, 4096, 16384
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    if LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def mirror(source: str, target: str) -> None:
    """Make everything in *source* appear in *target*, which is empty and can have more."""
    for entry in os.scandir(source):
        new = f"{target.rstrip('/')}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), new)
            continue
        if entry.is_dir():
            os.mkdir(new)
        else:
            os.close(os.open(new, os.O_CREAT))
        if (source, entry.name) != ("/", "proc"):
            mount(entry.path, new, "", BIND | RECURSIVE)


def enter_root(root: str) -> None:
    """Give this process a root folder of its own that shows the same, and processes of its own."""
    mount("none", root, "tmpfs", 0)
    mirror("/", root)
    os.chroot(root)
    os.chdir("/")
    mount("proc", "/proc", "proc", 0)


def make_place(target: str, is_folder: bool) -> None:
    """Make something to mount on, in memory: the folders that are there already stay as they are."""
    if os.path.exists(target):
        return
    base = Path(target).parent
    while not base.exists():
        base = base.parent
    if base.stat().st_dev != os.stat("/").st_dev:
        stage = f"/.below-{len(os.listdir('/'))}"
        os.mkdir(stage)
        mount(str(base), stage, "", BIND | RECURSIVE)
        mount("none", str(base), "tmpfs", 0)
        mirror(stage, str(base))
    os.makedirs(target if is_folder else os.path.dirname(target), exist_ok=True)
    if not is_folder:
        os.close(os.open(target, os.O_CREAT))


def bind(source: str, target: str, is_read_only: bool) -> None:
    make_place(target, os.path.isdir(source))
    mount(source, target, "", BIND)
    if is_read_only:
        mount("none", target, "", BIND | REMOUNT | READ_ONLY)


def start(argv: list[str], cwd: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(cwd)
        os.execv(argv[0], argv)
    finally:
        os._exit(127)


def wait_for(pid: int) -> int:
    """Reap what is left behind here until *pid* ends; its exit code."""
    while True:
        found, status = os.wait()
        if found == pid:
            return os.waitstatus_to_exitcode(status)


def main(path: str) -> int:
    spec = json.loads(Path(path).read_text())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enter_root(spec["root"])
    for source, target, is_read_only in spec["binds"]:
        bind(source, target, is_read_only)
    for folder in spec["hidden"]:
        mount("none", folder, "tmpfs", 0)
    code = wait_for(start(spec["argv"], spec["cwd"]))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
