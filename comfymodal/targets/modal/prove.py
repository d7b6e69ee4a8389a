"""What `doctor --live` runs in a container: is all that the project names there, as the project wants it?

Imported in a bare container: the standard library and `modal` are all there is. Returns names and yes or no, never
the value of a secret.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import modal

from comfymodal.targets.modal.names import ENV_OF_ROLE

LINGER_S = 60.0
"""Of the call that is only there to be cancelled; it must end by itself if cancelling does not work."""


def prove(question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question: `{do: look | linger, token, board, volumes: {role: name}, keys: [...]}`.

    `look` gives `{mounts: {role: bool}, is_models_read_only, commit_error, keys: {key: bool}}` and leaves a file with
    the token on the outputs volume and an entry in the Dict; `linger` says that it began and waits to be cancelled.
    """
    board = modal.Dict.from_name(question["board"], create_if_missing=True)
    if question["do"] == "linger":
        board.put(entry_name(question["token"]), "lingering")
        time.sleep(LINGER_S)
        return {}
    mounts = {role: Path(os.environ[variable]) for role, variable in ENV_OF_ROLE.items()}
    name = file_name(question["token"])
    commit_error = _commit(mounts["outputs"] / name, question["token"], question["volumes"]["outputs"])
    board.put(entry_name(question["token"]), question["token"])
    return {
        "mounts": {role: path.is_dir() for role, path in mounts.items()},
        "is_models_read_only": is_read_only(mounts["models"], name),
        "commit_error": commit_error,
        "keys": {key: bool(os.environ.get(key)) for key in question["keys"]},
    }


def file_name(token: str) -> str:
    """At the top of the outputs volume, where no run looks."""
    return f".comfymodal-doctor-{token}"


def entry_name(token: str) -> str:
    return f"doctor:{token}"


def is_read_only(folder: Path, name: str) -> bool:
    """Whether a file of that name is refused by a folder that is there; leaves nothing behind."""
    try:
        (folder / name).write_bytes(b"")
    except OSError:
        # A folder that is not there cannot be written to either, and proves nothing.
        return folder.is_dir()
    (folder / name).unlink()
    return False


def _commit(path: Path, text: str, volume: str) -> str | None:
    # An error is an answer here, not an end.
    try:
        path.write_text(text, encoding="utf-8")
        modal.Volume.from_name(volume).commit()
    except (OSError, modal.Error) as exc:
        return f"{type(exc).__name__}: {exc}"
    return None
