"""From the text a person typed to the value an input takes: the type rules of `--set NODE.INPUT=VALUE`."""

from __future__ import annotations

import math
import re
from typing import Any

from comfymodal.errors import WorkflowError
from comfymodal.workflow.object_info import COMBO, InputSpec
from comfymodal.workflow.wording import shown

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
# Not int() and float(): both accept "1_000" and digits of every script, which nobody types on purpose.
_INT = re.compile(r"[+-]?[0-9]{1,40}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def value_type(spec: InputSpec | None, current: Any) -> str | None:
    """Return INT, FLOAT, BOOLEAN, STRING or COMBO; None when text cannot say a value of this input.

    The server's declaration decides, since an exported 7 may well be a FLOAT; a class it does not know, or a
    type only a custom node understands, leaves the value in the graph.
    """
    if spec is not None:
        # A union such as "INT,FLOAT" takes the wider one.
        for name in (COMBO, "STRING", "FLOAT", "INT", "BOOLEAN"):
            if name in spec.types:
                return name
    # bool before int: True is an int in Python.
    by_class = ((bool, "BOOLEAN"), (int, "INT"), (float, "FLOAT"), (str, "STRING"))
    return next((name for kind, name in by_class if isinstance(current, kind)), None)


def typed_value(text: str, *, type_name: str, spec: InputSpec | None, where: str) -> Any:
    """Return *text* as a value of *type_name*; *where* starts the message. Raises WorkflowError if it is none."""
    if type_name == "INT":
        return _int(text, where=where)
    if type_name == "FLOAT":
        return _float(text, where=where)
    if type_name == "BOOLEAN":
        return _boolean(text, where=where)
    if type_name == COMBO and spec is not None:
        return _choice(text, spec)
    return text  # STRING: never read as JSON, so 123 and [x] stay text


def json_value(value: Any, *, is_link: bool) -> Any:
    """Return what the graph holds for a JSON *value*: ComfyUI reads any bare list as a link, so others are wrapped."""
    return {"__value__": value} if isinstance(value, list) and not is_link else value


def _int(text: str, *, where: str) -> int:
    if _INT.fullmatch(text.strip()) is None:
        raise WorkflowError(
            f"{where} takes a whole number (INT), not {shown(text)}", hint="write it in digits, for example 20 or -1"
        )
    return int(text)


def _float(text: str, *, where: str) -> float:
    number = float(text) if _FLOAT.fullmatch(text.strip()) else math.nan
    if not math.isfinite(number):
        raise WorkflowError(
            f"{where} takes a number (FLOAT), not {shown(text)}", hint="for example 7, 7.5 or 1e-4; nan and inf are not"
        )
    return number


def _boolean(text: str, *, where: str) -> bool:
    word = text.strip().casefold()
    if word not in _TRUE | _FALSE:
        raise WorkflowError(f"{where} takes true or false (BOOLEAN), not {shown(text)}", hint="write true or false")
    return word in _TRUE


def _choice(text: str, spec: InputSpec) -> Any:
    options = spec.options or ()
    if text in options:
        return text
    # Lists of numbers exist ([1, 2, 4]); what is on no list stays text and is judged by check_graph.
    return next((option for option in options if not isinstance(option, str) and str(option) == text), text)
