"""Delivers a job's events from a thread of its own, so that a job never waits for a network or a disk.

Shared by the places; standard library only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfymodal.jobs.contract import SNAPSHOT_EVENTS

Deliver = Callable[[int, Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], None]
"""Called with the newest sequence number, the events since the last delivery, and the newest of all."""


class Courier:
    """Collects events and hands them over every `every_s` seconds, and sooner when it was idle.

    `tick` is called each `every_s` even when nothing happened. `seq` is the number of the last event of an earlier
    attempt: readers who saw it wait for higher ones.
    """

    def __init__(
        self, deliver: Deliver, *, every_s: float, tick: Callable[[], None] | None = None, seq: int = 0
    ) -> None:
        self._deliver_events, self._every_s, self._tick = deliver, every_s, tick
        self._seq = seq
        self._waiting: list[dict[str, Any]] = []
        self._recent: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)
        self._thread.start()

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take one event; never blocks."""
        with self._lock:
            self._seq += 1
            # Of a burst of steps only the newest is worth delivering.
            if self._waiting and event["type"] == "step" and self._waiting[-1]["type"] == "step":
                self._waiting.pop()
            self._waiting.append({**event, "seq": self._seq, "at": time.time()})
        self._wake.set()

    def close(self) -> None:
        """Deliver what is left."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    @property
    def recent(self) -> Sequence[Mapping[str, Any]]:
        return self._recent

    @property
    def seq(self) -> int:
        return self._seq

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._every_s if self._tick else None)
            self._wake.clear()
            self._deliver()
            if self._tick is not None:
                self._tick()
            self._closing.wait(self._every_s)
        self._deliver()

    def _deliver(self) -> None:
        with self._lock:
            events, self._waiting = self._waiting, []
        if not events:
            return
        self._recent = [*self._recent, *events][-SNAPSHOT_EVENTS:]
        self._deliver_events(events[-1]["seq"], events, self._recent)
