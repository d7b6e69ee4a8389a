"""The kinds of values of receivers of notifications, and which of them go together. Reads no files."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from comfymodal.project.container_env import NAME_PATTERN
from comfymodal.project.problems import Mistake
from comfymodal.project.values import matching

IN_ENVIRONMENT = "export it, or write it into .env beside this file, and put the NAME of that env var here"


def _check_variable(name: str) -> str:
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise Mistake("must be the name of an env var: what is in it is a secret", hint=IN_ENVIRONMENT)
    return name


def check_receiver(kind: str, url_env: str | None, token_env: str | None, channel: str | None) -> None:
    """Raise `Mistake` when type, address, token and channel of an entry do not go together."""
    if kind == "webhook" and (token_env is not None or channel is not None):
        hint = "a webhook has all it needs in the address that url_env names"
        raise Mistake("counts only for a bot of type slack", hint=hint, at=("token_env", "channel"))
    if kind == "webhook" and url_env is None:
        raise Mistake("needs url_env: the name of the env var that holds the address", hint=IN_ENVIRONMENT)
    if (url_env is None) == (token_env is None):
        raise Mistake(
            "needs one of url_env (an incoming webhook) and token_env (a bot)",
            hint="url_env: SLACK_WEBHOOK_URL, or token_env: SLACK_BOT_TOKEN and channel: C0123456789",
            at=("token_env",),
        )
    if token_env is not None and channel is None:
        raise Mistake(
            "needs channel: where the bot is to write",
            hint="channel: C0123456789 (its id), or its name",
            at=("token_env",),
        )
    if url_env is not None and channel is not None:
        raise Mistake("counts only for a bot (token_env)", hint="a webhook knows its channel", at=("channel",))


EnvName = Annotated[
    str, AfterValidator(_check_variable), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})
]
Channel = Annotated[str, *matching(r"#?[^\s#@<>/:]{1,80}", "the id of a channel (C0123456789), or its name")]
