"""Which job a `kind` names. Each is imported when it is first run: a render needs no rclone, a sync no ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from comfymodal.jobs.contract import StoragePlace

KINDS = ("render", "sync", "download", "tidy", "train")


def run_job(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    """Run it to its end and return its outcome. Failures are in it; only infrastructure faults raise."""
    kind = str(job["kind"])
    if kind not in KINDS:
        raise ValueError(f"no such kind of job: {kind}")
    return cast("dict[str, Any]", import_module(f"comfymodal.jobs.{kind}").run(job, place))
