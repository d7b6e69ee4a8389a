"""In which settings several trainings differ. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from comfymodal.training.ai_toolkit.subject import key_of
from comfymodal.training.config import Key, KeyPath

_OWN = ("config.name", "training_folder", "sqlite_db_path", "device", "log_dir")
"""What every run has of its own."""

_NO_SETTINGS = ("meta.", "sample.prompts", "sample.samples")


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], ...]:
    """For each config the settings that not all have alike, by the key as it is typed after `--set`; as text."""
    read = [{key_of(path): _text(value) for path, value in _leaves(config, ())} for config in configs]
    keys = dict.fromkeys(key for each in read for key in each)
    differing = [
        key
        for key in keys
        if key not in _OWN and not key.startswith(_NO_SETTINGS) and len({each.get(key) for each in read}) > 1
    ]
    return tuple({key: each.get(key, "-") for key in differing} for each in read)


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Every plain value; a list of plain values is one, as it is to `--sweep`."""
    items: list[tuple[Key, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(each, (Mapping, list)) for each in value):
        items = list(enumerate(value))
    if not items:
        yield path, value
    for key, below in items:
        yield from _leaves(below, (*path, key))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
