"""The keys of the project file, as the models of `schema` have them: places, values, and how text becomes one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

from comfymodal.project.schema import ENTRY, Config, Project, Volumes

_NO_NAMES: Mapping[str, Iterable[str]] = MappingProxyType({})

LeafKind = Literal["text", "path", "list", "mapping", "scalar"]
"""How the text of an env var becomes a value: as it is, as a path, as a list of words, as a YAML mapping in braces,
or as a YAML scalar."""


def models() -> tuple[type[Config], ...]:
    """Give Project and the models of all its parts."""
    return tuple(dict.fromkeys(model for _, model in _models(Project, "")))


def sections() -> Mapping[str, tuple[str, ...]]:
    """Give the legal keys of every place that has keys, by dotted name; the top of the file is ``.

    Names of entries are free: `remotes.*` has the keys that each of the remotes may have.
    """
    return {place: tuple(key for key, _ in _fields(model)) for place, model in _models(Project, "")}


def leaves(names: Mapping[str, Iterable[str]] = _NO_NAMES) -> Mapping[str, LeafKind]:
    """Give every key that holds a value, by dotted name in the order of the schema.

    `names` are those of entries by where they are, e.g. `{"remotes": ["b2"]}`; without them only keys that every
    project has are given.
    """
    return dict(_leaves(Project, "", names))


def entry_names(project: Project) -> Mapping[str, tuple[str, ...]]:
    """Give the names of the project's remotes, sync pairs, mounts, rentals, tags and receivers, by where they are."""
    return {place: tuple(attrgetter(place)(project)) for place in _places_of_entries()}


def default_volume_names() -> Mapping[str, str]:
    """Give the names that volumes have unless the project says otherwise, by role."""
    parts = ((role, _section(annotation)) for role, annotation in _fields(Volumes))
    return {role: part.model_fields["name"].default for role, part in parts if part}


def without_names(path: tuple[str | int, ...]) -> str:
    """Give the dotted name of a key or section in the terms of the schema: `remotes.*.bucket`."""
    for place in _places_of_entries():
        above = tuple(place.split("."))
        if len(path) > len(above) and path[: len(above)] == above:
            path = (*above, ENTRY, *path[len(above) + 1 :])
    return ".".join(map(str, path))


def _places_of_entries() -> tuple[str, ...]:
    return tuple(place.removesuffix(f".{ENTRY}") for place, _ in _models(Project, "") if place.endswith(f".{ENTRY}"))


def _fields(model: type[Config]) -> Iterator[tuple[str, Any]]:
    """The keys of a model as they are written in the file, and what they hold."""
    return ((field.alias or name, field.annotation) for name, field in model.model_fields.items())


def _models(model: type[Config], place: str) -> Iterator[tuple[str, type[Config]]]:
    yield place, model
    for key, annotation in _fields(model):
        below = f"{place}.{key}".lstrip(".")
        if (part := _section(annotation)) is not None:
            yield from _models(part, below)
        elif (entry := _entry(annotation)) is not None:
            yield from _models(entry, f"{below}.{ENTRY}")


def _leaves(model: type[Config], place: str, names: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, LeafKind]]:
    for key, annotation in _fields(model):
        below = f"{place}.{key}".lstrip(".")
        if (part := _section(annotation)) is not None:
            yield from _leaves(part, below, names)
        elif (entry := _entry(annotation)) is not None:
            for name in names.get(below, ()):
                yield from _leaves(entry, f"{below}.{name}", names)
        else:
            yield below, _kind(annotation)


def _section(annotation: Any) -> type[Config] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Config) else None


def _entry(annotation: Any) -> type[Config] | None:
    """The model of the entries where names are free."""
    return _section(get_args(annotation)[1]) if get_origin(annotation) is dict else None


def _kind(annotation: Any) -> LeafKind:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "text" if isinstance(get_args(annotation)[0], str) else "scalar"
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is dict:
        return "mapping"
    if type(None) in get_args(annotation):
        return _kind(get_args(annotation)[0])
    kinds: Mapping[Any, LeafKind] = {str: "text", Decimal: "text", Path: "path"}
    return kinds.get(annotation, "scalar")
