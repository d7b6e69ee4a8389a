"""Slack: an incoming webhook, or a bot that can also show a picture.

What is said here of Slack is from docs.slack.dev: `messaging/sending-messages-using-incoming-webhooks` (answers `ok`,
else a word such as `invalid_payload` with 400, 403, 404 or 410), `reference/methods/chat.postMessage`,
`files.getUploadURLExternal` and `files.completeUploadExternal` (status 200 with `ok: false` and `error` for what is
refused), `apis/web-api/rate-limits` (429 with `Retry-After`), `reference/block-kit/blocks` (a section holds 3000
characters, a field of it 2000), `messaging/formatting-message-text` (`&`, `<` and `>` are escaped, nothing else).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from comfymodal.notify.message import Notification, Picture
from comfymodal.notify.web import Answer, NotSentError, post

API_URL = "https://slack.com/api"

MOST_OF_SECTION = 2900
MOST_OF_FIELD = 400

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_ICONS = {"finished": ":white_check_mark:", "failed": ":x:", "budget": ":moneybag:", "test": ":wave:"}
_HINTS = {
    "channel_not_found": "is the channel right? its id (C...) is at the end of what Slack shows about it; "
    "a private one needs /invite",
    "not_in_channel": "invite the bot there: /invite @NAME",
    "is_archived": "choose another channel",
    "missing_scope": "give the bot the scopes chat:write and files:write, then install it anew",
    "no_service": "the webhook was removed: make another one",
    "channel_is_archived": "choose another channel for the webhook",
}
_TOKEN_ERRORS = ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired")


def send_by_webhook(told: Notification, url: str, *, until: float) -> None:
    """Text and blocks: a webhook takes no files. Raises `NotSentError`."""
    answer = post(url, _body(told), _JSON, until=until)
    if answer.is_ok and _is_thanks(answer.text):
        return
    raise _refused(_word(answer.text), answer, "is the address of the webhook right?")


def send_as_bot(told: Notification, token: str, channel: str, *, until: float, api: str = API_URL) -> str | None:
    """Post the message and, below it, its picture; return what became of a picture that did not arrive.

    The files method wants the id of the channel, which the answer to the message tells. Raises `NotSentError` when the
    message itself did not arrive.
    """
    ask = _Api(api.rstrip("/"), token, until)
    posted = ask("chat.postMessage", _JSON, _body(told, channel=channel, unfurl_links=False))
    if told.picture is None:
        return None
    try:
        _upload(told.picture, str(posted.get("channel") or channel), ask)
    except NotSentError as error:
        return f"{error.why}{f' ({error.hint})' if error.hint else ''}"
    return None


def blocks(told: Notification) -> list[dict[str, Any]]:
    """The message in Slack's Block Kit; every text is cut to what Slack takes."""
    title = told.run["title"] if told.run else told.headline.removeprefix("comfymodal: ")
    word = "" if told.run is None else f" {told.run['status']}"
    found = [_section(f"{_ICONS[told.event]} *{escaped(str(title), 300)}*{word}")]
    if fields := _fields(told):
        found[0]["fields"] = [_mrkdwn(f"*{name}*\n{escaped(text, MOST_OF_FIELD)}") for name, text in fields]
    if lines := [str(text) for key in ("message", "hint") if (text := (told.error or {}).get(key))]:
        found.append(_section(escaped("\n".join(lines), MOST_OF_SECTION)))
    if told.log_tail:
        # Three backquotes would end the block early.
        log = escaped(told.log_tail.replace("```", "'''"), MOST_OF_SECTION - 10, keeps_end=True)
        found.append(_section(f"```\n{log}\n```"))
    if told.next:
        project = escaped(told.project, 100)
        found.append({"type": "context", "elements": [_mrkdwn(f"{project} · `{escaped(told.next, MOST_OF_FIELD)}`")]})
    return found


def escaped(text: str, most: int, *, keeps_end: bool = False) -> str:
    """Text as Slack takes it, at most so long; what is cut is its end, or its beginning."""
    pieces = [{"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(char, char) for char in text]
    if sum(map(len, pieces)) <= most:
        return "".join(pieces)
    if keeps_end:
        pieces.reverse()
    kept, length = list[str](), len("...")
    for piece in pieces:
        if (length := length + len(piece)) > most:
            break
        kept.append(piece)
    return "..." + "".join(reversed(kept)) if keeps_end else "".join(kept) + "..."


def _fields(told: Notification) -> list[tuple[str, str]]:
    if told.budget is not None:
        return [(name, f"${told.budget[name]}") for name in ("spent", "limit")] + [("since", told.budget["since"])]
    if told.run is None:
        return []
    run, outputs = told.run, told.outputs
    seconds = run.get("seconds")
    found = [
        ("run", f"{run['id']} ({run['kind']})"),
        ("where", " ".join(str(part) for part in (run["target"], run.get("gpu")) if part)),
        ("took", "unknown" if seconds is None else _duration(float(seconds))),
        ("cost", told.cost_text or "unknown"),
    ]
    if told.summary:
        found.append(("did", told.summary))
    if outputs:
        found.append((f"{outputs['count']} files", ", ".join(outputs["names"])))
    return found


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _body(told: Notification, **more: Any) -> bytes:
    # The text is what a telephone shows, and a reader that knows no blocks.
    return json.dumps({**more, "text": escaped(told.headline, 500), "blocks": blocks(told)}).encode()


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


class _Api:
    """Asks a method of the Web API. Raises `NotSentError` unless it says `ok: true`."""

    def __init__(self, url: str, token: str, until: float) -> None:
        self._url, self._token, self.until = url, token, until

    def __call__(self, method: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, Any]:
        headers = {**headers, "Authorization": f"Bearer {self._token}"}
        answer = post(f"{self._url}/{method}", body, headers, until=self.until)
        said = _object(answer.text)
        if answer.is_ok and said.get("ok") is True:
            return said
        raise _refused(_word(said.get("error")), answer, "is the token right?")


def _upload(picture: Picture, channel: str, ask: _Api) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wish = {"filename": picture.name, "length": len(picture.data), "alt_txt": picture.title[:1000]}
    place = ask("files.getUploadURLExternal", form, urlencode(wish).encode())
    url, file = str(place.get("upload_url")), str(place.get("file_id"))
    if not url.startswith(("https://", "http://")):
        raise NotSentError("Slack names no place for the picture")
    # The address itself is the permission: no token goes there.
    answer = post(url, picture.data, {"Content-Type": "application/octet-stream"}, until=ask.until)
    if not answer.is_ok:
        raise NotSentError(f"Slack did not take the picture (HTTP {answer.status})")
    done = {"files": [{"id": file, "title": picture.title}], "channel_id": channel}
    ask("files.completeUploadExternal", _JSON, json.dumps(done).encode())


def _refused(word: str, answer: Answer, otherwise: str) -> NotSentError:
    if not word:
        return NotSentError(f"the answer is not Slack's (HTTP {answer.status})", hint=otherwise)
    if answer.status == 429 or word in ("ratelimited", "rate_limited"):
        return NotSentError("Slack wants fewer messages (429)")
    hint = otherwise if word in _TOKEN_ERRORS else _HINTS.get(word)
    return NotSentError(f"Slack refuses it: {word}", hint=hint)


def _word(text: Any) -> str:
    """An error of Slack's; empty for anything else, which may be anything, also what was sent."""
    return text.strip() if isinstance(text, str) and re.fullmatch(r"\s*[a-z][a-z_]{1,60}\s*", text) else ""


def _is_thanks(text: str) -> bool:
    said = _object(text)
    # Servers that speak like Slack's answer in JSON.
    return text.strip() == "ok" or said.get("ok") is True or said.get("success") is True


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
