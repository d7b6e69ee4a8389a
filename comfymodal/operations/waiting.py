"""How a command stays with its run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """`wait_s` is for how long, None until the end. `keeps_run`: Ctrl-C leaves the run alone, as for one that only
    watches.
    """

    wait_s: float | None = None
    is_detached: bool = False
    is_download: bool = True
    keeps_run: bool = False
