"""rclone with the remotes it may reach. Settings and keys travel in its environment and nowhere else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from comfymodal.errors import NotReadyError, ProjectError
from comfymodal.storage.rclone.find import Rclone
from comfymodal.storage.values import Folder, Keys, Place, Remote

HIDDEN = "<hidden>"

_BACKBLAZE_ENDPOINT = re.compile(r"https?://s3\.([a-z]{2}-[a-z]+-\d{3})\.backblazeb2\.com/?")

# What would change what rclone does, and keys that are not this session's.
_FOREIGN = ("RCLONE_", "AWS_", "B2_")


@dataclass(frozen=True, slots=True)
class Session:
    """What every command of rclone needs. Make it with `open_session`."""

    rclone: Rclone
    environ: Mapping[str, str] = field(repr=False)
    aliases: Mapping[str, str]
    """rclone's name of each remote; ours may hold what it does not allow."""
    secrets: tuple[str, ...] = field(repr=False)
    """What must never be shown, in every spelling that could be."""

    def address(self, place: Place) -> str:
        """The place as an argument. Raises `NotReadyError` for a remote that is not of this session."""
        if isinstance(place, Folder):
            return str(place.path.absolute())
        if place.name not in self.aliases:
            raise NotReadyError(f"there are no keys for the remote {place.name}")
        _refuse_climbing(place)
        # The slash at the end says "a folder", and so keeps rclone from asking whether it is a file: with wrong
        # keys the answer to that question is a 403, which rclone tells as "is a file not a directory".
        folders = "/".join(part for part in (place.bucket, place.prefix.strip("/")) if part)
        return f"{self.aliases[place.name]}:{folders}/"

    def hide(self, text: str) -> str:
        """`text` without any key."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def open_session(rclone: Rclone, remotes: Mapping[str, tuple[Remote, Keys]], base: Mapping[str, str]) -> Session:
    """A session with these remotes, by name. `base` is the environment to start from.

    Raises `NotReadyError` when a key is missing.
    """
    aliases = _aliases(remotes)
    return Session(rclone, environment(remotes, base), aliases, _spellings(remotes))


def environment(remotes: Mapping[str, tuple[Remote, Keys]], base: Mapping[str, str]) -> dict[str, str]:
    """`base` without anything that would lead rclone astray, and with all that it must know of `remotes`.

    Raises `NotReadyError` when a key is missing.
    """
    environ = {name: value for name, value in base.items() if not name.upper().startswith(_FOREIGN)}
    environ["RCLONE_CONFIG"] = os.devnull
    environ["RCLONE_ASK_PASSWORD"] = "false"
    aliases = _aliases(remotes)
    for name, (remote, keys) in remotes.items():
        if not keys.key_id.strip() or not keys.key.strip():
            raise NotReadyError(f"the key id or the key of the remote {name} is empty")
        for option, value in _options(remote, keys).items():
            environ[f"RCLONE_CONFIG_{aliases[name].upper()}_{option}"] = value
    return environ


def _aliases(remotes: Mapping[str, tuple[Remote, Keys]]) -> dict[str, str]:
    return {name: f"r{number}" for number, name in enumerate(sorted(remotes))}


def _options(remote: Remote, keys: Keys) -> dict[str, str]:
    # A key pasted with its line break is still that key.
    key_id, key = keys.key_id.strip(), keys.key.strip()
    if remote.kind == "b2":
        options = {"TYPE": "b2", "ACCOUNT": key_id, "KEY": key}
        if remote.endpoint:
            options["ENDPOINT"] = remote.endpoint
        return options
    options = {
        "TYPE": "s3",
        "PROVIDER": "Other" if remote.endpoint else "AWS",
        "ACCESS_KEY_ID": key_id,
        "SECRET_ACCESS_KEY": key,
        # A key that may only use its bucket must not be asked to make one.
        "NO_CHECK_BUCKET": "true",
    }
    if remote.endpoint:
        options["ENDPOINT"] = remote.endpoint
    if region := remote.region or region_of(remote.endpoint):
        options["REGION"] = region
    return options


def region_of(endpoint: str | None) -> str | None:
    """The region in a Backblaze endpoint, e.g. `us-west-004`; None for any other endpoint."""
    found = _BACKBLAZE_ENDPOINT.fullmatch(endpoint or "")
    return found[1] if found else None


def _refuse_climbing(remote: Remote) -> None:
    parts = [remote.bucket, *remote.prefix.strip("/").split("/")]
    if not remote.bucket or "/" in remote.bucket or any(part in (".", "..") for part in parts):
        raise ProjectError(f"{remote.bucket}/{remote.prefix} is no folder in a bucket", remote=remote.name)


def _spellings(remotes: Mapping[str, tuple[Remote, Keys]]) -> tuple[str, ...]:
    plain = {text.strip() for _, keys in remotes.values() for text in (keys.key_id, keys.key)} - {""}
    found = {
        each
        for text in plain
        for each in (text, quote(text, safe=""), json.dumps(text)[1:-1], text.replace("/", "\\/"))
    }
    # The longest first: one spelling may be part of another.
    return tuple(sorted(found, key=lambda text: (-len(text), text)))
