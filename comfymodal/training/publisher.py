"""Brings finished saves, samples and logs to the run's volume, in a thread: the GPU does not wait for a disk."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from comfymodal.errors import ComfymodalError
from comfymodal.training.checkpoints import CheckpointStore, NotFiniteError, OvertakenError, Pair
from comfymodal.training.state import Checkpoint
from comfymodal.training.trainer import Sample, Trainer
from comfymodal.training.weights import DamagedError

SAMPLES_FOLDER = "samples"
LOG_FILE = "trainer.log"
COMMIT_AGAIN_S = (0.5, 2.0)
FILE_MODE = 0o644
"""Trainers leave files only they may read."""


@dataclass(frozen=True, slots=True)
class Published:
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Refused:
    """A save that is not gone on from; the training may go on."""

    code: str
    why: str
    is_final: bool
    is_finite: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """The volume takes nothing more: what is trained from now on would be lost."""

    why: str
    where: str | None
    is_final: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample lies on the volume; `path` is relative to the run's folder."""

    path: str
    step: int
    index: int


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """A checkpoint is written and not yet durable; the next commit makes up for it."""

    why: str


_Wish = Pair | Literal["extras", "end"]
Report = Published | Refused | Broken | Kept | Uncommitted


@dataclass(slots=True)
class Publisher:
    """`log` is the local file that goes along."""

    store: CheckpointStore
    trainer: Trainer
    log: Path
    commit: Callable[[], None]
    reports: queue.SimpleQueue[Report] = field(default_factory=queue.SimpleQueue)
    crash: BaseException | None = None
    """A mistake of ours in the thread; to be raised by whoever waits for it."""
    _wishes: queue.SimpleQueue[_Wish] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None
    _kept: set[str] = field(default_factory=set)

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, pair: Pair) -> None:
        self._wishes.put(pair)

    def refresh(self) -> None:
        """Keep new samples and the logs as they are now."""
        self._wishes.put("extras")

    def finish(self, timeout_s: float) -> bool:
        """Wait for all that was handed over; False when that took too long."""
        self._wishes.put("end")
        return self.join(timeout_s)

    def join(self, timeout_s: float) -> bool:
        """The same again."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def keep_rest(self) -> None:
        """Samples and logs since the last checkpoint. Losing them fails nothing."""
        with contextlib.suppress(OSError, ComfymodalError):
            self._keep_extras()
            self.commit()

    def _work(self) -> None:
        try:
            while (wish := self._wishes.get()) != "end":
                if isinstance(wish, Pair):
                    self.reports.put(self._published(wish))
                else:
                    self.keep_rest()
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits
            self.crash = exc

    def _published(self, pair: Pair) -> Report:
        try:
            with contextlib.suppress(OSError):
                self._keep_extras()
            return Published(self.store.publish(pair, lambda: self._commit(pair)))
        except OvertakenError as exc:
            return Refused("save_overtaken", f"{exc}; the next one is kept", pair.is_final, is_finite=True)
        except NotFiniteError as exc:
            return Refused("save_not_finite", f"a save was not kept: {exc}", pair.is_final, is_finite=False)
        except DamagedError as exc:
            return Refused("save_damaged", f"a save was not kept: {exc}", pair.is_final, is_finite=True)
        except OSError as exc:
            return Broken(exc.strerror or str(exc), str(exc.filename) if exc.filename else None, pair.is_final)
        except ComfymodalError as exc:
            return Broken(exc.message, None, pair.is_final)

    def _commit(self, pair: Pair) -> None:
        for delay_s in COMMIT_AGAIN_S:
            with contextlib.suppress(ComfymodalError):
                self.commit()
                return
            time.sleep(delay_s)
        try:
            self.commit()
        except ComfymodalError as exc:
            if pair.is_final:
                raise
            self.reports.put(Uncommitted(exc.message))

    def _keep_extras(self) -> None:
        self.store.folder.mkdir(parents=True, exist_ok=True)
        for sample in self.trainer.samples():
            self._keep_sample(sample)
        if self.log.is_file():
            _copy(self.log, self.store.folder / LOG_FILE)
        self.trainer.keep_logs(self.store.folder)

    def _keep_sample(self, sample: Sample) -> None:
        if sample.path.name in self._kept:
            return
        target = self.store.folder / SAMPLES_FOLDER / sample.path.name
        target.parent.mkdir(exist_ok=True)
        _copy(sample.path, target)
        self._kept.add(sample.path.name)
        self.reports.put(Kept(f"{SAMPLES_FOLDER}/{target.name}", sample.step, sample.index))


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, part)
        part.chmod(FILE_MODE)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
