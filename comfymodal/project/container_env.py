"""Env vars of the render containers: which names and values are taken. Standard library only."""

from __future__ import annotations

import re

from comfymodal.project.problems import Mistake

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"

_OURS = re.compile(r"(?:COMFYMODAL|MODAL)_.*|COMFYUI_(?:PATH|PYTHON)")
# Whole words: TOKENIZERS_PARALLELISM and MAX_TOKENS are no secrets.
_SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY)(?:_|$)", re.IGNORECASE)


def check_env_name(name: str) -> str:
    """Return the name when a container may have it. Raises `Mistake`."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise Mistake("must be a name of letters, digits and underscores, no digit first")
    if _OURS.fullmatch(name.upper()):
        raise Mistake("is set by comfymodal or Modal in every container", hint="remove it, or choose another name")
    if _SECRET_NAME.search(name):
        hint = "put it in a Modal secret and name that under comfyui.secrets"
        raise Mistake("looks like a secret; secrets are names, never values", hint=hint)
    return name


def check_env_value(value: object) -> str:
    """Return the text when it fits an env var; numbers and booleans come as they were written. Raises `Mistake`."""
    if not isinstance(value, str):
        raise Mistake("must be text, a number, true or false", hint='write "" for an empty value')
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise Mistake("must be one line without control characters")
    return value
