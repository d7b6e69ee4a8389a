"""The frozen values of `sync`. Keys are those of `--json`: adding one is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from comfymodal.operations.results import RunView

Mode = Literal["run", "plan", "status"]

# `from` is a word of Python's: hence no dataclass.
PairView = TypedDict(
    "PairView",
    {
        "name": str,
        "from": str,
        "to": str,
        "here": str,
        "there": str,
        "direction": str,
        "mode": Mode,
        "status": str,
        "run": RunView | None,
        "files": Mapping[str, int],
        "counts": Mapping[str, int],
        "copy_files": int,
        "copy_bytes": int,
        "copied_files": int,
        "copied_bytes": int,
        "seconds": float | None,
        "bytes_per_s": float | None,
        "eta_s": float | None,
        "is_in_step": bool | None,
        "cost": Mapping[str, Any] | None,
        "notices": list[str],
        "paths_left_out": int,
        "error": Mapping[str, Any] | None,
        "exit_code": int,
    },
)
"""One pair of a sync: what was planned (`copy_*`) and done (`copied_*`).

`files` are those of each side (here, there). `is_in_step` is None when no plan was made; `seconds` and `bytes_per_s`
are rclone's own; `eta_s` of a plan, from earlier syncs; `paths_left_out` as many paths the ledger did not keep.
"""


class PathView(TypedDict):
    """One path. `result` is None where nothing was done: a plan, or a status."""

    pair: str
    path: str
    action: str
    result: str | None
    size_bytes: int
    why: str
    verified: bool | None
    direction: str | None
    keep_as: str | None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Every pair of one command. `run` is the one run there was; None of several pairs."""

    run: RunView | None
    pairs: tuple[PairView, ...]
    paths: tuple[PathView, ...]
    error: Mapping[str, Any] | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class ErrandReport:
    """A run that is neither a render nor a sync: `result` is what it says of itself."""

    run: RunView
    result: Mapping[str, Any]
    error: Mapping[str, Any] | None
    exit_code: int
