"""A sweep: every combination of some values as a run with a name of its own. Pure; knows no trainer's keys."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from comfymodal.errors import UsageError

MOST_RUNS = 24
"""Each is a whole training; more than a person compares on one page."""

LONGEST_NAME = 64

_SHORT = {"linear": "r", "rank": "r", "linear_alpha": "a", "learning_rate": "lr", "num_repeats": "rep", "steps": "s"}


@dataclass(frozen=True, slots=True)
class Axis:
    """One place and the values it takes in turn, as text."""

    place: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of a sweep: its name and what it sets, place and value as text."""

    name: str
    settings: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """For a table's row: `train.lr=1e-4 network.linear=16`."""
        return " ".join(f"{place}={value}" for place, value in self.settings)


def parse_sweep(arguments: Iterable[str]) -> tuple[Axis, ...]:
    """Read `PLACE=A,B` arguments; a list is one value: `datasets[0].resolution=[512],[512,1024]`.

    Raises UsageError for bad syntax, one value only, the same value twice, a place given twice.
    """
    found: dict[str, Axis] = {}
    for argument in arguments:
        place, equals, text = argument.partition("=")
        place, values = place.strip(), _split(text)
        if not equals or not place or not all(values):
            raise UsageError(f"--sweep {argument!r} is not PLACE=A,B", hint="--sweep train.lr=1e-4,4e-4")
        if place in found:
            raise UsageError(f"--sweep {place} is given twice", hint=f"--sweep {place}=A,B,C")
        found[place] = _axis(place, values)
    return tuple(found.values())


def axes_of(sweep: Mapping[str, Sequence[object]]) -> tuple[Axis, ...]:
    """Read the `sweep:` of a short form. Raises UsageError as `parse_sweep` does."""
    return tuple(_axis(place, [_text(value) for value in values]) for place, values in sweep.items())


def variants(name: str, axes: Sequence[Axis], *, most: int = MOST_RUNS) -> tuple[Variant, ...]:
    """Give every combination, the first axis slowest, named `<name>--lr1e-4--r16`. Raises UsageError for too many."""
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > most:
        sizes = " x ".join(str(len(axis.values)) for axis in axes)
        raise UsageError(f"a sweep of {sizes} = {count} runs", hint=f"at most {most}: sweep fewer values")
    combinations = itertools.product(*([(axis.place, value) for value in axis.values] for axis in axes))
    settings = [tuple(combination) for combination in combinations]
    return tuple(Variant(_name(name, index, each, settings), each) for index, each in enumerate(settings))


def _axis(place: str, values: Sequence[str]) -> Axis:
    if len(values) < 2:
        raise UsageError(f"--sweep {place} has one value", hint=f"--sweep {place}={values[0]},B, or --set")
    if len(set(values)) < len(values):
        raise UsageError(f"--sweep {place} has the same value twice", hint="each would train the same LoRA again")
    return Axis(place, tuple(values))


def _split(text: str) -> list[str]:
    """Split at commas that stand outside of brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_Settings = tuple[tuple[str, str], ...]


def _name(name: str, index: int, settings: _Settings, others: Sequence[_Settings]) -> str:
    long = _long_name(name, settings)
    if len(long) <= LONGEST_NAME and sum(_long_name(name, other) == long for other in others) == 1:
        return long
    # Too long, or two values that look alike in a name: a number tells them apart.
    tail = f"--{index + 1}"
    return f"{name[: LONGEST_NAME - len(tail)]}{tail}"


def _long_name(name: str, settings: _Settings) -> str:
    return "--".join([name, *(_slug(place, value) for place, value in settings)])


def _slug(place: str, value: str) -> str:
    leaf = re.split(r"[.\]]", place)[-1]
    short = re.sub(r"e-0+(?=\d)", "e-", value).replace(".", "p")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{_SHORT.get(leaf, leaf.replace('_', '-'))}{short}").strip("-")
