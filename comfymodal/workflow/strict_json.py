"""Strict JSON: what ComfyUI could not read back, or would silently drop, is refused here."""

from __future__ import annotations

import json
import math
from typing import Any

from comfymodal.errors import WorkflowError
from comfymodal.workflow.wording import shown

_DEEPEST = 100
"""Real workflows nest about five levels; json.dumps of a thousand fails later, in the middle of a run."""

_LONGEST_INTEGER = 40
"""The largest seed (2**64 - 1) has 20 digits."""


def parse_json(text: str, *, where: str) -> Any:
    """Return the value of *text*; *where* names the place (a path, an override) and starts every message.

    Raises WorkflowError for broken JSON (with line and column), a key given twice in one object, NaN and
    infinities, nesting deeper than 100, and text that is not valid Unicode.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer
        )
        if _is_too_deep(value):
            raise ValueError(f"nested deeper than {_DEEPEST} levels")
        if "\\ud" in text.casefold():
            # "\ud800" alone is legal JSON but no text: printing or sending it fails much later.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as exc:
        raise WorkflowError(
            f"{where}:{exc.lineno}:{exc.colno}: broken JSON: {exc.msg}",
            hint="look for a missing comma, quote or bracket there",
            line=exc.lineno,
            column=exc.colno,
        ) from exc
    except RecursionError as exc:
        raise WorkflowError(f"{where}: nested deeper than {_DEEPEST} levels", hint=_HINT) from exc
    except UnicodeEncodeError as exc:
        raise WorkflowError(f"{where}: holds half of a surrogate pair (\\ud800-\\udfff)", hint=_HINT) from exc
    except ValueError as exc:
        raise WorkflowError(f"{where}: {exc}", hint=_HINT) from exc
    return value


_HINT = "ComfyUI never writes such JSON; export the workflow again, or mend the program that wrote it"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                # json keeps the last one: a whole node would vanish without a word.
                raise ValueError(f"the key {shown(key)} appears twice in one object")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a whole number of {len(text)} digits is too large")
    return int(text)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
