"""Keys and kinds: what the trainer would ignore or misread without a word. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from comfymodal.secret_shapes import looks_secret
from comfymodal.training.ai_toolkit.schema import (
    AT_LEAST,
    CHOICES,
    JOB,
    NESTED,
    NEVER_EMPTY,
    OPEN,
    PROCESS,
    TOP,
    Block,
    Kind,
    places,
)
from comfymodal.training.ai_toolkit.subject import MOST, Subject, schema_place
from comfymodal.training.config import KeyPath, Problem, nearest, shown, texts_in

_YES = ("yes", "on", "y")
_NO = ("no", "off", "n")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)

_WORDS: Mapping[Kind, str] = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "text": "text",
    "texts": "text or a list of texts",
    "wholes": "a whole number or a list of them",
    "mapping": "a mapping of keys",
    "mappings": "a list of mappings",
    "any": "anything",
}


def check_keys(subject: Subject) -> Iterator[Problem]:
    """Find keys that are not known, values of another kind than their key wants, and values that are none of its."""
    yield from _check_block(subject, (), TOP, subject.config)
    job = subject.config.get("config")
    if isinstance(job, dict):
        yield from _check_block(subject, ("config",), JOB, job)
    if subject.process:
        yield from _check_block(subject, subject.process_path, PROCESS, subject.process)
        yield from _check_nested(subject, subject.process_path, subject.process)


def _check_nested(subject: Subject, path: KeyPath, block: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in block.items():
        at = (*path, key)
        place = schema_place(at[len(subject.process_path) :])
        if place in NESTED and isinstance(value, dict):
            yield from _check_block(subject, at, NESTED[place], value)
            yield from _check_nested(subject, at, value)
        elif f"{place}[]" in NESTED and isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    yield from _check_block(subject, (*at, index), NESTED[f"{place}[]"], entry)


def _check_block(subject: Subject, path: KeyPath, block: Block, values: Mapping[str, Any]) -> Iterator[Problem]:
    below = path[len(subject.process_path) :] if path[: len(subject.process_path)] == subject.process_path else None
    prefix = f"{schema_place(below)}." if below else ""
    for key, value in values.items():
        at = (*path, key)
        if key in block:
            yield from _check_value(subject, at, block[key], value, prefix + key if below is not None else "")
        elif prefix.removesuffix(".") not in OPEN:
            yield _unknown(subject, at, block)


def _unknown(subject: Subject, path: KeyPath, block: Block) -> Problem:
    """A key that nobody reads. Stops the run when it is surely a slip: a near name, or at home elsewhere."""
    name = str(path[-1])
    if near := nearest(name, block, cutoff=0.75):
        return subject.problem("unknown_key", path, "unknown key: the trainer ignores it", f"did you mean `{near}`?")
    homes = [place for place in places() if place.rpartition(".")[2] == name and not place.startswith("first_sample.")]
    if path[:2] != ("config", "process"):
        homes = [*(["config.name"] if name == "name" else []), *(f"config.process[].{place}" for place in homes)]
    if homes:
        hint = f"it belongs {'at' if len(homes) == 1 else 'at one of'} {', '.join(f'`{home}`' for home in homes[:3])}"
        return subject.problem("unknown_key", path, "unknown key: the trainer ignores it here", hint)
    hint = "remove it, unless your ai-toolkit is newer than the one known here"
    return subject.warning("unknown_key", path, "unknown key: the trainer ignores it", hint)


def _check_value(subject: Subject, path: KeyPath, kind: Kind, value: Any, place: str) -> Iterator[Problem]:
    if place in NEVER_EMPTY and value in (None, []):
        hint = "remove the key: the trainer has a default"
        yield subject.problem("bad_value", path, f"must be {_WORDS[kind]}, not {shown(value)}", hint)
        return
    if value is None or (isinstance(value, str) and _VARIABLE.search(value)):
        return
    if not fits(kind, value):
        yield subject.problem("bad_kind", path, f"must be {_WORDS[kind]}, not {shown(value)}", _hint(kind, value))
        return
    numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, (int, float))]
    if any(not abs(one) < MOST for one in numbers):
        yield subject.problem("bad_value", path, f"must be a number of ordinary size, not {shown(value)}")
        return
    yield from _check_range(subject, path, place, value)
    if (choices := choices_of(place)) and isinstance(value, str) and value.lower() not in choices:
        near = nearest(value, choices, cutoff=0.6)
        hint = f"did you mean `{near}`? one of: {', '.join(choices)}" if near else f"one of: {', '.join(choices)}"
        yield subject.problem("bad_choice", path, f"{shown(value)} is not known", hint)


def _check_range(subject: Subject, path: KeyPath, place: str, value: Any) -> Iterator[Problem]:
    least = AT_LEAST.get(place)
    if least is None:
        return
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, (int, float)) and one < least:
            yield subject.problem("bad_value", path, f"must be at least {least:g}, not {shown(one)}")


def choices_of(place: str) -> tuple[str, ...]:
    """Give the legal values at a place; empty where any will do."""
    return CHOICES["train.noise_scheduler"] if place.endswith("sample.sampler") else CHOICES.get(place, ())


def fits(kind: Kind, value: Any) -> bool:  # noqa: PLR0911 - one return per kind
    """Whether a value is of a kind."""
    if kind == "any":
        return True
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "mapping":
        return isinstance(value, dict)
    if kind == "mappings":
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if kind in ("texts", "wholes"):
        one: Kind = "text" if kind == "texts" else "whole"
        return all(fits(one, entry) for entry in value) if isinstance(value, list) else fits(one, value)
    if kind == "text":
        return isinstance(value, str)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and (kind == "number" or isinstance(value, int) or float(value).is_integer())


def _hint(kind: Kind, value: Any) -> str | None:
    if kind == "flag" and isinstance(value, str) and value.lower() in (*_YES, *_NO):
        return f"write {'true' if value.lower() in _YES else 'false'}: to the trainer any text counts as true"
    if kind in ("whole", "number", "wholes") and isinstance(value, str) and _is_number(value):
        return "remove the quotes around it"
    if kind == "flag" and isinstance(value, str) and value.lower() in ("true", "false"):
        return "remove the quotes around it"
    if kind in ("text", "texts") and isinstance(value, (int, float)):
        return "put quotes around it"
    return None


def mended(kind: Kind, value: Any) -> Any:
    """Give the value of the right kind that a wrong one stands for; the value itself where that is not sure."""
    if fits(kind, value):
        return value
    if kind == "flag" and isinstance(value, str):
        known = {**dict.fromkeys((*_YES, "true"), True), **dict.fromkeys((*_NO, "false"), False)}
        return known.get(value.lower(), value)
    if kind in ("whole", "number", "wholes") and isinstance(value, str) and _is_number(value):
        number = float(value.replace("_", ""))
        return int(number) if number.is_integer() and kind != "number" else number
    if kind == "text" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return [value] if kind == "mappings" and isinstance(value, dict) else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace("_", "")))
    except ValueError:
        return False


def is_secret_name(variable: str) -> bool:
    """Whether an env var of this name holds what must not get into a config."""
    return _SECRET_NAME.search(variable) is not None


def check_secrets(subject: Subject) -> Iterator[Problem]:
    """Find tokens, and variables that bring one in: the trainer prints its config and keeps it beside the LoRA."""
    for path, text in texts_in(subject.config):
        if looks_secret(text):
            hint = "remove it, and revoke it if others have seen this file; tokens come from the secret of the project"
            yield subject.problem("secret", path, "looks like a token or key", hint)
        for name in _VARIABLE.findall(text):
            if is_secret_name(name):
                message = f"${{{name}}} would be printed to the log and stored in config.yaml on the volume"
                hint = "remove it: the trainer reads HF_TOKEN by itself, from the secret of the project"
                yield subject.problem("secret", path, message, hint)
