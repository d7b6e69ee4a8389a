"""What goes into the image from elsewhere: custom nodes and Python packages, each pinned. Standard library only.

Two builds from one project file must give the same image, so nothing that moves (a branch, `latest`, no version at
all) is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from comfymodal.project.problems import Mistake

COMMIT = "[0-9a-f]{40}"
NODE_PATTERN = rf"(?:[a-z0-9][a-z0-9._-]*@[0-9][0-9A-Za-z.+-]*|https://[^@?#\s]+@{COMMIT})"
PACKAGE_PATTERN = (
    r"(?:[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]+\])?(?: *== *[0-9][0-9A-Za-z.!+_-]*| *@ *(?:git\+)?https://\S+)"
    r"|https://\S+\.whl(?:#\S+)?)"
)

_MOVES = frozenset({"latest", "nightly", "unknown", "main", "master", "head"})


def check_custom_node(text: str) -> str:
    """Return `id@version` of the Comfy registry or `https://host/path@<commit>` as it is. Raises `Mistake`."""
    is_address = "://" in text or text.startswith("git@") or text.endswith(".git")
    return _check_repository(text) if is_address else _check_registry(text)


def check_no_node_twice(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Raise `Mistake` for a node that is listed twice: the second would replace the first without a word."""
    names = [node.rpartition("@")[0].removesuffix(".git").rstrip("/").lower() for node in nodes]
    _refuse_twice(names)
    return nodes


def check_package(text: str) -> str:
    """Return `name==version`, `name @ https://...` or the address of a wheel as it is. Raises `Mistake`."""
    if re.fullmatch(PACKAGE_PATTERN, text):
        _check_addresses(text)
        return text
    if text.startswith("-"):
        raise Mistake("must be a package; pip's own options are not taken", hint=_PACKAGE_FORMS)
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]+\])?", text)
    rest = text[name.end() :].strip() if name else ""
    if name and "://" not in text and re.fullmatch(r"(?:[=<>~!]=?=?[^;]*)?", rest):
        bare = name.group().partition("[")[0]
        hint = f"`pip index versions {bare}` lists them"
        raise Mistake(f"must be pinned: write {name.group()}==VERSION", hint=hint)
    raise Mistake("must be a pinned package", hint=_PACKAGE_FORMS)


_PACKAGE_FORMS = "write name==version, name @ https://..., name @ git+https://...@COMMIT or the address of a .whl file"


def check_no_package_twice(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Raise `Mistake` for a package that is listed twice."""
    named = [re.match(r"[A-Za-z0-9._-]+(?= *(?:\[|==|@))", package) for package in packages]
    _refuse_twice(re.sub(r"[-_.]+", "-", name.group()).lower() for name in named if name)
    return packages


def _refuse_twice(names: Iterable[str]) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise Mistake(f"has {name} twice", hint="keep one of the two")
        seen.add(name)


def _check_registry(text: str) -> str:
    name, _, version = text.partition("@")
    if re.fullmatch("[a-z0-9][a-z0-9._-]*", name) is None:
        if re.fullmatch("[a-z0-9][a-z0-9._-]*", name.lower()):
            raise Mistake(
                f"has an upper-case letter in {name}", hint=f"ids of the Comfy registry are lower-case: {name.lower()}"
            )
        raise Mistake("must be id@version of the Comfy registry, or https://host/path@COMMIT")
    if not version:
        raise Mistake(
            f"must be pinned: write {name}@VERSION", hint=f"its versions are at https://registry.comfy.org/nodes/{name}"
        )
    if version.lower() in _MOVES or re.fullmatch("[0-9][0-9A-Za-z.+-]*", version) is None:
        raise Mistake(
            f"must be pinned to a version such as {name}@1.0.2, not to {version}",
            hint=f"its versions are at https://registry.comfy.org/nodes/{name}",
        )
    return text


def _check_repository(text: str) -> str:
    address, commit = text, ""
    # An `@` before the path is a user's name, not a commit.
    if "@" in text.partition("://")[2].partition("/")[2]:
        address, _, commit = text.rpartition("@")
    _check_https(address)
    hint = f"`git ls-remote {address} HEAD` prints the newest commit"
    if not commit:
        raise Mistake(f"must be pinned: write {address}@COMMIT, the commit's 40 hex digits", hint=hint)
    if re.fullmatch(COMMIT, commit) is None:
        raise Mistake(f"must end in the whole commit (40 hex digits), not @{commit}: branches and tags move", hint=hint)
    return text


def _check_addresses(text: str) -> None:
    found = re.search(r"(git\+)?(https://\S+)", text)
    if found is None:
        return
    address, _, commit = found[2].partition("#")[0].rpartition("@") if found[1] else (found[2], "", "")
    _check_https((address or found[2]).partition("#")[0])
    if found[1] and re.fullmatch(COMMIT, commit) is None:
        raise Mistake("must be pinned: end the git address in @ and the whole commit (40 hex digits)")


def _check_https(address: str) -> None:
    try:
        parts = urlsplit(address)
        well_formed = parts.scheme == "https" and bool(parts.hostname) and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        raise Mistake("must be an https:// address with a host and a path") from None
    # Said first: whoever writes `http://me:token@host` has a larger problem than the missing s.
    if "@" in parts.netloc and parts.scheme in ("http", "https"):
        raise Mistake("must not contain a user name or password: secrets are names, never values")
    if not well_formed or re.search(r"[\s?#\x00-\x1f\x7f]", address):
        raise Mistake("must be an https:// address with a host and a path, without spaces, ? and #")
