"""A config while it is checked: reads its training process by place, words problems with theirs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.training.ai_toolkit.archs import ARCHS, Arch, arch_of, guess_arch, near_arch
from comfymodal.training.ai_toolkit.schema import DEFAULTS, TRAINS
from comfymodal.training.config import MISSING, Config, KeyPath, Problem, Where, as_list, as_mapping, dotted, find

MOST = 1e15
"""No setting comes near."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A native config, the process in it that trains, and how to name places."""

    config: Config
    where: Where
    process_path: KeyPath
    """Of the process that is judged, whether its type is right or not."""

    @property
    def process(self) -> Mapping[str, Any]:
        return as_mapping(find(self.config, self.process_path))

    @property
    def model(self) -> Mapping[str, Any]:
        return as_mapping(self.process.get("model"))

    @property
    def arch(self) -> Arch | None:
        """The one it asks for; where it names none, or one that is not known, the one that is surely meant."""
        written, base = self.model.get("arch"), self.model.get("name_or_path")
        name = arch_of(self.model)
        if name is None and isinstance(written, str):
            name = near_arch(written)
        if name is None and isinstance(base, str):
            name = guess_arch(base)
        return ARCHS.get(name) if name else None

    @property
    def datasets(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for index, dataset in enumerate(as_list(self.process.get("datasets"))):
            if isinstance(dataset, dict):
                yield index, dataset

    def at(self, place: str) -> KeyPath:
        """Give the path of `train.lr` or `datasets[0].resolution`."""
        return (*self.process_path, *parse_place(place))

    def value(self, place: str) -> Any:
        """Give what the trainer would take at a place: its own default where the config says nothing."""
        found = find(self.config, self.at(place))
        return DEFAULTS.get(place) if found is MISSING else found

    def has(self, place: str) -> bool:
        return find(self.config, self.at(place)) is not MISSING

    def whole(self, place: str) -> int | None:
        found = self.value(place)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def number(self, place: str) -> float | None:
        found = self.value(place)
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        # JSON may hold whole numbers that no float can.
        return float(found) if is_number and abs(found) < MOST else None

    def text(self, place: str) -> str | None:
        found = self.value(place)
        return found if isinstance(found, str) else None

    def problem(self, kind: str, place: str | KeyPath, message: str, hint: str | None = None) -> Problem:
        return self._problem(kind, place, message, hint, is_warning=False)

    def warning(self, kind: str, place: str | KeyPath, message: str, hint: str | None = None) -> Problem:
        return self._problem(kind, place, message, hint, is_warning=True)

    def _problem(self, kind: str, place: str | KeyPath, message: str, hint: str | None, *, is_warning: bool) -> Problem:
        path = self.at(place) if isinstance(place, str) else place
        return Problem(kind, path, self.where(path), key_of(path), message, hint, is_warning)


def subject_of(config: Config, where: Where) -> Subject:
    """Take the first process that trains; where there is none, the first of any kind."""
    processes = as_list(as_mapping(config.get("config")).get("process"))
    types = [as_mapping(process).get("type") for process in processes]
    index = next((index for index, name in enumerate(types) if name in TRAINS), 0)
    return Subject(config, where, ("config", "process", index))


def parse_place(place: str) -> KeyPath:
    """Read `datasets[0].resolution` or `datasets.0.resolution` as a path."""
    parts = [part for part in re.split(r"[.\[\]]", place) if part]
    return tuple(int(part) if part.isdigit() else part for part in parts)


def key_of(path: KeyPath) -> str:
    """Write a path as it is typed after `--set`: below the process, without the way to it."""
    below = len(path) > 3 and path[:2] == ("config", "process")
    return dotted(path[3:] if below else path)


def schema_place(path: KeyPath) -> str:
    """Write a path below a process as the schema does: `datasets[].resolution`."""
    return re.sub(r"\[\d+\]", "[]", dotted(path))
