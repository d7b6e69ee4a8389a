"""What is known of each file while a volume's mover works: done, failed, on its way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comfymodal.errors import CancelledError, ComfymodalError, TransferError
from comfymodal.storage.actions import Action
from comfymodal.storage.rclone.copying import CopyResult, OnProgress, Outcome, PathResult, Progress
from comfymodal.storage.rclone.log import Moving
from comfymodal.storage.rclone.process import Control

AGAIN = "run it again: what is finished is kept"

_SPEED_OVER_S = 5.0
_REPORT_EVERY_S = 0.2


@dataclass(slots=True)
class Tally:
    """Reports go out from the thread that asked for the copy, never from one that copies."""

    actions: Sequence[Action]
    on_progress: OnProgress
    control: Control
    error: ComfymodalError | None = None
    """Why all that is left was given up."""
    is_stopped: bool = False
    _results: dict[str, PathResult] = field(default_factory=dict)
    _fresh: list[PathResult] = field(default_factory=list)
    _done_files: int = 0
    _done_bytes: int = 0
    _reported_at: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def copied(self, action: Action) -> None:
        result = PathResult(action.path, "copied", action.size)
        self._results[action.path] = result
        self._fresh.append(result)
        self._done_files += 1
        self._done_bytes += action.size

    def failed(self, action: Action, why: str, result: Outcome = "failed") -> None:
        self._results[action.path] = PathResult(action.path, result, error=why)

    def asks_to_stop(self) -> bool:
        self.is_stopped = self.is_stopped or self.control() is not None
        return self.is_stopped

    @property
    def is_over(self) -> bool:
        return self.asks_to_stop() or self.error is not None

    def report(self, moving: Mapping[str, Moving]) -> None:
        """Say how far it is, if that is not too soon again; `moving` by path, without what is done."""
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self._report(moving)

    def _report(self, moving: Mapping[str, Moving]) -> None:
        self._reported_at = time.monotonic()
        arrived = self._done_bytes + sum(each.bytes for each in moving.values())
        self.on_progress(
            Progress(
                bytes=arrived,
                speed=self._speed(arrived),
                files_done=self._done_files,
                files=len(self.actions),
                moving=tuple(moving.values()),
                copied=tuple(self._fresh),
            )
        )
        self._fresh.clear()

    def result(self) -> CopyResult:
        self._report({})
        results = tuple(self._results.get(action.path) or PathResult(action.path, "skipped") for action in self.actions)
        return CopyResult(results, self.is_stopped, self._sum(results), time.monotonic() - self._began)

    def _sum(self, results: Sequence[PathResult]) -> ComfymodalError | None:
        undone = [each for each in results if each.result != "copied"]
        if not undone:
            return None
        if self.is_stopped:
            return CancelledError("stopped on request", hint=AGAIN)
        first = undone[0]
        return self.error or TransferError(
            f"{len(undone)} of {len(results)} files were not copied; {first.path!r}: {first.error}",
            hint="look at each file's error",
        )

    def _speed(self, arrived: int) -> float:
        now = time.monotonic()
        self._seen.append((now, arrived))
        while now - self._seen[0][0] > _SPEED_OVER_S:
            self._seen.popleft()
        began, before = self._seen[0]
        return max(0.0, (arrived - before) / (now - began)) if now > began else 0.0
