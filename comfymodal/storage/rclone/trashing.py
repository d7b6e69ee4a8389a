"""Files of a remote that go to its trash, come back, or go for good; all on the server, nothing travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comfymodal.errors import ComfymodalError, TransferError
from comfymodal.storage.rclone.copying import CopyResult, Order, PathResult, Tally, carry_out
from comfymodal.storage.rclone.explain import explain
from comfymodal.storage.rclone.listing import OWN_FOLDER, find_files
from comfymodal.storage.rclone.presets import Preset, choose_preset
from comfymodal.storage.rclone.process import Control, run
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.values import Remote


def trash_folder(stamp: str) -> str:
    """Where in the remote the files of one deletion lie."""
    return f"{OWN_FOLDER}/trash/{stamp}"


def trash(
    session: Session, remote: Remote, paths: Sequence[str], stamp: str, *, control: Control | None = None
) -> CopyResult:
    """Move the files to the remote's trash, each copied there before it is deleted.

    In a bucket that keeps versions the deleted one is only hidden, and stays as long as the bucket's rules say.
    `copied` in the result means: in the trash, and gone from its place.
    """
    return _move(session, remote, _inside(remote, trash_folder(stamp)), paths, control)


def restore(
    session: Session, remote: Remote, paths: Sequence[str], stamp: str, *, control: Control | None = None
) -> CopyResult:
    """Move the files back from the trash. A path where there is a file again fails, and both are kept."""
    taken = find_files(session, remote, paths)
    free = [path for path in paths if path not in taken]
    moved = _move(session, _inside(remote, trash_folder(stamp)), remote, free, control)
    if not taken:
        return moved
    done = {each.path: each for each in moved.results}
    refused = "there is a file of that name again"
    results = tuple(done.get(path) or PathResult(path, "failed", error=refused) for path in paths)
    error: ComfymodalError = moved.error or TransferError(
        f"{remote}: {len(taken)} of {len(paths)} files were not restored: {refused}",
        hint="move or delete those first",
        paths=sorted(taken),
    )
    return CopyResult(results, moved.is_stopped, error, moved.seconds)


def delete(
    session: Session, remote: Remote, paths: Sequence[str], *, forever: bool, control: Control | None = None
) -> CopyResult:
    """Delete the files. `forever` deletes this version itself on B2; else it is hidden and can be brought back.

    Older versions, and on S3 all versions of a bucket that keeps them, stay either way. `copied` in the result
    means deleted; a file that was not there is `missing`.
    """
    preset = choose_preset(remote, remote, ())
    if forever and remote.kind == "b2":
        preset = Preset("delete", (*preset.flags, "--b2-hard-delete"))
    return carry_out(session, "delete", _tally(Order(remote, remote, tuple(paths), preset)), control)


def rename(session: Session, remote: Remote, path: str, new: str) -> ComfymodalError | None:
    """Give a file another name; why not, or None when it has it. A file that has that name already is kept."""
    if find_files(session, remote, [new]):
        return TransferError(f"there is a file {new!r} already", hint="move or delete that one first", path=new)
    address = session.address(remote)
    arguments = ["moveto", "--use-json-log", "--log-level", "NOTICE", "--retries", "1", "--stats", "0"]
    ended = run(session, [*arguments, f"{address}{path}", f"{address}{new}"])
    return None if ended.code == 0 else explain(ended.code, ended.lines, place=f"{remote}: {path!r}")


def _move(
    session: Session, source: Remote, target: Remote, paths: Sequence[str], control: Control | None
) -> CopyResult:
    order = Order(source, target, tuple(paths), choose_preset(source, target, ()))
    return carry_out(session, "move", _tally(order), control)


def _tally(order: Order) -> Tally:
    return Tally(order, lambda _: None, lambda line: line.is_deleted)


def _inside(remote: Remote, folder: str) -> Remote:
    prefix = "/".join(part for part in (remote.prefix, folder) if part)
    return replace(remote, prefix=prefix)
