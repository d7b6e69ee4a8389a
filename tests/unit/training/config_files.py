"""Training configs for tests: read with their places, a sound one to break."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from comfymodal.project.problems import Mark
from comfymodal.project.tree import Node, parse_yaml
from comfymodal.training.ai_toolkit.check import check_config
from comfymodal.training.ai_toolkit.subject import parse_place
from comfymodal.training.config import KeyPath, Problem, Where, find

REPOSITORY = Path(__file__).parents[3]
GUIDE = REPOSITORY / "tests/data/training/guide.yaml"
FLUX = REPOSITORY / "configs/lora-flux/train.yaml"
SDXL = REPOSITORY / "configs/lora-sdxl/train.yaml"


def read_yaml(text: str, name: str = "train.yaml") -> tuple[Any, Where]:
    """The plain tree, and the place of the key or value at a path, or of what is above it."""
    root = parse_yaml(text, lambda line, column: Mark(name, line, column))
    assert root is not None
    return root.plain(), lambda path: _place(root, path)


def _place(root: Node, path: KeyPath) -> str:
    for length in range(len(path), 0, -1):
        if (node := root.find(path[:length])) is not None:
            return root.closest(path[: length - 1]).keys.get(str(path[length - 1]), node.mark).where
    return root.mark.where


def sound() -> Any:
    """A native config without a fault: that of configs/lora-sdxl."""
    return read_yaml(SDXL.read_text())[0]


def nowhere(_path: KeyPath) -> str:
    return "train.yaml"


def broken(**values: Any) -> Any:
    """The sound config with values put at places of the process: `train__lr=1`; ... takes a key away."""
    config = copy.deepcopy(sound())
    for name, value in values.items():
        *above, last = parse_place(name.replace("__", "."))
        at = find(config, ("config", "process", 0, *above))
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return config


def check(config: Any, **options: Any) -> list[Problem]:
    return check_config(config, nowhere, **options)


def kinds(config: Any) -> set[tuple[str, str]]:
    """(kind, key) of every problem."""
    return {(problem.kind, problem.key) for problem in check(config)}
