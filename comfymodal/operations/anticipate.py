"""Beginning what a command will need before it is known exactly: the first import of a render, so it stays light."""

from __future__ import annotations

import os
import re
from pathlib import Path

from comfymodal.targets.local_worker import EarlyWorker

__all__ = ["EarlyWorker", "anticipate_render"]

_MODAL = re.compile(rb"^[\"']?target[\"']?\s*:\s*[\"']?modal\b", re.M)


def anticipate_render(config: Path | None, target: str | None) -> EarlyWorker | None:
    """Start a worker now: it imports on the second processor what a job needs, while this one reads and checks.

    None for a render that looks as if it went to Modal; a wrong guess costs a moment, nothing else.
    """
    return EarlyWorker() if (target or os.environ.get("COMFYMODAL_TARGET") or _named(config)) != "modal" else None


def _named(config: Path | None) -> str:
    for path in [config] if config else [Path("comfymodal.yaml"), Path("comfymodal.yml")]:
        try:
            return "modal" if _MODAL.search(path.read_bytes()) else "local"
        except OSError:
            continue
    return "local"
