"""What a training reads, as its job is told of it: where it lies, and what has to be sent there first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.operations.context import Context
from comfymodal.operations.train_datasets import Looked


@dataclass(frozen=True, slots=True)
class Placed:
    """`locations` as in `jobs.train_stage`; `mounts` are the roles of the volumes they lie on."""

    locations: tuple[Mapping[str, Any], ...]
    mounts: tuple[str, ...]


def place_files(looked: Looked, context: Context) -> Placed:
    """Say of every path of a config where the job finds it."""
    locations: list[Mapping[str, Any]] = []
    for found in looked.paths:
        is_dataset = "datasets" in found.use.path
        about = {"at": list(found.use.path), "copies": is_dataset}
        if found.kind == "local":
            locations.append({**about, "from": {"folder": found.at}})
        elif found.kind == "volume":
            role, _, path = found.at.partition(":/")
            locations.append({**about, "from": {"role": role, "path": path}})
    return Placed(
        tuple(locations), tuple(sorted({str(each["from"]["role"]) for each in locations if "role" in each["from"]}))
    )
