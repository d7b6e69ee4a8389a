"""Where a remote's keys are looked for: in the environment, under its own names, its vendor's, then the guide's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from comfymodal.errors import NotReadyError
from comfymodal.storage.values import Keys, Remote


def key_names(remote: Remote) -> tuple[tuple[str, str], ...]:
    """Pairs of env vars (key id, key) in the order they are looked for."""
    own = re.sub(r"[^A-Z0-9]", "_", remote.name.upper())
    vendor = (("B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY"),) if remote.kind == "b2" else ()
    return ((f"{own}_KEY_ID", f"{own}_KEY"), *vendor, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def find_keys(remote: Remote, environ: Mapping[str, str]) -> Keys:
    """The first pair of which anything is set. Raises `NotReadyError` when there is none, or only half of one."""
    for id_name, key_name in key_names(remote):
        key_id, key = environ.get(id_name, "").strip(), environ.get(key_name, "").strip()
        if key_id and key:
            return Keys(key_id, key)
        if key_id or key:
            raise NotReadyError(
                f"the remote {remote.name} has only half a key: {key_name if key_id else id_name} is not set",
                hint=f"export {id_name} and {key_name}, or write them into .env here",
                remote=remote.name,
            )
    first, last = key_names(remote)[0], key_names(remote)[-1]
    raise NotReadyError(
        f"there are no keys for the remote {remote.name}",
        hint=f"export {last[0]} and {last[1]} (or {first[0]} and {first[1]}), or write them into .env here",
        remote=remote.name,
    )
