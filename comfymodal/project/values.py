"""The kinds of values a project file holds: how each is read, worded when wrong, and shown. Reads no files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from comfymodal.project.container_env import NAME_PATTERN, check_env_name, check_env_value
from comfymodal.project.durations import LONGEST_S, PATTERN, SHORTEST_S, format_duration, parse_duration
from comfymodal.project.naming import check_naming
from comfymodal.project.pins import (
    NODE_PATTERN,
    PACKAGE_PATTERN,
    check_custom_node,
    check_no_node_twice,
    check_no_package_twice,
    check_package,
)
from comfymodal.project.problems import Mistake


def matching(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    """What makes an `Annotated[str, *matching(...)]` text of one form: `must be {words}`."""

    # pydantic's own pattern error shows the regular expression; operators get words.
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def url(example: str) -> tuple[AfterValidator, WithJsonSchema]:
    """What makes an `Annotated[str, *url(...)]` the base address of a server; `example` is shown with a wrong one."""
    pattern = "^[Hh][Tt][Tt][Pp][Ss]?://[^ ?#@]+$"
    return AfterValidator(lambda value: _check_url(value, example)), WithJsonSchema(
        {"type": "string", "pattern": pattern}
    )


def _check_url(value: str, example: str) -> str:
    try:
        parts = urlsplit(value)
        # Reading the port is what checks it.
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"must be an http:// or https:// address with a host, for example {example}")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password: secrets are names, never values")
    if "?" in value or "#" in value:
        raise ValueError(f"must be the base address without ? or #, for example {example}")
    return value.rstrip("/")


def expand_path(text: str, *, base: Path | None) -> str:
    """Expand `~` and put a relative path under `base`. Raises ValueError for text that cannot be a path.

    Symlinks and `..` are kept: the `python` of a virtual environment is a symlink whose target is another Python.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("must be a path")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(f"nobody called {Path(text).parts[0][1:]} has a home folder here")
    return os.path.join(base, expanded) if base else expanded


def _parse_path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, (str, Path)):
        # `~` alone is YAML for null.
        raise ValueError("must be a path; put quotes around it")
    return Path(expand_path(str(value), base=(info.context or {}).get("base")))


def refuse_lookalikes(value: object) -> object:
    """Raise ValueError for `true`, 1.0 and "1", which Python or an operator may take for the number 1."""
    if type(value) is not int:
        raise ValueError("must be the number 1, without quotes")
    return value


def _refuse_other_versions(value: object) -> object:
    if type(value) is not int or value not in (1, 2):
        raise ValueError("must be the number 1 or 2")
    return value


def whole(least: int, most: int) -> tuple[AfterValidator, WithJsonSchema]:
    """What makes an `Annotated[int, *whole(0, 100)]` a number in a range, with words for one outside."""

    def check(value: int) -> int:
        if not least <= value <= most:
            raise ValueError(f"must be {least} to {most}, not {str(value)[:20]}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "integer", "minimum": least, "maximum": most})


def checked(check: Callable[[str], str], pattern: str) -> tuple[AfterValidator, WithJsonSchema]:
    """What makes an `Annotated[str, *checked(...)]` text that `check` accepts; editors are told the pattern."""
    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("must be a GPU's name, or a list of names in the order they are tried")
    return tuple(value)


def _canonical_gpu(text: str) -> str:
    from comfymodal.costs.rates import parse_gpu

    return parse_gpu(text).label


def _parse_usd(value: object) -> Decimal | None:
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    amount = Decimal(text) if re.fullmatch(r"[0-9]{0,20}\.?[0-9]{1,20}(?:[eE][-+]?[0-9]{1,3})?", text) else Decimal(0)
    if not Decimal("1e-9") <= amount <= 1_000_000 or amount != amount.quantize(Decimal("1e-9")):
        raise Mistake(
            "must be US dollars above 0 with at most 9 decimals, for example 2.50",
            hint="write the number alone, or null for no limit",
        )
    return amount


def _show_usd(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"


def _parse_idle(value: object) -> float | None:
    return None if value == "never" else parse_duration(value)


def _show_idle(value: float | None) -> str:
    return "never" if value is None else format_duration(value)


_DURATION_FORMS: list[dict[str, Any]] = [
    {"type": "string", "pattern": f"^{PATTERN}$", "examples": ["90s", "15m", "1h30m"]},
    {"type": "number", "minimum": SHORTEST_S, "maximum": LONGEST_S},
]

Duration = Annotated[
    float,
    PlainValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"anyOf": _DURATION_FORMS}),
]
"""Seconds; written as `15m` and shown that way again."""

DurationOrNever = Annotated[
    float | None,
    PlainValidator(_parse_idle),
    PlainSerializer(_show_idle, when_used="json"),
    WithJsonSchema({"anyOf": [*_DURATION_FORMS, {"const": "never"}]}),
]
"""Seconds, or None for `never`."""


def _duration(shortest_s: float, longest_s: float, words: str) -> tuple[Any, ...]:
    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not shortest_s <= seconds <= longest_s:
            raise ValueError(f"must be {words}")
        return seconds

    forms = [_DURATION_FORMS[0], {"type": "number", "minimum": shortest_s, "maximum": longest_s}]
    shown = PlainSerializer(format_duration, when_used="json")
    return PlainValidator(parse), shown, WithJsonSchema({"anyOf": forms})


Timeout = Annotated[float, *_duration(60, 86400, "at least 60s and at most 24h: Modal ends every call after 24h")]
LongTimeout = Annotated[float, *_duration(60, 14 * 86400, "at least 60s and at most 14 days (336h)")]
ScaledownWindow = Annotated[float, *_duration(2, 3600, "at least 2s and at most 1h: Modal takes nothing else")]

LocalPath = Annotated[Path, PlainValidator(_parse_path), WithJsonSchema({"type": "string", "minLength": 1})]
"""Absolute once validated with a `base` in the validation context."""

ProjectName = Annotated[
    str, *matching("[a-z0-9][a-z0-9-]{0,39}", "1 to 40 lower-case letters, digits and dashes, no dash first")
]
ModalName = Annotated[
    str, *matching("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, dots, dashes and underscores")
]
ModalRegion = Annotated[
    str, *matching("[a-z][a-z0-9]*(-[a-z0-9]+)*", "a region of Modal's in small letters, for example eu or us-west")
]
VolumeVersion = Annotated[Literal[1, 2], BeforeValidator(_refuse_other_versions)]
CustomNodes = Annotated[
    tuple[Annotated[str, *checked(check_custom_node, NODE_PATTERN)], ...], AfterValidator(check_no_node_twice)
]
PythonPackages = Annotated[
    tuple[Annotated[str, *checked(check_package, PACKAGE_PATTERN)], ...], AfterValidator(check_no_package_twice)
]
ContainerEnv = Annotated[
    dict[Annotated[str, AfterValidator(check_env_name)], Annotated[str, PlainValidator(check_env_value)]],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }
    ),
]
Gpus = Annotated[
    tuple[Annotated[str, AfterValidator(_canonical_gpu)], ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""Modal's names, canonical: `A100-80GB`, `H100:2`."""

Gpu = Annotated[str, AfterValidator(_canonical_gpu), WithJsonSchema({"type": "string"})]
Commit = Annotated[str, *matching("[0-9a-f]{40}", "a commit of 40 hex digits")]

Usd = Annotated[
    Decimal | None,
    PlainValidator(_parse_usd),
    PlainSerializer(_show_usd, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "[0-9]"}, {"type": "null"}]}
    ),
]
"""US dollars, exact; None for no limit."""

Url = Annotated[str, *url("http://127.0.0.1:8188")]
Naming = Annotated[str, AfterValidator(check_naming)]


EngineVersion = Annotated[str, *matching(r"[0-9]+(\.[0-9A-Za-z+-]+)+", "a version of ComfyUI, for example 0.3.75")]
