"""Validates the tree of a project file and words every mistake for operators. Reads no files."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comfymodal.project.check_links import check_links
from comfymodal.project.keys import leaves, sections, without_names
from comfymodal.project.problems import Problem, looks_secret, printable, project_error
from comfymodal.project.schema import AS_WRITTEN, ENTRY, VERSION, Project
from comfymodal.project.tree import Key, Node, dotted

_WORDS = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of names to values",
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
}

_KEY_OF_BUCKET = re.compile("key|token|password|account|credential", re.IGNORECASE)

_SECRET_OF_RECEIVER = re.compile("url|hook|address|token|key|secret|password", re.IGNORECASE)

_YAML_1_1_BOOLEANS = ("yes", "no", "on", "off", "y", "n")


def check_project(root: Node, *, base: Path, problems: list[Problem]) -> Project:
    """Turn the tree into settings; relative paths are put under `base`.

    Raises ProjectError with every mistake: those in `problems`, found while the tree was made, and those found here.
    """
    _require_version(root)
    unreadable = [problem for path, node in root.walk() for problem in _check_encoding(path, node)]
    if unreadable:
        # Text with half a character cannot become JSON, so nothing else can be checked.
        raise project_error([*problems, *unreadable])
    found = [*problems, *(problem for path, node in root.walk() for problem in _check_secret(path, node))]
    found += check_links(root)
    tree: Any = _with_texts(root).plain()
    try:
        # JSON mode: strict, yet lists become tuples, as YAML can give nothing else.
        settings = Project.model_validate_json(json.dumps(_with_sections(tree)), context={"base": base})
    except ValidationError as exc:
        raise project_error([*found, *(_problem(root, error) for error in exc.errors(include_url=False))]) from exc
    if found:
        raise project_error(found)
    return settings


def _require_version(root: Node) -> None:
    """Raise for a file of another version: its keys cannot be judged, so this is its only mistake."""
    if not isinstance(root.value, Mapping):
        raise project_error([Problem(root.mark, "", "must be a mapping of keys", f"start with `version: {VERSION}`")])
    version = root.value.get("version")
    if version is not None and isinstance(version.value, int) and version.value > VERSION:
        message = f"{version.value} is made for a newer comfymodal; this one reads version {VERSION}"
        raise project_error([Problem(version.mark, "version", message, "update comfymodal")])


def _with_texts(root: Node) -> Node:
    for key in AS_WRITTEN:
        for path in _written_at(root, tuple(key.split("."))):
            root = root.with_leaf(path, root.closest(path).as_written())
    return root


def _written_at(root: Node, key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The places in this file that a dotted name of the schema stands for."""
    paths = [key]
    if ENTRY in key:
        at = key.index(ENTRY)
        entries = root.find(key[:at])
        names = entries.value if entries is not None and isinstance(entries.value, Mapping) else ()
        paths = [(*key[:at], name, *key[at + 1 :]) for name in names]
    return [path for path in paths if root.find(path) is not None]


def _with_sections(tree: Any) -> Any:
    # A missing section is the same as an empty one. Written out, its defaults are validated as a part of Project,
    # so that paths become absolute and pydantic need not build a validator for each section (10 ms).
    for place in sections():
        if ENTRY in place:
            continue
        at = tree
        for name in place.split(".") if place else ():
            at = at.setdefault(name, {}) if isinstance(at, dict) else None
    return tree


def _check_encoding(path: tuple[Key, ...], node: Node) -> list[Problem]:
    texts = [node.value, *(path[-1:] if path else ())]
    broken = any(isinstance(text, str) and not _is_unicode(text) for text in texts)
    return [Problem(node.mark, dotted(path), "is not UTF-8 text")] if broken else []


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _check_secret(path: tuple[Key, ...], node: Node) -> list[Problem]:
    if not isinstance(node.value, str) or not looks_secret(node.value):
        return []
    message = "looks like a token or key; secrets are names, never values"
    return [Problem(node.mark, dotted(path), message, "remove it here, and revoke it if others have seen this file")]


def _problem(root: Node, error: Any) -> Problem:
    path: tuple[Key, ...] = error["loc"]
    if error["type"] == "extra_forbidden" or _is_about_key(root, path):
        is_unknown = error["type"] == "extra_forbidden"
        path = path if is_unknown else path[:-1]
        parent = root.closest(path[:-1])
        mark = parent.keys.get(str(path[-1]), root.closest(path).mark)
        words = ("unknown key", _nearest(path)) if is_unknown else _words(error, root.closest(path))
        return Problem(mark, dotted(path), *words)
    path = _written_path(root, path, error)
    node = root.closest(path)
    message, hint = _words(error, node)
    return Problem(node.mark, dotted(path), message, hint)


def _is_about_key(root: Node, path: tuple[Key, ...]) -> bool:
    # pydantic's place of a mistake in the name itself of a free mapping; a name may be "[key]", too.
    return path[-1:] == ("[key]",) and "[key]" not in root.closest(path[:-1]).keys


def _written_path(root: Node, path: tuple[Key, ...], error: Any) -> tuple[Key, ...]:
    # A single value where a list may stand counts as a list of one, but was not written as one.
    if path and isinstance(path[-1], int) and root.find(path) is None:
        return path[:-1]
    at: tuple[str, ...] = getattr(error.get("ctx", {}).get("error"), "at", ())
    return next(((*path, key) for key in at if root.find((*path, key)) is not None), path)


def _words(error: Any, node: Node) -> tuple[str, str | None]:
    kind, shown, hint = error["type"], node.plain(), None
    if kind == "value_error":
        return str(error["ctx"]["error"]), getattr(error["ctx"]["error"], "hint", None)
    if kind == "missing":
        return "is missing", _hint_of_missing(error["loc"])
    if kind in ("model_type", "dict_type") and shown is None:
        return "has no keys", "write its keys below it, indented, or remove the line"
    if kind == "string_type" and isinstance(shown, (int, float)):
        hint = "put quotes around it"
    if kind == "bool_type" and str(shown).lower() in _YAML_1_1_BOOLEANS:
        hint = "yes, no, on and off are plain text here"
    message = f"must be {error['ctx']['expected']}" if kind == "literal_error" else _WORDS.get(kind, error["msg"])
    return f"{message}, not {_show(shown)}", hint


def _hint_of_missing(path: tuple[Key, ...]) -> str:
    if path == ("version",):
        return f"start the file with `version: {VERSION}`"
    return f"keys here: {', '.join(sections()[without_names(path[:-1])])}"


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else printable(json.dumps(value, ensure_ascii=False), longest=40)


def _nearest(path: tuple[Key, ...]) -> str:
    name, place = str(path[-1]), without_names(path[:-1])
    legal = sections()[place]
    if place == f"remotes.{ENTRY}" and _KEY_OF_BUCKET.search(name):
        return "keys come from env vars here, and on Modal from the secret that `secret` names; never from this file"
    if near := difflib.get_close_matches(name, legal, n=1, cutoff=0.7):
        return f"did you mean `{near[0]}`"
    if place == f"notify.{ENTRY}" and _SECRET_OF_RECEIVER.search(name):
        return "addresses and tokens are secrets: put it into an env var and name that under `url_env` or `token_env`"
    owners = [owner.replace(ENTRY, "NAME") for owner, keys in sections().items() if name in keys]
    if owners:
        homes = " or ".join(f"`{owner}`" for owner in owners)
        return f"`{name}` belongs {'at the top of the file' if '' in owners else f'under {homes}'}"
    by_name = {key.rpartition(".")[2]: key for key in leaves()}
    if near := difflib.get_close_matches(name, by_name, n=1, cutoff=0.8):
        return f"did you mean `{by_name[near[0]]}`"
    return f"keys here: {', '.join(legal)}"
