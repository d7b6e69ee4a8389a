"""What a render took beside its time: the most GPU memory that was seen in use, and seconds in nodes that load models.

Both are looked at from outside. Neither may ever slow a render down, or fail it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from comfymodal.comfyui.client import ComfyClient
from comfymodal.errors import ComfymodalError

LOOK_EVERY_S = 2.0
LAST_LOOK_S = 0.25
"""The longest that the end of a job waits for the look after its last prompt."""

_SHARED_MEMORY = ("cpu", "mps")
"""What such a device uses is the machine's memory, with everything else that runs there."""


class MemoryGauge:
    """Asks the server while a prompt executes, at most every two seconds, and once after each prompt.

    What it sees is the device's, whoever uses it; a peak between two looks is missed.
    """

    def __init__(self, client: ComfyClient, facts: dict[str, Any], is_executing: Callable[[], bool]) -> None:
        """`facts` are the engine's; `peak_vram_bytes` is put there, absent where nothing was seen."""
        self._client, self._facts, self._is_executing = client, facts, is_executing
        self._is_due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._facts.get("device_type") not in (None, *_SHARED_MEMORY):
            self._task = asyncio.create_task(self._watch())

    def look_now(self) -> None:
        """A prompt has ended, and what it used is mostly still there."""
        self._is_due.set()

    async def close(self) -> None:
        """Wait a moment for a look that is under way, then stop. Raises nothing but being cancelled itself."""
        if self._task is None:
            return
        ends_at = time.monotonic() + LAST_LOOK_S
        while self._is_due.is_set() and not self._task.done() and time.monotonic() < ends_at:
            await asyncio.sleep(0.005)
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            # Whatever a server may say that nobody thought of, it is no fault of the render.
            self._task.exception()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), LOOK_EVERY_S)
            is_after = self._is_due.is_set()
            if is_after or self._is_executing():
                with contextlib.suppress(ComfymodalError):
                    self._note(await self._client.system_stats())
            if is_after:
                self._is_due.clear()

    def _note(self, stats: Mapping[str, Any]) -> None:
        devices = stats.get("devices")
        first = devices[0] if isinstance(devices, list) and devices else None
        total, free = (first.get(f"vram_{what}") if isinstance(first, dict) else None for what in ("total", "free"))
        if isinstance(total, int) and isinstance(free, int) and 0 <= free <= total:
            self._facts["peak_vram_bytes"] = max(self._facts.get("peak_vram_bytes") or 0, total - free)


class LoadClock:
    """Seconds between the start of nodes that load models and that of the next node, of one prompt.

    A node loads models if its class is called a loader. What ComfyUI reads from disk only when a sampler needs it is
    not in here, and what comes from its cache takes no time.
    """

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._since: float | None = None

    def enter(self, class_type: str | None, now: float) -> None:
        """A node begins, of this class; None: none does, and the one before has ended. `now` is monotonic seconds."""
        self._seconds = (self._seconds or 0.0) + (now - self._since if self._since is not None else 0.0)
        self._since = now if class_type is not None and "loader" in class_type.lower() else None

    def pause(self, now: float) -> None:
        """No node works now; nothing is said of whether one ever did."""
        if self._since is not None:
            self.enter(None, now)

    def read(self, now: float) -> float | None:
        """Seconds so far; None when no node was ever seen."""
        self.pause(now)
        return None if self._seconds is None else round(self._seconds, 3)
