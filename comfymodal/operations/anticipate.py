"""Beginning what a command will need before it is known exactly: the first import of a render, so it stays light."""

from __future__ import annotations

from comfymodal.targets.local_worker import EarlyWorker

__all__ = ["EarlyWorker", "anticipate_render"]


def anticipate_render() -> EarlyWorker:
    """Start a worker now: it imports on the second processor what a job needs, while this one reads and checks."""
    return EarlyWorker()
