"""Puts the docstrings below the models' fields into their JSON Schema.

pydantic would read them whenever the models are imported, which takes a `render` 10 ms for words only `config schema`
shows.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel


def describe_fields(schema: dict[str, Any], models: Iterable[type[BaseModel]]) -> None:
    """Add `description` to every property of the models; `schema` has the first at its top, the others in `$defs`."""
    for number, model in enumerate(models):
        keys = {name: field.alias or name for name, field in model.model_fields.items()}
        properties = (schema if number == 0 else schema["$defs"][model.__name__])["properties"]
        for base in reversed(model.__mro__):
            for name, words in _docstrings(base):
                properties[keys[name]]["description"] = words


def _docstrings(model: type) -> Iterator[tuple[str, str]]:
    if "__annotations__" not in vars(model) or not model.__module__.startswith("comfymodal."):
        return
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    for field, words in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(words, ast.Expr):
            yield field.target.id, inspect.cleandoc(ast.literal_eval(words.value))
