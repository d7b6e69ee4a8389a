"""How the stand-in may misbehave.

By step: `kill_at` (SIGKILL to itself), `hang_at`, `error_at`, `disk_full_at` (while saving),
`optimizer_full_at` (the same, from the middle of optimizer.pt on: it goes on without), `tear_weights_at` and
`tear_optimizer_at` (killed in the middle of that file), `inf_at` (from there on the saved weights hold infinities),
`nan_from`, `nan_until`, `oom_at` (several: `3+4+7`), `interrupt_at` (SIGINT to itself). Without a value:
`hang_loading`, `hang_at_end`, `oom_loading`, `gated`, `no_model`, `no_modules`, `no_control` (as a plain sd_trainer),
`ignore_stop`, `ignore_checkpoint`, `leave_child` (a loader of data that outlives it), `silent_death`. With a number:
`slow_save` (seconds between the halves of optimizer.pt), `exit_code` (after the end).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True)
class Faults:
    wanted: Mapping[str, str]

    @classmethod
    def from_environ(cls) -> Faults:
        words = os.environ.get("STANDIN_FAULTS", "").split()
        return cls({word.partition("=")[0]: word.partition("=")[2] for word in words})

    def has(self, name: str) -> bool:
        return name in self.wanted

    def number(self, name: str, default: float) -> float:
        return float(self.wanted.get(name, default))

    def is_at(self, name: str, step: int) -> bool:
        return str(step) in self.wanted.get(name, "").split("+")

    def is_from(self, name: str, step: int) -> bool:
        return name in self.wanted and step >= int(self.wanted[name])


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    hang()


def hang() -> NoReturn:
    while True:
        time.sleep(60)
