"""The checkpoints of a run on its volume: only whole and finite ones get in, and exactly one comes back out.

A trainer writes where it likes and is killed when it likes; so it writes on a local disk, and what it has finished is
checked and copied here. `state.json` comes last, so that a copy that was cut off does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfymodal.training.state import Checkpoint, StoredFile, in_order, read_state, write_state
from comfymodal.training.weights import DamagedError, read_weights, require_archive

FOLDER = "checkpoints"

_COPY_BYTES = 1 << 20
_ENTRY = re.compile(r"(?P<kind>step|final)-(?P<step>\d{9})(?:-\d+)?")


class NotFiniteError(DamagedError):
    """The weights hold NaN or infinities: the training went astray before this step."""


class OvertakenError(Exception):
    """The trainer has removed the weights before they were copied."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Weights and the optimizer's state of one save, on the local disk, just finished."""

    weights: tuple[Path, ...]
    optimizer: Path | None
    is_final: bool
    announced_step: int | None
    optimizer_stamp: tuple[int, int] | None
    """Of the moment it was finished; the same file is written over by the next save."""

    @classmethod
    def just_saved(
        cls, weights: tuple[Path, ...], optimizer: Path | None, *, is_final: bool, announced_step: int | None = None
    ) -> Pair:
        return cls(weights, optimizer, is_final, announced_step, _stamp(optimizer) if optimizer else None)


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of the past stays on the volume; a checkpoint one can go on from is kept in any case."""

    weights: int | None = None
    """None: all. They are what an operator chooses from."""
    optimizers: int = 2
    """Twice as large as the weights, and needed only to go on: the newest, and the one before it."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`checkpoint` is None when there was nothing to go on from; `rejected` says why newer ones were not taken."""

    checkpoint: Checkpoint | None
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """`folder` is the run's on the volume; one writer at a time."""

    folder: Path
    keep: Keep = Keep()

    def entries(self) -> tuple[Checkpoint, ...]:
        """Oldest first. Where the state is lost they are found again by their folders, each read whole."""
        found = read_state(self.folder)
        return self._scan() if found is None else found

    def publish(self, pair: Pair, commit: Callable[[], None]) -> Checkpoint:
        """Check a save, copy it, name it in the state, commit; then drop what need not be kept.

        Raises `DamagedError` (`NotFiniteError`), `OvertakenError`, `OSError`, and what `commit` raises. Only in the
        last case is the new checkpoint in the state.
        """
        step = _checked(pair)
        before = self.entries()
        folder = self._free_name(pair, step, {each.folder for each in before})
        try:
            made = self._copied(pair, step, folder)
        except BaseException:
            shutil.rmtree(self.folder / folder, ignore_errors=True)
            raise
        kept = retained((*before, made), self.keep)
        write_state(self.folder, kept)
        commit()
        self._drop_others(kept)
        return made

    def restore(self, target: Path) -> Restored:
        """Put the newest sound checkpoint into `target`, an empty folder; raises `OSError` when that cannot be written.

        A whole pair is preferred to newer weights alone: an optimizer that starts afresh shakes the training.
        """
        target.mkdir(parents=True, exist_ok=True)
        newest_first = self.entries()[::-1]
        rejected: list[str] = []
        for with_optimizer in (True, False):
            for checkpoint in newest_first:
                if with_optimizer and checkpoint.optimizer is None:
                    continue
                wanted = checkpoint.files if with_optimizer else checkpoint.weights
                fault = self._brought(checkpoint, wanted, target)
                if fault is None:
                    return Restored(
                        checkpoint if with_optimizer else replace(checkpoint, optimizer=None), tuple(rejected)
                    )
                rejected += [fault] if fault not in rejected else []
        return Restored(None, tuple(rejected))

    def fault_in(self, checkpoint: Checkpoint) -> str | None:
        """Why its weights are not what was stored; None when they are. Reads them whole."""
        for file in checkpoint.weights:
            path = self.folder / checkpoint.folder / file.name
            try:
                stored = _hashed(path)
            except OSError:
                return f"{file.name} of step {checkpoint.step} is gone"
            if stored != file:
                return f"{file.name} of step {checkpoint.step} is not as it was stored"
        return None

    def _copied(self, pair: Pair, step: int, folder: str) -> Checkpoint:
        place = self.folder / folder
        place.mkdir(parents=True, exist_ok=True)
        weights = tuple(_copy_fresh(path, place / path.name) for path in pair.weights)
        optimizer = None
        if pair.optimizer is not None:
            copied = _copy(pair.optimizer, place / pair.optimizer.name)
            # The next save has begun: the weights are worth keeping all the same, and a newer pair is on its way.
            optimizer = copied if _stamp(pair.optimizer) == pair.optimizer_stamp else None
        return Checkpoint(step, folder, weights, optimizer, pair.is_final, time.time())

    def _brought(self, checkpoint: Checkpoint, files: Sequence[StoredFile], target: Path) -> str | None:
        done: list[Path] = []
        for file in files:
            source = self.folder / checkpoint.folder / file.name
            fault = None
            try:
                is_there = source.stat().st_size == file.size_bytes
                fault = None if is_there else "has another size than it was stored with"
            except OSError:
                fault = "is gone"
            if fault is None:
                done.append(target / file.name)
                # Hashed on its way: what is stored was looked at number by number, and is still the same.
                fault = None if _copy(source, target / file.name) == file else "is not as it was stored"
            if fault is not None:
                for path in done:
                    path.unlink(missing_ok=True)
                return f"step {checkpoint.step} was passed over: {file.name} {fault}"
        return None

    def _free_name(self, pair: Pair, step: int, taken: set[str]) -> str:
        name = f"{FOLDER}/{'final' if pair.is_final else 'step'}-{step:09d}"
        # One that is in the state is never written to: a kill would leave neither the old nor the new.
        numbers = (f"{name}-{number}" for number in range(2, 1_000_000))
        return name if name not in taken else next(each for each in numbers if each not in taken)

    def _drop_others(self, kept: Sequence[Checkpoint]) -> None:
        files = {(each.folder, file.name) for each in kept for file in each.files}
        folders = {each.folder for each in kept}
        for place in _folders(self.folder / FOLDER):
            folder = f"{FOLDER}/{place.name}"
            if folder not in folders:
                shutil.rmtree(place, ignore_errors=True)
                continue
            for path in list(place.iterdir()):
                if (folder, path.name) not in files:
                    with contextlib.suppress(OSError):
                        path.unlink()

    def _scan(self) -> tuple[Checkpoint, ...]:
        found = []
        for place in _folders(self.folder / FOLDER):
            with contextlib.suppress(DamagedError, OSError):
                found.append(_described(place))
        return in_order(found)


def retained(checkpoints: Sequence[Checkpoint], keep: Keep) -> tuple[Checkpoint, ...]:
    """What stays of `checkpoints`, with the optimizers that stay; oldest first."""
    ordered = in_order(checkpoints)
    newest = ordered[-max(keep.weights, keep.optimizers, 1) :] if keep.weights is not None else ordered
    whole = [each for each in newest if each.optimizer is not None][-max(keep.optimizers, 1) :]
    return tuple(each if each in whole else replace(each, optimizer=None) for each in newest)


def _checked(pair: Pair) -> int:
    """The step of a sound save; raises `DamagedError`, `OvertakenError`."""
    if not pair.weights:
        raise DamagedError("the trainer told of a save and there is no file")
    steps = set()
    for path in pair.weights:
        try:
            weights = read_weights(path)
        except FileNotFoundError:
            raise OvertakenError(f"{path.name} was removed before it was copied") from None
        except DamagedError as exc:
            raise DamagedError(f"{path.name} is damaged: {exc}") from None
        if weights.not_finite:
            count, all_of = len(weights.not_finite), weights.tensors
            raise NotFiniteError(f"{path.name} holds NaN or infinities in {count} of {all_of} tensors")
        steps.add(pair.announced_step if weights.step is None else weights.step)
    if len(steps) > 1 or None in steps:
        raise DamagedError(f"the weights in {pair.weights[0].name} do not say of one step which they are")
    if pair.optimizer is not None:
        try:
            require_archive(pair.optimizer)
        except DamagedError as exc:
            if _stamp(pair.optimizer) == pair.optimizer_stamp:
                raise DamagedError(f"{pair.optimizer.name} is damaged: {exc}") from None
    (step,) = steps
    assert step is not None
    return step


def _described(place: Path) -> Checkpoint:
    """A checkpoint by its folder alone; raises `DamagedError` and `OSError`."""
    name = _ENTRY.fullmatch(place.name)
    weights = tuple(sorted(path for path in place.iterdir() if path.suffix == ".safetensors"))
    if name is None or not weights:
        raise DamagedError("it is no checkpoint")
    for path in weights:
        if read_weights(path).not_finite:
            raise NotFiniteError("it holds NaN or infinities")
    optimizers = [path for path in place.iterdir() if path.suffix == ".pt" and _is_archive(path)]
    return Checkpoint(
        int(name["step"]),
        f"{FOLDER}/{place.name}",
        tuple(_hashed(path) for path in weights),
        _hashed(optimizers[0]) if optimizers else None,
        name["kind"] == "final",
        weights[0].stat().st_mtime,
    )


def _is_archive(path: Path) -> bool:
    try:
        require_archive(path)
    except (DamagedError, OSError):
        return False
    return True


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _copy_fresh(source: Path, target: Path) -> StoredFile:
    """Raises `OvertakenError` when the trainer has removed the file, `OSError` for the rest."""
    try:
        return _copy(source, target)
    except FileNotFoundError:
        if source.exists():
            raise
        raise OvertakenError(f"{source.name} was removed before it was copied") from None


def _copy(source: Path, target: Path) -> StoredFile:
    digest, size = hashlib.sha256(), 0
    part = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as read, part.open("wb") as write:
            while chunk := read.read(_COPY_BYTES):
                write.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            write.flush()
            os.fsync(write.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return StoredFile(target.name, size, digest.hexdigest())


def _hashed(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return StoredFile(path.name, stream.tell(), digest.hexdigest())
