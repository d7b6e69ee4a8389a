"""`--set train.lr=1e-4` on a native config: found in the schema, typed as its key wants, put into a copy. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import UsageError
from comfymodal.training.ai_toolkit.check_keys import choices_of, fits
from comfymodal.training.ai_toolkit.schema import NESTED, Kind, kind_of, places
from comfymodal.training.ai_toolkit.subject import key_of, parse_place, schema_place, subject_of
from comfymodal.training.config import MISSING, Changed, Config, Draft, KeyPath, nearest, shown

_WORDS: Mapping[Kind, str] = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "wholes": "whole numbers, `512,768`",
    "mapping": "JSON, `{...}`",
    "mappings": "JSON, `[{...}]`",
}

_FREE = ("optimizer_params", "lr_scheduler_params", "model_kwargs", "network_kwargs", "quantize_kwargs", "model_paths")
"""Mappings that are passed on as they are; a place below one is as good as any other."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one place of the training process. `value` is text still to be typed, or JSON from a file."""

    place: str
    value: Any
    is_text: bool = True

    @property
    def written(self) -> str:
        return self.value if self.is_text else json.dumps(self.value)


def parse_settings(arguments: Iterable[str]) -> tuple[Setting, ...]:
    """Read `PLACE=VALUE` arguments. Raises UsageError for bad syntax and for a place that is set twice."""
    found: dict[str, Setting] = {}
    for argument in arguments:
        place, equals, value = argument.partition("=")
        place = place.strip()
        if not equals or not place:
            raise UsageError(f"--set {argument!r} is not PLACE=VALUE", hint="--set train.lr=1e-4")
        if place in found:
            raise UsageError(f"--set {place} is given twice", hint="keep one of the two")
        found[place] = Setting(place, value.strip())
    return tuple(found.values())


def apply_settings(config: Config, settings: Iterable[Setting]) -> Changed:
    """Put every setting into a copy. Raises UsageError for an unknown place or a value that its place does not take."""
    draft = Draft.of(config, key_of)
    subject = subject_of(config, lambda _: "")
    for setting in settings:
        below = parse_place(setting.place)
        path = (*subject.process_path, *below)
        kind = _kind(setting.place, below, draft.get(path, MISSING))
        try:
            value = typed(kind, setting.value) if setting.is_text else setting.value
            draft.set(path, value, f"--set {setting.place}" if setting.is_text else "the file's own override")
        except ValueError as exc:
            raise UsageError(f"--set {setting.place}: {exc}", hint=f"--set {setting.place}=...") from exc
        except KeyError as exc:
            raise UsageError(f"--set {setting.place}: {exc.args[0]} in this config") from exc
        _require_choice(setting.place, below, value)
    return Changed(draft.config, tuple(draft.changes))


def typed(kind: Kind, text: str) -> Any:
    """Read text as its key wants it. Raises ValueError with words that follow the place."""
    if kind == "text":
        return text
    if kind in ("texts", "wholes"):
        return _listed(kind, text)
    value = _scalar(kind, text)
    if not fits(kind, value) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be {_WORDS.get(kind, kind)}, not {shown(text)}")
    return int(value) if kind == "whole" else value


def _scalar(kind: Kind, text: str) -> Any:
    if kind in ("whole", "number"):
        try:
            return int(text)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            return text
    try:
        return json.loads(text)
    except ValueError:
        return text if kind != "flag" else text.lower() == "true" if text.lower() in ("true", "false") else text


def _listed(kind: Kind, text: str) -> Any:
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError as exc:
            raise ValueError(f"is not a JSON list: {shown(text)}") from exc
    elif kind == "wholes":
        found = [_scalar("whole", part.strip()) for part in text.split(",")]
        found = found if len(found) > 1 else found[0]
    else:
        found = text
    if not fits(kind, found):
        raise ValueError(f"must be {_WORDS.get(kind, 'text or a JSON list of texts')}, not {shown(text)}")
    return found


def _kind(place: str, below: KeyPath, current: Any) -> Kind:
    """Give the kind that a place wants: by the schema, else by what stands there. Raises UsageError if unknown."""
    if kind := kind_of(schema_place(below)):
        return kind
    if any(part in _FREE or part == "validation_config" for part in below[:-1]):
        return _kind_of_value(current)
    if current is not MISSING:
        return _kind_of_value(current)
    raise UsageError(f"--set {place}: no such place", hint=_hint(place))


def _kind_of_value(value: Any) -> Kind:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else "any"


def _hint(place: str) -> str:
    known = [other.replace("[]", "[0]") for other in places()]
    by_leaf = [other for other in known if other.rpartition(".")[2] == place and not other.startswith("first_sample")]
    if by_leaf:
        return f"did you mean {' or '.join(by_leaf[:3])}?"
    near = nearest(place, known)
    return f"did you mean {near}?" if near else f"places: {', '.join(sorted(NESTED)[:6])} ... and a key of each"


def _require_choice(place: str, below: KeyPath, value: Any) -> None:
    choices = choices_of(schema_place(below))
    if choices and isinstance(value, str) and value.lower() not in choices:
        near = nearest(value, choices, cutoff=0.6)
        hint = f"did you mean {near}?" if near else f"one of: {', '.join(choices)}"
        raise UsageError(f"--set {place}: {shown(value)} is not known", hint=hint)
