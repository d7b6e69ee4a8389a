"""One POST with little patience. No word that comes out of here holds an address or a token: both are secrets."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from comfymodal import __version__

PATIENCE_S = 5.0
"""For all requests of one notification."""

LONGEST_RETRY_AFTER_S = 2.0
_PAUSE_S = 0.5
_MOST_BYTES = 1 << 16


class NotSentError(Exception):
    """Why a notification did not arrive, in words free of secrets."""

    def __init__(self, why: str, *, hint: str | None = None) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    retry_after_s: float | None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300


def require_address(url: str, variable: str) -> str:
    """The address in an env var, when it is one. Raises `NotSentError`, which does not show it."""
    text = url.strip()
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[\x21-\x7e]+", text) or "@" in parts.netloc:
        raise NotSentError(f"{variable} holds no address", hint=f"set {variable} to https://...")
    return text


def post(url: str, body: bytes, headers: Mapping[str, str], *, until: float) -> Answer:
    """POST, once more when the server asks for patience or stumbles (429, 5xx) and time is left.

    `until` is a moment of `time.monotonic`. A redirect is not followed: it would take a secret elsewhere. Raises
    `NotSentError` for a server that does not answer.
    """
    answer = _post(url, body, headers, until)
    if answer.status != 429 and answer.status < 500:
        return answer
    pause_s = _PAUSE_S if answer.retry_after_s is None else answer.retry_after_s
    if pause_s > LONGEST_RETRY_AFTER_S or time.monotonic() + pause_s >= until:
        return answer
    time.sleep(pause_s)
    return _post(url, body, headers, until)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """An answer like any other."""


def _post(url: str, body: bytes, headers: Mapping[str, str], until: float) -> Answer:
    host = urlsplit(url).hostname or "?"
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise NotSentError(f"no answer from {host} in time")
    agent = {"User-Agent": f"comfymodal/{__version__}"}
    try:
        request = urllib.request.Request(url, body, {**agent, **headers}, method="POST")
        with _open(request, left_s) as response:
            text = response.read(_MOST_BYTES).decode("utf-8", "replace")
            return Answer(int(response.status), text, _seconds(response.headers.get("retry-after")))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        # UnicodeError is a ValueError: a host name that no name server can be asked for.
        raise NotSentError(f"no answer from {host}: {_words(exc)}") from None


def _open(request: urllib.request.Request, timeout_s: float) -> Any:
    try:
        return urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as response:
        return response


def _seconds(text: str | None) -> float | None:
    """Slack says whole seconds (docs.slack.dev/apis/web-api/rate-limits); a date is none to wait for."""
    text = (text or "").strip()
    if not text:
        return None
    return float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) else float("inf")


def _words(exc: Exception) -> str:
    """Never the whole text: of a malformed request it quotes the address."""
    reason = getattr(exc, "reason", exc)
    if isinstance(reason, TimeoutError):
        return "it takes too long"
    return (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__
