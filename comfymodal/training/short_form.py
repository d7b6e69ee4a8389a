"""Our short form of a training config: what an operator has to say, the recipe says the rest. Pure; reads no files.

An example is in configs/lora-flux. `model` names a recipe; `weights` stands for another repository or path than the
recipe's; `dataset` is a folder or a list of `{path, repeats, resolution, caption}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfymodal.training.config import KeyPath, Problem, Where, as_list, dotted, nearest, shown
from comfymodal.training.recipes import RECIPES

ENGINES = ("ai-toolkit",)

_MOST = 1e9
"""No rate, rank or alpha comes near; JSON may hold whole numbers that no float can."""


@dataclass(frozen=True, slots=True)
class ShortDataset:
    path: str
    repeats: int | None = None
    resolution: tuple[int, ...] = ()
    """Empty: that of the whole form."""
    caption: str | None = None
    """For pictures that have none."""


@dataclass(frozen=True, slots=True)
class ShortForm:
    """What the file said; None and empty where it said nothing."""

    model: str
    datasets: tuple[ShortDataset, ...]
    name: str | None = None
    engine: str = "ai-toolkit"
    weights: str | None = None
    trigger: str | None = None
    steps: int | None = None
    rank: int | None = None
    alpha: float | None = None
    lr: float | None = None
    resolution: tuple[int, ...] = ()
    batch: int | None = None
    caption_dropout: float | None = None
    save_every: int | None = None
    keep: int | None = None
    prompts: tuple[str, ...] = ()
    sample_every: int | None = None
    sample_size: int | None = None
    seed: int | None = None
    gpu: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """By place in the engine's own config, `train.timestep_type`; applied last."""
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """By place in the engine's own config; one run for each combination."""


@dataclass(frozen=True, slots=True)
class Read:
    """A short form, None when it cannot be made out, and all that is wrong with it."""

    form: ShortForm | None
    problems: tuple[Problem, ...]


def read_short_form(tree: Any, where: Where) -> Read:
    """Turn parsed YAML or JSON into a short form; every mistake is reported, with its place."""
    if not isinstance(tree, dict):
        return Read(None, (Problem("not_a_mapping", (), where(()), "", "must be a mapping of keys", _EXAMPLE),))
    reader = _Reader(where)
    unknown = [key for key in tree if key not in _KEYS]
    for key in unknown:
        reader.problem("unknown_key", (key,), "unknown key", _hint_of(str(key)))
    values = {key: reader.value(key, tree[key]) for key in tree if key in _KEYS and tree[key] is not None}
    for key, hint in (("model", f"models: {', '.join(RECIPES)}"), ("dataset", "the folder with the pictures")):
        if tree.get(key) is None:
            reader.problem("missing_key", (key,), "is missing", hint)
    if any(not problem.is_warning for problem in reader.problems):
        return Read(None, tuple(reader.problems))
    return Read(ShortForm(datasets=values.pop("dataset"), **values), tuple(reader.problems))


_EXAMPLE = "start with `model: flux` and `dataset: ./pictures`"

_ALIASES = {
    **dict.fromkeys(("base", "base_model", "arch", "architecture"), "model"),
    **dict.fromkeys(("learning_rate", "unet_lr"), "lr"),
    **dict.fromkeys(("trigger_word", "token"), "trigger"),
    **dict.fromkeys(("linear", "network_dim", "dim"), "rank"),
    **dict.fromkeys(("linear_alpha", "network_alpha"), "alpha"),
    **dict.fromkeys(("batch_size", "train_batch_size"), "batch"),
    **dict.fromkeys(("max_train_steps", "iterations"), "steps"),
    **dict.fromkeys(("datasets", "folder_path", "data", "images"), "dataset"),
    **dict.fromkeys(("resolutions", "size"), "resolution"),
    **dict.fromkeys(("checkpoint", "name_or_path", "path"), "weights"),
    **dict.fromkeys(("samples", "sample", "sample_prompts"), "prompts"),
}


class _Reader:
    """Reads one value after another and keeps what is wrong with them."""

    def __init__(self, where: Where) -> None:
        self.problems: list[Problem] = []
        self._where = where

    def problem(self, kind: str, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(kind, path, self._where(path), dotted(path), message, hint))

    def value(self, key: str, value: Any) -> Any:
        return _KEYS[key](self, (key,), value)

    def text(self, path: KeyPath, value: Any) -> str | None:
        if isinstance(value, str) and value.strip():
            return value
        hint = "put quotes around it" if isinstance(value, (int, float)) else None
        self._no(path, value, "must be text", hint)
        return None

    def whole(self, path: KeyPath, value: Any) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        self._no(path, value, "must be a whole number from 1")
        return None

    def seed(self, path: KeyPath, value: Any) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        self._no(path, value, "must be a whole number from 0")
        return None

    def number(self, path: KeyPath, value: Any) -> float | None:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _MOST:
            return float(value)
        self._no(path, value, "must be a number above 0", _hint_of_number(value))
        return None

    def share(self, path: KeyPath, value: Any) -> float | None:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        self._no(path, value, "must be a number from 0 to 1")
        return None

    def wholes(self, path: KeyPath, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list):
            return tuple(edge for edge in (self.whole(path, value),) if edge is not None)
        if not value:
            self._no(path, value, "must be a number or a list of numbers")
        found = [self.whole((*path, index), edge) for index, edge in enumerate(value)]
        return tuple(edge for edge in found if edge is not None)

    def texts(self, path: KeyPath, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            return tuple(text for text in (self.text(path, value),) if text is not None)
        found = [self.text((*path, index), text) for index, text in enumerate(value)]
        return tuple(text for text in found if text is not None)

    def model(self, path: KeyPath, value: Any) -> str | None:
        name = self.text(path, value)
        if name is None or name in RECIPES:
            return name
        near = nearest(name.replace("_", "-"), RECIPES, cutoff=0.6)
        hint = f"did you mean `{near}`? models: {', '.join(RECIPES)}" if near else f"models: {', '.join(RECIPES)}"
        if "/" in name:
            hint = f"`model` names a recipe ({', '.join(RECIPES)}); a repository or a path belongs under `weights`"
        self.problem("unknown_model", path, f"no recipe for {shown(name)}", hint)
        return None

    def engine(self, path: KeyPath, value: Any) -> str | None:
        if value in ENGINES:
            return str(value)
        self._no(path, value, f"must be {' or '.join(ENGINES)}")
        return None

    def datasets(self, path: KeyPath, value: Any) -> tuple[ShortDataset, ...]:
        if isinstance(value, list) and value:
            found = [self.dataset((*path, index), entry) for index, entry in enumerate(value)]
        else:
            found = [self.dataset(path, value)]
        return tuple(dataset for dataset in found if dataset is not None)

    def dataset(self, path: KeyPath, value: Any) -> ShortDataset | None:
        if isinstance(value, str) and value.strip():
            return ShortDataset(value)
        if not isinstance(value, dict):
            self._no(path, value, "must be a folder, or a list of folders")
            return None
        for key in value:
            if key not in _DATASET_KEYS:
                near = nearest(str(key), _DATASET_KEYS)
                hint = f"did you mean `{near}`?" if near else f"keys here: {', '.join(_DATASET_KEYS)}"
                self.problem("unknown_key", (*path, key), "unknown key", hint)
        if value.get("path") is None:
            self.problem("missing_key", (*path, "path"), "is missing", "the folder with the pictures")
            return None
        read = {key: _DATASET_KEYS[key](self, (*path, key), value[key]) for key in value if key in _DATASET_KEYS}
        return ShortDataset(**read)

    def mapping(self, path: KeyPath, value: Any) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self._no(path, value, "must be a mapping of `train.lr`-like names to values")
        return {}

    def sweep(self, path: KeyPath, value: Any) -> Mapping[str, tuple[Any, ...]]:
        for key, values in self.mapping(path, value).items():
            if not as_list(values):
                self._no((*path, key), values, "must be a list of values", "`train.lr: [5e-5, 1e-4]`")
        return {key: tuple(as_list(values)) for key, values in self.mapping(path, value).items()}

    def _no(self, path: KeyPath, value: Any, message: str, hint: str | None = None) -> None:
        self.problem("bad_value", path, f"{message}, not {shown(value)}", hint)


_Method = Callable[[_Reader, KeyPath, Any], Any]

_KEYS: Mapping[str, _Method] = {
    **dict.fromkeys(("name", "weights", "trigger", "gpu"), _Reader.text),
    **dict.fromkeys(("steps", "rank", "batch", "save_every", "keep", "sample_every", "sample_size"), _Reader.whole),
    **dict.fromkeys(("lr", "alpha"), _Reader.number),
    "model": _Reader.model,
    "engine": _Reader.engine,
    "dataset": _Reader.datasets,
    "resolution": _Reader.wholes,
    "prompts": _Reader.texts,
    "caption_dropout": _Reader.share,
    "seed": _Reader.seed,
    "overrides": _Reader.mapping,
    "sweep": _Reader.sweep,
}

_DATASET_KEYS: Mapping[str, _Method] = {
    "path": _Reader.text,
    "repeats": _Reader.whole,
    "resolution": _Reader.wholes,
    "caption": _Reader.text,
}


def _hint_of(name: str) -> str:
    near = _ALIASES.get(name) or nearest(name, _KEYS)
    return f"did you mean `{near}`?" if near else f"keys here: {', '.join(_KEYS)}"


def _hint_of_number(value: Any) -> str | None:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return "remove the quotes around it" if isinstance(value, str) else None
