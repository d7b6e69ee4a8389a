"""YAML text as a tree that knows where each value was written. Builds no objects and knows no keys.

Values follow the YAML 1.2 core schema, which is what editors and JSON Schemas assume. PyYAML's own YAML 1.1 rules
would turn `no` into False, `010` into 8, `12:30` into 750, `2024-01-01` into a date and leave `1e-4` a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from comfymodal.project.problems import Mark, Problem, project_error

Scalar = str | int | float | bool | None
Key = str | int

MAX_DEPTH = 32
MAX_WEIGHT = 2 * 1024 * 1024
"""Limit on a file after its aliases are expanded. A value weighs its text plus VALUE_WEIGHT, so that both many small
and few large ones are bounded, and a few lines of nested aliases cannot become gigabytes."""

VALUE_WEIGHT = 100

_STAR = "put quotes around text that starts with `*`"

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# Longer digit strings are text: no setting needs them, and int() refuses beyond 4300 digits.
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_OTHER_BASE = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,4})?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was written; `keys` has the place of each key of a mapping.

    `written` is the text of a scalar in the file: 12.10 is the number 12.1, yet an env var wants what was typed.
    """

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    mark: Mark
    keys: Mapping[str, Mark] = field(default_factory=dict)
    weight: int = VALUE_WEIGHT
    written: str = ""

    def plain(self) -> object:
        """Give the value alone, as JSON would have it."""
        if isinstance(self.value, Mapping):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def as_written(self) -> Node:
        """Give this tree with numbers and booleans as text, in the spelling of the file."""
        if isinstance(self.value, Mapping):
            children = {key: child.as_written() for key, child in self.value.items()}
            return Node(children, self.mark, self.keys, self.weight)
        if isinstance(self.value, (bool, int, float)):
            return Node(self.written or json.dumps(self.value), self.mark)
        return self

    def walk(self, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Node]]:
        """Visit this node and all below it, each with its path."""
        yield path, self
        for key, child in self._children():
            yield from child.walk((*path, key))

    def closest(self, path: tuple[Key, ...]) -> Node:
        """Give the node at `path`, or the nearest one above it that exists."""
        child = dict(self._children()).get(path[0]) if path else None
        return self if child is None else child.closest(path[1:])

    def find(self, path: tuple[Key, ...]) -> Node | None:
        """Give the node at `path`, None when there is none."""
        child = dict(self._children()).get(path[0]) if path else self
        return child if child is None or not path else child.find(path[1:])

    def with_leaf(self, path: tuple[str, ...], leaf: Node) -> Node:
        """Copy the tree with `leaf` at `path`. A value that stands where a mapping must be is left to be reported."""
        if not path:
            return leaf
        if not isinstance(self.value, Mapping):
            return self
        child = self.value.get(path[0]) or Node({}, leaf.mark)
        keys = self.keys if path[0] in self.value and len(path) > 1 else {**self.keys, path[0]: leaf.mark}
        return Node({**self.value, path[0]: child.with_leaf(path[1:], leaf)}, self.mark, keys)

    def _children(self) -> Iterator[tuple[Key, Node]]:
        if isinstance(self.value, Mapping):
            yield from self.value.items()
        elif isinstance(self.value, tuple):
            yield from enumerate(self.value)


def dotted(path: tuple[Key, ...]) -> str:
    """Write a path as operators read it: `comfyui.args[0]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def parse_scalar(text: str) -> Scalar:  # noqa: PLR0911 - one return per type
    """Give the value of an unquoted scalar by the YAML 1.2 core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def parse_yaml(text: str, mark_at: Callable[[int, int], Mark]) -> Node | None:
    """Turn YAML text into a tree; None when it holds nothing. `mark_at` gives the place for a line and column from 1.

    Raises ProjectError for text that is not one plain YAML document: syntax errors, several documents, tags,
    recursive or exploding aliases; and for all duplicate keys at once.
    """
    builder = _Builder(mark_at)
    try:
        # SafeLoader is used for its parser only; libyaml's would be faster but words its errors differently.
        root = builder.read(yaml.SafeLoader(text))
    except yaml.reader.ReaderError as exc:
        before = text[: exc.position].split("\n")
        problem = Problem(mark_at(len(before), len(before[-1]) + 1), "", "not valid YAML: character is not allowed")
        raise project_error([*builder.problems, problem]) from exc
    except yaml.MarkedYAMLError as exc:
        raise project_error([*builder.problems, builder.syntax_problem(exc)]) from exc
    except (ValueError, OverflowError) as exc:
        # PyYAML passes "\UFFFFFFFF" to chr() unchecked.
        raise project_error([*builder.problems, builder.character_problem()]) from exc
    if builder.problems:
        raise project_error(builder.problems)
    return root


class _Builder:
    """Turns the parser's events into nodes; stops early where PyYAML's composer would recurse or expand."""

    def __init__(self, mark_at: Callable[[int, int], Mark]) -> None:
        self.problems: list[Problem] = []
        self._mark_at = mark_at
        self._anchors: dict[str, Node | None] = {}
        self._weight = 0

    def read(self, loader: yaml.SafeLoader) -> Node | None:
        self._loader = loader
        self._next()  # the stream starts
        if loader.check_event(yaml.StreamEndEvent):
            return None
        self._next()  # the document starts
        root = self._node((), self._next())
        self._next()  # the document ends
        second = self._next()
        if not isinstance(second, yaml.StreamEndEvent):
            self._stop(second, (), "a second document starts here", "a project file is one YAML document; remove `---`")
        return None if root.value is None else root

    def syntax_problem(self, exc: yaml.MarkedYAMLError) -> Problem:
        mark = exc.problem_mark or exc.context_mark or self._loader.get_mark()
        message = f"not valid YAML: {exc.problem or exc.context or 'unreadable'}"
        if exc.problem and exc.context and exc.context_mark and exc.context_mark.line != mark.line:
            message += f" ({exc.context}, line {exc.context_mark.line + 1})"
        hint = "indent with spaces; YAML refuses tabs" if "'\\t'" in message else None
        if exc.context == "while scanning an alias":
            hint = _STAR
        return Problem(self._mark(mark), "", message, hint)

    def character_problem(self) -> Problem:
        return Problem(self._mark(self._loader.get_mark()), "", "not valid YAML: no such character")

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def _node(self, path: tuple[Key, ...], event: Any) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(path, event)
        self._weigh(path, event, VALUE_WEIGHT)
        if event.tag not in (None, "!"):
            self._stop(event, path, "YAML tags are not used here", "quote the value if it starts with `!`")
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(path, event)
        elif len(path) >= MAX_DEPTH:
            self._stop(event, path, f"nested deeper than {MAX_DEPTH} levels")
        else:
            if event.anchor:
                self._anchors[event.anchor] = None
            node = self._sequence(path, event) if isinstance(event, yaml.SequenceStartEvent) else self._map(path, event)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, path: tuple[Key, ...], event: Any) -> Node:
        if event.anchor not in self._anchors:
            self._stop(event, path, f"no anchor &{event.anchor} before this alias", _STAR)
        node = self._anchors[event.anchor]
        if node is None:
            self._stop(event, path, f"alias *{event.anchor} contains itself")
        self._weigh(path, event, node.weight)
        # Checked again here: aliases of aliases make a tree deeper than anything that is written out.
        if len(path) + max(len(below) for below, _ in node.walk()) > MAX_DEPTH:
            self._stop(event, path, f"nested deeper than {MAX_DEPTH} levels")
        return node

    def _scalar(self, path: tuple[Key, ...], event: yaml.ScalarEvent) -> Node:
        self._weigh(path, event, len(event.value))
        is_plain = event.tag is None and event.style is None
        value = parse_scalar(event.value) if is_plain else event.value
        weight = VALUE_WEIGHT + len(event.value)
        return Node(value, self._mark(event.start_mark), weight=weight, written=event.value)

    def _sequence(self, path: tuple[Key, ...], start: yaml.SequenceStartEvent) -> Node:
        before, children = self._weight - VALUE_WEIGHT, list[Node]()
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            children.append(self._node((*path, len(children)), event))
        return Node(tuple(children), self._mark(start.start_mark), weight=self._weight - before)

    def _map(self, path: tuple[Key, ...], start: yaml.Event) -> Node:
        before, children, keys = self._weight - VALUE_WEIGHT, dict[str, Node](), dict[str, Mark]()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(event, path, "a key must be a plain name")
            key, mark = event.value, self._mark(event.start_mark)
            self._weigh(path, event, len(key))
            child = self._node((*path, key), self._next())
            if key in keys:
                message = f"duplicate key, first at line {keys[key].line}, column {keys[key].column}"
                self.problems.append(Problem(mark, dotted((*path, key)), message, "keep one of the two"))
                continue
            children[key], keys[key] = child, mark
        return Node(children, self._mark(start.start_mark), keys, self._weight - before)

    def _weigh(self, path: tuple[Key, ...], event: yaml.Event, weight: int) -> None:
        self._weight += weight
        if self._weight > MAX_WEIGHT:
            self._stop(event, path, "too many values for a project file, counting what aliases repeat")

    def _stop(self, event: yaml.Event, path: tuple[Key, ...], message: str, hint: str | None = None) -> NoReturn:
        raise project_error([*self.problems, Problem(self._mark(event.start_mark), dotted(path), message, hint)])

    def _mark(self, mark: Any) -> Mark:
        return self._mark_at(mark.line + 1, mark.column + 1)
