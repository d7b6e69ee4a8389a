"""B2's native API as far as checks need it: what a key may do, whether a bucket is there, what lies in a folder.

Reads only; rclone does all moving. Standard library only.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError

PUBLIC_URL = "https://api.backblazeb2.com"
PATIENCE_S = 20.0
SHOWN_CHARACTERS = 300

_VERSION = "v4"
_PAGE = 1000
_WRONG_KEY = "use an application key and its key id (not the account id); B2 also says so of expired and deleted keys"
_ENDPOINT_HINT = "look at the remote's endpoint"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What B2 says of a key. The token opens the bucket and is never shown."""

    account_id: str
    capabilities: frozenset[str]
    buckets: Mapping[str, str] | None
    """Ids by name of the buckets it is limited to; None when it is for all of them."""
    has_lost_bucket: bool
    """It is limited to a bucket that was deleted."""
    prefix: str
    """What the names it may use begin with; empty for all."""
    expires_at: float | None
    """Unix seconds; None when it does not expire."""
    api_url: str
    s3_url: str | None
    """The endpoint of the account's S3 API."""
    ahead_s: float | None
    """How far this machine's clock is ahead of B2's; None when the answer had no date."""
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FolderLook:
    """The first page of a folder: how many files lie right in it, and the names of its folders."""

    files: int
    folders: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.files and not self.folders


def authorize(key_id: str, key: str, url: str = PUBLIC_URL) -> Authorization:
    """Ask B2 what this key may do. One request of class C.

    Raises `NotReadyError` for a key that B2 does not take, `ServiceError` when B2 cannot be asked, or a cap is reached.
    """
    basic = base64.b64encode(f"{key_id.strip()}:{key.strip()}".encode()).decode()
    answer, ahead_s = _ask(f"{url.rstrip('/')}/b2api/{_VERSION}/b2_authorize_account", f"Basic {basic}")
    try:
        return _authorization(answer, ahead_s)
    except (KeyError, TypeError, ValueError) as exc:
        raise ServiceError(f"{url} does not answer as B2 does", hint=_ENDPOINT_HINT) from exc


def bucket_id(auth: Authorization, bucket: str) -> str | None:
    """The id of a bucket the key may use; None when there is none of that name.

    Raises `NotReadyError` when the key may use all buckets but not look for one, and as `authorize`.
    """
    if auth.buckets is not None:
        return auth.buckets.get(bucket)
    found = _call(auth, "b2_list_buckets", {"accountId": auth.account_id, "bucketName": bucket})
    return next((str(each["bucketId"]) for each in found.get("buckets") or [] if each["bucketName"] == bucket), None)


def look_into(auth: Authorization, bucket: str, folder: str) -> FolderLook:
    """What lies in a folder of a bucket, given by id; `folder` without slashes at its ends. Raises as `authorize`."""
    prefix = f"{folder}/" if folder else ""
    wanted = {"bucketId": bucket, "prefix": prefix, "delimiter": "/", "maxFileCount": _PAGE}
    entries = _call(auth, "b2_list_file_names", wanted).get("files") or []
    folders = [str(each["fileName"])[len(prefix) :].rstrip("/") for each in entries if each.get("action") == "folder"]
    return FolderLook(len(entries) - len(folders), tuple(folders))


def _authorization(answer: Mapping[str, Any], ahead_s: float | None) -> Authorization:
    storage = answer["apiInfo"]["storageApi"]
    allowed = dict(storage["allowed"])
    buckets = allowed.get("buckets")
    expires = answer.get("applicationKeyExpirationTimestamp")
    return Authorization(
        account_id=str(answer["accountId"]),
        capabilities=frozenset(map(str, allowed["capabilities"])),
        # One that was deleted has an id and no name.
        buckets=None if buckets is None else {str(each["name"]): str(each["id"]) for each in buckets if each["name"]},
        has_lost_bucket=any(each["name"] is None for each in buckets or ()),
        prefix=str(allowed.get("namePrefix") or ""),
        expires_at=None if expires is None else float(expires) / 1000,
        api_url=str(storage["apiUrl"]),
        s3_url=str(storage["s3ApiUrl"]) if storage.get("s3ApiUrl") else None,
        ahead_s=ahead_s,
        token=str(answer["authorizationToken"]),
    )


def _call(auth: Authorization, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    answer, _ = _ask(f"{auth.api_url}/b2api/{_VERSION}/{name}", auth.token, json.dumps(body).encode(), name=name)
    return answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """B2 never redirects; following one would hand the key to whoever says so."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _ask(
    url: str, authorization: str, body: bytes | None = None, *, name: str = "b2_authorize_account"
) -> tuple[Mapping[str, Any], float | None]:
    request = urllib.request.Request(url, data=body, headers={"Authorization": authorization})
    opener = urllib.request.build_opener(_NoRedirects)
    before = time.time()
    try:
        with opener.open(request, timeout=PATIENCE_S) as answer:
            found = json.loads(answer.read())
            date = answer.headers["Date"]
    except urllib.error.HTTPError as refusal:
        _raise(refusal, request, name)
    except ValueError as exc:
        raise ServiceError(f"{_host(url)} does not answer as B2 does", hint=_ENDPOINT_HINT) from exc
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise ServiceError(
            f"B2 cannot be reached at {_host(url)}: {reason}",
            hint="look at the remote's endpoint, and at this machine's network",
        ) from exc
    if not isinstance(found, dict):
        raise ServiceError(f"{_host(url)} does not answer as B2 does", hint=_ENDPOINT_HINT)
    return found, _ahead(date, (before + time.time()) / 2)


def _raise(refusal: urllib.error.HTTPError, request: urllib.request.Request, name: str) -> NoReturn:
    try:
        told = json.loads(refusal.read())
        code, message = str(told.get("code") or ""), str(told.get("message") or "")
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        code, message = "", ""
    said = " ".join(f"{refusal.code} {code} {message}".split())[:SHOWN_CHARACTERS]
    # Whoever answers may repeat what was sent.
    said = said.replace(str(request.get_header("Authorization")).removeprefix("Basic "), "<hidden>")
    raise _meaning(refusal.code, code, said, name=name, host=_host(request.full_url)) from refusal


def _meaning(status: int, code: str, said: str, *, name: str, host: str) -> ComfymodalError:
    if "cap_exceeded" in code:
        hint = "raise it under Caps & Alerts in the B2 console, or wait until midnight GMT"
        return ServiceError(f"a cap of the B2 account is reached ({said})", hint=hint)
    if status == 401:
        return _not_allowed(code, said, name)
    if status == 403:
        return NotReadyError(f"B2 refuses the account ({said})", hint="look at the account in the B2 console")
    if status == 429 or status >= 500:
        return ServiceError(f"B2 is overloaded or out of order ({said})", hint="the same command may work later")
    return ServiceError(f"{host} does not answer as B2 does ({said})", hint=_ENDPOINT_HINT)


def _not_allowed(code: str, said: str, name: str) -> NotReadyError:
    if code == "expired_auth_token":
        return NotReadyError(f"B2 says the key has expired ({said})", hint="make a new application key")
    if name == "b2_authorize_account":
        return NotReadyError(f"the key id or the key is wrong ({said})", hint=_WRONG_KEY)
    if name == "b2_list_buckets":
        hint = "make a key with the capability listBuckets, or one for this bucket alone"
    else:
        hint = "make a key with the capability listFiles, and look whether the key is limited to another folder"
    return NotReadyError(f"the key may not do this: {name} ({said})", hint=hint)


def _host(url: str) -> str:
    return "/".join(url.split("/")[:3])


def _ahead(date: str | None, here: float) -> float | None:
    try:
        return here - email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
