"""Settings from env vars and flags, as leaves for the tree of the project file. Reads no files."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from comfymodal.project.keys import LeafKind, leaves
from comfymodal.project.problems import Mark, Problem, printable
from comfymodal.project.tree import Node, Scalar, parse_scalar, parse_yaml
from comfymodal.project.values import expand_path

PREFIX = "COMFYMODAL_"
RESERVED = frozenset({"COMFYMODAL_CONFIG", "COMFYMODAL_DATA_DIR", "COMFYMODAL_STATE_DIR"})
"""Env vars with another reader: they are no settings of a project."""

Leaf = tuple[str, Node]
"""A dotted key and its value."""


def variables() -> Mapping[str, str]:
    """Give the dotted key of every env var that sets one. `version` describes the file, so nothing else sets it."""
    return {PREFIX + key.replace(".", "_").upper(): key for key in leaves() if key != "version"}


def read_environment(environ: Mapping[str, str], *, cwd: Path) -> tuple[list[Leaf], list[Problem]]:
    """Read the settings among the env vars; empty ones count as not set. Relative paths are relative to `cwd`.

    Raises ProjectError for a list that starts as YAML (`[`) and is not, and for a mapping (`{`) that is not YAML.
    """
    kinds, found, problems = leaves(), list[Leaf](), list[Problem]()
    for variable, key in variables().items():
        text = environ.get(variable, "")
        mark = Mark(variable=variable)
        try:
            found += [(key, _parse(text, kinds[key], mark, cwd))] if text else []
        except ValueError as exc:
            problems.append(Problem(mark, key, str(exc)))
    return found, problems


def read_flags(flags: Mapping[str, object], *, cwd: Path) -> tuple[list[Leaf], list[Problem]]:
    """Turn flags that were given (not None) into leaves. Relative paths are relative to `cwd`."""
    kinds, found, problems = leaves(), list[Leaf](), list[Problem]()
    mark = Mark(is_flag=True)
    for key, value in flags.items():
        try:
            if value is not None:
                found.append((key, _from_flag(value, kinds.get(key), mark, cwd)))
        except ValueError as exc:
            problems.append(Problem(mark, key, str(exc)))
    return found, problems


def misspelt_variables(environ: Iterable[str]) -> list[str]:
    """Warn of env vars that set nothing but look as if they were meant to."""
    known = {variable.removeprefix(PREFIX): variable for variable in variables()}
    warnings = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in RESERVED or variable in known.values():
            continue
        # Compared without the common prefix, which would make everything look alike.
        near = difflib.get_close_matches(variable.removeprefix(PREFIX), known, n=1, cutoff=0.75)
        warnings += [f"{printable(variable)} is not a setting; did you mean {known[name]}" for name in near]
    return warnings


def _parse(text: str, kind: LeafKind, mark: Mark, cwd: Path) -> Node:
    if kind == "list":
        return _parse_list(text, mark)
    if kind == "mapping":
        return _parse_mapping(text, mark)
    # `null` unsets what the file sets. `~` does not: for a path it is the home folder.
    if kind == "scalar" or text == "null":
        return Node(parse_scalar(text), mark)
    return Node(expand_path(text, base=cwd) if kind == "path" else text, mark)


def _parse_list(text: str, mark: Mark) -> Node:
    if text.lstrip().startswith("["):
        return parse_yaml(text, lambda _line, _column: mark) or Node((), mark)
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ValueError(f"cannot be split into words: {str(exc).lower()}") from exc
    return Node(tuple(Node(word, mark) for word in words), mark)


def _parse_mapping(text: str, mark: Mark) -> Node:
    if not text.lstrip().startswith("{"):
        raise ValueError("must be a mapping in braces, for example {NAME: value}")
    return parse_yaml(text, lambda _line, _column: mark) or Node({}, mark)


def _from_flag(value: object, kind: LeafKind | None, mark: Mark, cwd: Path) -> Node:
    if isinstance(value, Mapping):
        children = {str(name): _from_flag(item, None, mark, cwd) for name, item in value.items()}
        return Node(children, mark, dict.fromkeys(children, mark))
    if isinstance(value, (list, tuple)):
        return Node(tuple(_from_flag(item, None, mark, cwd) for item in value), mark)
    if isinstance(value, Path) or (kind == "path" and isinstance(value, str)):
        return Node(expand_path(str(value), base=cwd), mark)
    scalar: Scalar = value if isinstance(value, (str, int, float)) else str(value)
    return Node(scalar, mark)
