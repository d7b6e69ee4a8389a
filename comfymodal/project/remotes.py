"""Buckets and their addresses: which names are taken, and which settings contradict each other. Reads no files."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from comfymodal.project.ends import ROLES
from comfymodal.project.problems import Mistake

NAME_PATTERN = "[a-z0-9][a-z0-9_-]{0,39}"
"""Of remotes, pairs and mounts."""

BUCKET_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]"

_BACKBLAZE = "https://s3.us-west-004.backblazeb2.com"


def check_entry_name(name: str) -> str:
    """Return the name of a remote, a pair or a mount when it is one. Raises `Mistake`."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise Mistake("must be a name of 1 to 40 lower-case letters, digits, dashes and underscores, no dash first")
    return name


def check_remote_name(name: str) -> str:
    """Return the name of a remote: one that no volume and no drive of Windows has. Raises `Mistake`."""
    check_entry_name(name)
    if name in ROLES:
        raise Mistake("is what a volume is called; choose another name for the remote")
    if len(name) == 1:
        raise Mistake("must have more than one letter: a single one is a drive of Windows")
    return name


def check_bucket(name: str) -> str:
    """Return the name of a bucket when a vendor could have given it. Raises `Mistake`."""
    if re.fullmatch(BUCKET_PATTERN, name) is None:
        is_path = "/" in name or "\\" in name
        hint = "write the bucket alone; a folder in it goes under prefix" if is_path else None
        raise Mistake("must be the name of a bucket: 3 to 63 letters, digits, dots, dashes and underscores", hint=hint)
    return name


def check_addresses(kind: str, endpoint: str | None, region: str | None) -> None:
    """Raise `Mistake` when type, endpoint and region of a remote do not go together."""
    host = (urlsplit(endpoint).hostname or "") if endpoint else ""
    if kind == "b2":
        _check_b2(host, region)
        return
    if host != "backblazeb2.com" and not host.endswith(".backblazeb2.com"):
        return
    # Nobody pays for importing rclone's side who names no Backblaze address.
    from comfymodal.storage.rclone.session import region_of

    said = region_of(endpoint)
    if said is None:
        raise Mistake(
            "is not the S3 address of a region of Backblaze",
            hint=f"it looks like {_BACKBLAZE}; the bucket's page shows it, and the bucket itself goes under bucket",
            at=("endpoint",),
        )
    if region is not None and region != said:
        raise Mistake(
            f"is {region}, and the endpoint is in {said}", hint="remove region here", at=("region", "endpoint")
        )


def _check_b2(host: str, region: str | None) -> None:
    if region is not None:
        raise Mistake("counts only for type s3", hint="remove it: Backblaze knows its own", at=("region",))
    if re.match(r"(?:.*\.)?s3\.", host) and host.endswith(".backblazeb2.com"):
        hint = "remove it, or write type: s3 to use the S3 address"
        raise Mistake("is Backblaze's S3 address, and type b2 does not speak S3", hint=hint, at=("endpoint",))
