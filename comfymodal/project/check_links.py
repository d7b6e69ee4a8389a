"""Checks what names something else in the project file: ends of sync pairs, remotes of mounts.

Works on the tree, not on settings, so that these mistakes are told together with all others. Reads no files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from comfymodal.project.ends import Known, WrittenEnd, require_apart, require_known, split_end
from comfymodal.project.keys import default_volume_names
from comfymodal.project.problems import Mistake, Problem, printable
from comfymodal.project.tree import Node, dotted


def check_links(root: Node) -> list[Problem]:
    """Find names that nothing has, and pairs that make no sense. What is wrong by itself is left to the schema."""
    remotes = _entries(root, "remotes")
    if remotes is None:
        return []
    known = Known(tuple(remotes), _volumes(root))
    pairs, mounts = _entries(root, "sync") or {}, _entries(root, "mounts") or {}
    return [
        *(problem for name, pair in pairs.items() for problem in _check_pair(name, pair, known)),
        *(problem for name, mount in mounts.items() for problem in _check_mount(name, mount, remotes)),
    ]


def _entries(root: Node, place: str) -> Mapping[str, Node] | None:
    """The entries there; None for what is no mapping."""
    node = root.find((place,))
    if node is None:
        return {}
    return node.value if isinstance(node.value, Mapping) else None


def _volumes(root: Node) -> dict[str, str]:
    found = {role: _text(root.find(("volumes", role, "name"))) for role in default_volume_names()}
    return {role: found[role] or name for role, name in default_volume_names().items()}


def _text(node: Node | None) -> str | None:
    return node.value if node is not None and isinstance(node.value, str) else None


def _check_pair(name: str, pair: Node, known: Known) -> Iterator[Problem]:
    ends = list[WrittenEnd]()
    for key in ("from", "to"):
        end = _read_end(_text(pair.find((key,))))
        try:
            if end is not None:
                require_known(end, known)
                ends.append(end)
        except Mistake as wrong:
            yield _problem(pair.closest((key,)), ("sync", name, key), wrong)
    try:
        if len(ends) > 1:
            require_apart(ends[0], ends[1], known)
    except Mistake as wrong:
        yield _problem(pair.closest(("to",)), ("sync", name), wrong)


def _read_end(text: str | None) -> WrittenEnd | None:
    """The end; None for what the schema refuses."""
    try:
        return None if text is None else split_end(text)
    except Mistake:
        return None


def _check_mount(name: str, mount: Node, remotes: Mapping[str, Node]) -> Iterator[Problem]:
    remote = _text(mount.find(("remote",)))
    if remote is None:
        return
    place, node = ("mounts", name, "remote"), mount.closest(("remote",))
    if remote not in remotes:
        near = difflib.get_close_matches(remote[:200].lower(), remotes, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`" if near else f"remotes: {', '.join(remotes) or 'none yet'}"
        yield _problem(node, place, Mistake(f"has no remote called {printable(remote)}", hint=hint))
    elif _text(remotes[remote].find(("type",))) == "b2":
        hint = "add the bucket a second time with type: s3 and Backblaze's S3 address as its endpoint"
        yield _problem(node, place, Mistake(f"must be a remote of type s3, and {remote} is of type b2", hint=hint))


def _problem(node: Node, path: tuple[str, ...], mistake: Mistake) -> Problem:
    return Problem(node.mark, dotted(path), str(mistake), mistake.hint)
