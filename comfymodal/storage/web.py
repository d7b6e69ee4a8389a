"""HTTP for downloads: redirects are followed by hand, so that a token goes to the host it is for and to no other.

What a server says becomes one of our errors here. Addresses in messages have no query: it may be a signature.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from comfymodal import __version__
from comfymodal.errors import ComfymodalError, NotFoundError, NotReadyError, ServiceError, UsageError

TIMEOUT_S = 60.0
MAX_REDIRECTS = 10

# Civitai's front door refuses the name that Python gives itself.
USER_AGENT = f"comfymodal/{__version__}"

_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (408, 425, 429, 500, 502, 503, 504)
_KEPT_OF_REDIRECTS = ("x-linked-etag", "x-linked-size")
_SAFE = "%/:=&?~#+!$,;'@()*[]"


class TryAgainError(Exception):
    """The same request may work later: after `after_s` seconds if the server said so."""

    def __init__(self, error: ComfymodalError, after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error, self.after_s = error, after_s


@dataclass(frozen=True, slots=True)
class Access:
    """The one host a token is for, and what an operator does to get in there."""

    origin: str
    """`https://huggingface.co`: scheme, host and port."""
    variable: str
    """The env var with the token."""
    secret: str
    """The Modal secret with that variable."""
    token_page: str
    licence_page: str
    token: str | None = field(default=None, repr=False)

    @property
    def hint(self) -> str:
        return (
            f"accept the licence at {self.licence_page}, make a token at {self.token_page}, and set {self.variable} "
            f"(export it or write it into .env; on Modal it is in the secret {self.secret}: comfymodal setup)"
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer says of the whole file."""

    size_bytes: int | None
    sha256: str | None
    identity: str | None
    """The same as long as the content is."""
    validator: str | None
    """For `If-Range`; None where the server gives nothing strong enough."""
    filename: str | None


class Answer:
    """An open response: 200, 206 or 416. A context manager."""

    def __init__(self, response: Any, url: str, kept: Mapping[str, str]) -> None:
        self._response, self.url, self._kept = response, url, kept
        self.status = int(response.status)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def header(self, name: str) -> str | None:
        value = self._kept.get(name) or self._response.headers.get(name)
        return str(value).strip() if value else None

    def read(self, count: int) -> bytes:
        """Raises `TryAgainError` when the line is cut."""
        try:
            return bytes(self._response.read(count))
        except (OSError, http.client.HTTPException) as exc:
            raise TryAgainError(ServiceError(f"the line to {host_of(self.url)} was cut: {_words(exc)}")) from exc

    @property
    def range_start(self) -> int:
        """Where the bytes of this answer begin in the file."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", self.header("content-range") or "")
        return int(found[1]) if self.status == 206 and found else 0

    @property
    def expected_bytes(self) -> int | None:
        """How many bytes this answer has."""
        return _whole(self.header("content-length"))

    @property
    def is_page(self) -> bool:
        return (self.header("content-type") or "").lower().startswith("text/html")

    def facts(self) -> Facts:
        linked = _plain_tag(self.header("x-linked-etag"))
        tag = self.header("etag")
        total = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", self.header("content-range") or "")
        whole = self.expected_bytes if self.status == 200 else None
        strong = tag if tag and not tag.startswith("W/") else None
        return Facts(
            size_bytes=_whole(self.header("x-linked-size")) or (int(total[1]) if total else whole),
            sha256=linked if linked and re.fullmatch(r"[0-9a-f]{64}", linked) else None,
            identity=linked or _plain_tag(tag) or self.header("last-modified"),
            validator=strong or (None if tag else self.header("last-modified")),
            filename=_filename(self.header("content-disposition")),
        )


def open_url(
    url: str, *, access: Access | None = None, headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> Answer:
    """GET, through redirects. Raises `TryAgainError` and, for what will not change by itself, `ComfymodalError`."""
    kept: dict[str, str] = {}
    for _ in range(MAX_REDIRECTS):
        response = _ask(url, access, headers or {}, timeout_s)
        if response.status in _REDIRECTS and response.headers.get("location"):
            with response:
                kept |= {name: value for name in _KEPT_OF_REDIRECTS if (value := response.headers.get(name))}
                url = _next_address(url, str(response.headers["location"]), access)
            continue
        if response.status in (200, 206, 416):
            return Answer(response, url, kept)
        with response:
            raise _refusal(response, url, access)
    raise ServiceError(f"{shown_url(url)} is redirected in a circle")


def get_json(url: str, *, access: Access | None = None) -> Any:
    """A small JSON answer. Raises as `open_url`."""
    with open_url(url, access=access, headers={"Accept": "application/json"}) as answer:
        text = b""
        while block := answer.read(1 << 20):
            text += block
            if len(text) > 64 << 20:
                break
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise TryAgainError(ServiceError(f"{shown_url(url)} answers with something else than JSON")) from None


def require_web_address(url: str) -> str:
    """The address as it can be sent. Raises `UsageError` for one that is none, or that holds a password."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address, parts = False, urlsplit("")
    if not is_address or re.search(r"[\x00-\x20\x7f]", url):
        raise UsageError(f"{url!r} is no address of a file", hint="https://..., hf:owner/repo/file or civitai:VERSION")
    if parts.username is not None or re.search(r"(^|&)(token|api_?key)=", parts.query, re.IGNORECASE):
        raise UsageError(
            f"the address of {parts.hostname} holds a password or a token, which would be kept with the run",
            hint="leave it out; tokens are taken from HF_TOKEN and CIVITAI_TOKEN",
        )
    return quote(url.partition("#")[0], safe=_SAFE)


def origin_of(url: str) -> str:
    """Scheme, host and port, the default port left out."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    is_default = parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme))
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{parts.port}")


def host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def shown_url(url: str) -> str:
    return url.partition("?")[0].partition("#")[0]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Ours to follow: Python's own would send the token along."""


def _ask(url: str, access: Access | None, headers: Mapping[str, str], timeout_s: float) -> Any:
    request = urllib.request.Request(url)
    for name, value in {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}.items():
        request.add_header(name, value)
    if access is not None and access.token and origin_of(url) == access.origin:
        request.add_unredirected_header("Authorization", f"Bearer {_sound(access)}")
    try:
        return urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as response:
        return response
    except (OSError, http.client.HTTPException) as exc:
        error = ServiceError(f"cannot reach {host_of(url)}: {_words(exc)}", hint="is the network up?")
        if isinstance(getattr(exc, "reason", exc), ssl.SSLCertVerificationError):
            raise error from exc
        raise TryAgainError(error) from exc


def _sound(access: Access) -> str:
    token = (access.token or "").strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise NotReadyError(f"{access.variable} holds more than a token", hint="set it to the token alone")
    return token


def _next_address(url: str, location: str, access: Access | None) -> str:
    target = quote(urljoin(url, location), safe=_SAFE)
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and parts.scheme == "http"):
        raise ServiceError(f"{host_of(url)} redirects to {parts.scheme}://, which is not followed")
    # Civitai sends those who are not logged in to a page for people.
    if access is not None and "reason=download-auth" in parts.query:
        raise _locked(url, access, "it gives this file only to those who are logged in")
    return target


def _refusal(response: Any, url: str, access: Access | None) -> Exception:
    status, said = int(response.status), _said(response, access)
    told = f"{shown_url(url)}: {said}"
    is_own = access is not None and origin_of(url) == access.origin
    if status in (401, 403) and access is not None and is_own:
        return _locked(url, access, said, status=status)
    if status in (401, 403):
        if access is not None:
            # A signed address of the file's store: it may be too old, and the next one is fresh.
            return TryAgainError(ServiceError(told))
        return NotReadyError(f"{told} (it wants a login)", hint="only Hugging Face and Civitai are known with tokens")
    if status in (404, 410):
        return NotFoundError(told, hint="is the name right? upper and lower case count")
    if status in _LATER or status >= 500:
        return TryAgainError(ServiceError(told, hint="try again later"), _retry_after(response.headers))
    return ServiceError(told)


def _locked(url: str, access: Access, said: str, *, status: int = 401) -> NotReadyError:
    having = "the token in" if access.token else "there is no"
    wanting = "does not open it" if access.token else "here"
    return NotReadyError(
        f"{host_of(url)} does not give the file: {said} ({having} {access.variable} {wanting})",
        hint=access.hint,
        status=status,
    )


def _said(response: Any, access: Access | None) -> str:
    text = str(response.headers.get("x-error-message") or "")
    if not text:
        try:
            found = json.loads(response.read(65536))
            told = found.get("message") or found.get("error")
            text = told if isinstance(told, str) else ""
        except (ValueError, AttributeError, OSError, http.client.HTTPException, RecursionError):
            text = ""
    if access is not None and access.token:
        text = text.replace(access.token.strip(), "***")
    return " ".join(text.split())[:300] or f"HTTP {response.status} {response.reason or ''}".strip()


def _retry_after(headers: Any) -> float | None:
    text = str(headers.get("retry-after") or "").strip()
    if text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    from datetime import UTC, datetime

    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None


def _filename(disposition: str | None) -> str | None:
    """The name a server gives a file; without folders, whatever it says."""
    text = disposition or ""
    if found := re.search(r"filename\*\s*=\s*UTF-8''([^;\s]+)", text, re.IGNORECASE):
        name = unquote(found[1])
    elif found := re.search(r'filename\s*=\s*(?:"([^"]*)"|([^;\s]+))', text, re.IGNORECASE):
        name = found[1] or found[2] or ""
    else:
        return None
    return re.split(r"[/\\]", name)[-1] or None


def _plain_tag(tag: str | None) -> str | None:
    return tag.removeprefix("W/").strip('"') or None if tag else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _words(exc: BaseException) -> str:
    reason = getattr(exc, "reason", None) or exc
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
