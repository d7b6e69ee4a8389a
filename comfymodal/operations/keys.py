"""Keys and tokens that jobs on this machine need: from the environment, and below it from the project's `.env`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from comfymodal.operations.context import Context
from comfymodal.operations.setup import Values


def with_keys(context: Context, names: Iterable[str]) -> Context:
    """The context on this machine whose jobs find these env vars also where only `.env` has them.

    Nothing else of that file reaches a job. Raises `InputFileError` for a `.env` that cannot be read.
    """
    from comfymodal.targets.local import LocalTarget

    target = context.target
    if not isinstance(target, LocalTarget):
        return context
    values = Values.read(context.folder, context.environ)
    found = {name: value for name in names if not values.environ.get(name) and (value := values.file.get(name))}
    if not found:
        return context
    environ = {**context.environ, **found}
    return replace(context, target=replace(target, environ=environ), environ=environ)
