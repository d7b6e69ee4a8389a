"""A training config as plain data: places in it, what is wrong with it, what was changed, what a checked one says.

Knows no trainer: keys and their meaning are in the trainer's own room. Reads no files.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from comfymodal.errors import TrainingConfigError
from comfymodal.secret_shapes import without_secrets

Key = str | int
KeyPath = tuple[Key, ...]
Config = dict[str, Any]
"""JSON values only: mappings with text keys, lists, text, numbers, booleans, null."""

Where = Callable[[KeyPath], str]
"""Gives the place in the file, `train.yaml:8:5`, of a value or of the nearest one above it that exists."""

MISSING: Any = object()
_LONGEST_COMPARED = 200  # difflib is quadratic: a prompt that stands where a name belongs must not cost seconds


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. A warning does not stop the run: the trainer survives it, the result may not be what was meant."""

    kind: str
    """A stable word for scripts: `unknown_key`, `no_network`."""
    path: KeyPath
    place: str
    key: str
    """The path as operators write it after `--set`: `train.lr`; empty for the whole file."""
    message: str
    hint: str | None = None
    is_warning: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": list(self.path)}

    def __str__(self) -> str:
        return f"{self.place}: {f'{self.key}: ' if self.key else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class Change:
    """One value of a config that became another; `old` is MISSING where there was none, `new` where it is gone."""

    path: KeyPath
    key: str
    """The path as operators write it after `--set`."""
    old: Any
    new: Any
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON: a side that is not there has no key."""
        sides = {name: value for name, value in (("old", self.old), ("new", self.new)) if value is not MISSING}
        return {"path": list(self.path), "key": self.key, **sides, "reason": self.reason}

    def __str__(self) -> str:
        old, new = ("nothing" if value is MISSING else shown(value) for value in (self.old, self.new))
        return f"{self.key}: {old} -> {new} ({self.reason})"


@dataclass(slots=True)
class Draft:
    """A copy of a config under change that remembers each change. The one mutable value here; never handed on."""

    config: Config
    key_of: Callable[[KeyPath], str]
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def of(cls, config: Config, key_of: Callable[[KeyPath], str]) -> Draft:
        """Start from a copy; `key_of` writes a path as operators of that trainer do."""
        return cls(copy.deepcopy(config), key_of)

    def get(self, path: KeyPath, default: Any = None) -> Any:
        found = find(self.config, path)
        return default if found is MISSING else found

    def has(self, path: KeyPath) -> bool:
        return find(self.config, path) is not MISSING

    def set(self, path: KeyPath, value: Any, reason: str) -> None:
        """Put a value; equal ones change nothing. Mappings on the way are made, also where null stands.

        Raises KeyError when a plain value stands where a mapping or list must be.
        """
        old = find(self.config, path)
        if is_same(old, value):
            return
        before = old if old is MISSING else copy.deepcopy(old)
        _put(self.config, path, copy.deepcopy(value))
        self.changes.append(Change(path, self.key_of(path), before, copy.deepcopy(value), reason))

    def default(self, path: KeyPath, value: Any, reason: str) -> None:
        """Put a value where none is."""
        if not self.has(path):
            self.set(path, value, reason)

    def remove(self, path: KeyPath, reason: str) -> None:
        old = find(self.config, path)
        if old is MISSING:
            return
        del find(self.config, path[:-1])[path[-1]]
        self.changes.append(Change(path, self.key_of(path), old, MISSING, reason))


@dataclass(frozen=True, slots=True)
class Changed:
    """A new config and every change that led to it, for `--dry-run`; `notes` are for the operator to read."""

    config: Config
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """One picture that is made while training, by index in the order the trainer numbers them."""

    text: str
    width: int
    height: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingDataset:
    """One dataset as the config asks for it; the images are looked at elsewhere."""

    path: str
    """A folder or a JSON file, as written."""
    resolutions: tuple[int, ...]
    """Edge of a square with as many pixels, at most. The trainer makes a copy of the dataset for each."""
    batch_size: int
    num_repeats: int = 1
    caption_ext: str = ".txt"
    default_caption: str | None = None
    trigger_word: str | None = None
    is_reg: bool = False
    num_frames: int = 1
    caches_latents: bool = False
    has_buckets: bool = True
    beside: tuple[str, ...] = ()
    """Other folders it reads, as written: controls, masks, inpainting."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What a checked config says, for whoever estimates, runs or reports: no raw keys of a trainer."""

    engine: str
    name: str
    arch: str
    base_model: str
    """A Hugging Face id or a path."""
    extra_models: tuple[str, ...]
    """What else is loaded by Hugging Face id or path: training adapters, text encoders."""
    is_full_finetune: bool
    rank: int | None
    alpha: float | None
    steps: int
    """Optimizer steps; each takes batch_size x gradient_accumulation images."""
    save_every: int
    keep_saves: int
    batch_size: int
    gradient_accumulation: int
    lr: float
    optimizer: str
    dtype: str
    is_quantized: bool
    is_text_encoder_quantized: bool
    quantization: str | None
    low_vram: bool
    gradient_checkpointing: bool
    trains_text_encoder: bool
    caches_text_embeddings: bool
    uses_ema: bool
    trigger_word: str | None
    seed: int | None
    datasets: tuple[TrainingDataset, ...]
    sample_every: int | None
    """None when no samples are made."""
    sample_steps: int
    sample_prompts: tuple[SamplePrompt, ...]
    samples_at_start: bool

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Every resolution of any dataset, once, smallest first."""
        return tuple(sorted({edge for dataset in self.datasets for edge in dataset.resolutions}))

    @property
    def sample_count(self) -> int:
        """How many pictures a whole run makes: at the start, at every `sample_every`, at the end."""
        if self.sample_every is None:
            return 0
        rounds = max(0, self.steps - 1) // self.sample_every + 1 + int(self.samples_at_start)
        return rounds * len(self.sample_prompts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(config: Any, path: KeyPath) -> Any:
    """Give the value at `path`, MISSING when there is none."""
    for key in path:
        if isinstance(config, dict) and isinstance(key, str):
            config = config.get(key, MISSING)
        elif isinstance(config, list) and isinstance(key, int) and -len(config) <= key < len(config):
            config = config[key]
        else:
            return MISSING
    return config


def texts_in(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Visit every text of a config with its path; keys are not visited."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from texts_in(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from texts_in(child, (*path, index))


def is_same(one: Any, other: Any) -> bool:
    """Equal as JSON: `1`, `1.0` and `true` are three values."""
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def dotted(path: KeyPath) -> str:
    """Write a path as operators read it: `config.process[0].train.lr`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Give the known name that looks most like this one, whatever the case; None when none does."""
    by_folded = {other.casefold(): other for other in known}
    if len(name) > _LONGEST_COMPARED:
        return None
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def shown(value: Any, *, longest: int = 60) -> str:
    """Make a value from a file fit for one line of a terminal: short, without secrets and control characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list) and len(value) > 4:
        return f"a list of {len(value)}"
    text = without_secrets(json.dumps(value, ensure_ascii=False))
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if not problem.is_warning]


def warnings_of(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.is_warning]


def config_error(problems: Iterable[Problem]) -> TrainingConfigError:
    """Build the one error that carries every problem that stops the run: the first is the message, all are in it."""
    found = errors_of(problems)
    first, more = found[0], len(found) - 1
    message = f"{first} (and {more} more)" if more else str(first)
    return TrainingConfigError(message, hint=first.hint, problems=[problem.to_dict() for problem in found])


def _put(config: Any, path: KeyPath, value: Any) -> None:
    at = config
    for index, key in enumerate(path[:-1]):
        child = find(at, (key,))
        if child is None or (child is MISSING and isinstance(at, dict)):
            child = at[key] = {}
        if not isinstance(child, (dict, list)):
            raise KeyError(f"{dotted(path[: index + 1])} is {shown(child) if child is not MISSING else 'missing'}")
        at = child
    last = path[-1]
    if isinstance(at, list) and last == len(at):
        at.append(value)
    elif (isinstance(at, dict) and isinstance(last, str)) or (isinstance(at, list) and isinstance(last, int)):
        at[last] = value  # type: ignore[index]
    else:
        raise KeyError(dotted(path))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Give the value when it is a mapping, an empty one otherwise: what is wrong with it is reported elsewhere."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
