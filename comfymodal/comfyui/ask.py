"""Blocking questions to a ComfyUI server, by the standard library: importing aiohttp costs more than a render."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from comfymodal.errors import ServiceError

ANSWER_TIMEOUT_S = 60.0
"""ComfyUI answers in milliseconds, but Python may hold its lock for many seconds while a model loads."""


class UnreachableError(ServiceError):
    """The server did not answer at all: refused, reset, or timed out."""

    code = "unreachable"


def get_json(url: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Mapping[str, Any]:
    """One GET. Raises `UnreachableError`, and `ServiceError` for anything but a JSON object."""
    with _connection(url, timeout_s) as connection:
        return _get_json(connection, url, path)


def post_json(url: str, path: str, body: Any, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """One POST whose answer does not matter. Raises `UnreachableError`, and `ServiceError` for a refusal."""
    with _connection(url, timeout_s) as connection:
        try:
            connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as exc:
            raise UnreachableError(f"no answer from {url}{path}: {exc}") from exc
        if answer.status >= 400:
            raise unexpected(f"{url}{path}", answer.status, text)


def get_object_info(url: str, class_types: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """`/object_info` entries of these classes over one connection; classes the server does not know are absent.

    The whole of it is 350 kB and takes the server 0.16 s; a class takes 1 ms.
    """
    found: dict[str, Mapping[str, Any]] = {}
    with _connection(url, ANSWER_TIMEOUT_S) as connection:
        for class_type in class_types:
            entry = _get_json(connection, url, f"/object_info/{_quoted(class_type)}").get(class_type)
            if isinstance(entry, dict):
                found[class_type] = entry
    return found


def get_lists(url: str, paths: Sequence[str]) -> list[list[Any] | None]:
    """JSON lists over one connection; None for what the server does not have, or has no list for.

    Raises `UnreachableError`.
    """
    found: list[list[Any] | None] = []
    with _connection(url, ANSWER_TIMEOUT_S) as connection:
        for path in paths:
            status, text = _get_text(connection, url, path)
            try:
                value = json.loads(text) if status == 200 else None
            except (ValueError, RecursionError):
                value = None
            found.append(value if isinstance(value, list) else None)
    return found


@contextlib.contextmanager
def _connection(url: str, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    except (ValueError, http.client.HTTPException) as exc:
        raise UnreachableError(f"{url} is no address: {exc}") from exc
    try:
        yield connection
    finally:
        connection.close()


def _get_json(connection: http.client.HTTPConnection, url: str, path: str) -> Mapping[str, Any]:
    status, text = _get_text(connection, url, path)
    if status != 200:
        raise unexpected(f"GET {path}", status, text)
    return parse_object(text, f"GET {path}")


def _get_text(connection: http.client.HTTPConnection, url: str, path: str) -> tuple[int, str]:
    try:
        connection.request("GET", urlsplit(url).path + path)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, UnicodeError) as exc:
        # UnicodeError: a host name that no name server can be asked for.
        raise UnreachableError(f"GET {url}{path}: {exc or type(exc).__name__}") from exc
    return response.status, text


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def parse_object(text: str, what: str) -> Mapping[str, Any]:
    """The JSON object in an answer. Raises `ServiceError`."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ServiceError(
            f"{what} was not answered with JSON: {text[:120]!r}", hint="is that address a ComfyUI server?"
        ) from exc
    if not isinstance(body, dict):
        raise ServiceError(f"{what} was not answered with a JSON object: {text[:120]!r}")
    return body


def unexpected(what: str, status: int, text: str) -> ServiceError:
    """The error for an HTTP status that the protocol does not know there."""
    return ServiceError(
        f"{what} was answered with HTTP {status}: {text.strip()[:200] or 'nothing'}", hint="see the server's log"
    )
