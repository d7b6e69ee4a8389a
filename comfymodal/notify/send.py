"""Send a notification to one receiver, by its kind."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Literal

from comfymodal.notify.message import Notification
from comfymodal.notify.slack import API_URL, send_as_bot, send_by_webhook
from comfymodal.notify.web import NotSentError, post, require_address


@dataclass(frozen=True, slots=True)
class Receiver:
    """`secret` is the value of the env var `variable`: an address, or with a `channel` the token of a bot."""

    name: str
    kind: Literal["slack", "webhook"]
    variable: str
    secret: str = field(repr=False)
    channel: str | None = None
    api: str = API_URL
    """Base of Slack's Web API; GovSlack has another one."""


def send(told: Notification, receiver: Receiver, *, until: float) -> str | None:
    """Tell it; return what did not arrive with it, None for nothing. `until` is a moment of `time.monotonic`.

    Raises `NotSentError`.
    """
    if receiver.channel is not None:
        token = receiver.secret
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise NotSentError(f"{receiver.variable} holds no token", hint="set it to the token alone: xoxb-...")
        return send_as_bot(told, token, receiver.channel, until=until, api=receiver.api)
    url = require_address(receiver.secret, receiver.variable)
    if receiver.kind == "slack":
        send_by_webhook(told, url, until=until)
        return None
    body = json.dumps(told.document(), ensure_ascii=False).encode("utf-8", "backslashreplace")
    answer = post(url, body, {"Content-Type": "application/json; charset=utf-8"}, until=until)
    if not answer.is_ok:
        raise NotSentError(f"the server answers with HTTP {answer.status}")
    return None
