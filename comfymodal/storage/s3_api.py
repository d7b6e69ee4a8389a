"""A bucket by its S3 API as far as checks need it: does it open, where is it, what lies in a folder.

Reads only; rclone does all moving. boto3 is imported when a bucket is opened.
"""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import ComfymodalError, NotFoundError, NotReadyError, ServiceError
from comfymodal.storage.b2_api import FolderLook
from comfymodal.storage.rclone.explain import meaning_of
from comfymodal.storage.rclone.session import HIDDEN, region_of
from comfymodal.storage.values import Keys, Remote

CONNECT_S, READ_S = 10.0, 30.0
SHOWN_CHARACTERS = 300
DEFAULT_REGION = "us-east-1"
ENDPOINT_HINT = "look at the remote's endpoint"

_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout")


@dataclass(frozen=True, slots=True)
class BucketLook:
    """A bucket that opened."""

    region: str | None
    """Where it is, as its server says; most do not."""
    ahead_s: float | None
    """How far this machine's clock is ahead of the server's."""


class S3Bucket:
    """A remote of type s3, opened with its keys and nothing of this machine's AWS configuration."""

    def __init__(self, remote: Remote, keys: Keys) -> None:
        self.remote = remote
        self.region = remote.region or region_of(remote.endpoint) or DEFAULT_REGION
        """What requests are signed for."""
        self._keys = keys
        with self._translated():
            self._client = _client(remote, keys, self.region)
        self._client.meta.events.register("before-call.s3", _stay_there)

    def look(self, folder: str) -> BucketLook:
        """Open the bucket and list one name of a folder that the keys may list.

        Raises `NotReadyError`, `NotFoundError` or `ServiceError`, each saying what to do about it.
        """
        with self._translated():
            before = time.time()
            listed = self._client.list_objects_v2(Bucket=self.remote.bucket, Prefix=_prefix(folder), MaxKeys=1)
            now = (before + time.time()) / 2
        if "Name" not in listed:
            raise ServiceError(f"{_where(self.remote)} does not answer as S3 does", hint=ENDPOINT_HINT)
        headers = listed["ResponseMetadata"]["HTTPHeaders"]
        return BucketLook(self._told_region(headers), _ahead(headers.get("date"), now))

    def look_into(self, folder: str) -> FolderLook:
        """What lies in a folder; `folder` without slashes at its ends. Raises as `look`."""
        prefix = _prefix(folder)
        with self._translated():
            page = self._client.list_objects_v2(Bucket=self.remote.bucket, Prefix=prefix, Delimiter="/")
        folders = [str(each["Prefix"])[len(prefix) :].rstrip("/") for each in page.get("CommonPrefixes") or []]
        # An object with the folder's own name is how some tools make one; it is no file.
        files = [each for each in page.get("Contents") or [] if each["Key"] != prefix]
        return FolderLook(len(files), tuple(folders))

    def _told_region(self, headers: Mapping[str, str]) -> str | None:
        from botocore.exceptions import BotoCoreError, ClientError

        if told := headers.get("x-amz-bucket-region"):
            return told
        try:
            head = self._client.head_bucket(Bucket=self.remote.bucket)
        except ClientError as exc:
            if exc.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                # Some servers list a bucket that does not exist as an empty one.
                raise self._no_bucket("404") from exc
            # It was listed, so it opens; keys that are limited to a folder may not ask for more.
            return None
        except BotoCoreError:
            return None
        told = head["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return str(told) if told else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as exc:
            raise self._refusal(exc.response) from exc
        except (BotoCoreError, ValueError) as exc:
            raise _broken(exc, self.remote) from exc

    def _refusal(self, response: Mapping[str, Any]) -> ComfymodalError:
        error, metadata = response.get("Error") or {}, response.get("ResponseMetadata") or {}
        code, status = str(error.get("Code") or ""), int(metadata.get("HTTPStatusCode") or 0)
        said = " ".join(f"{code} {error.get('Message') or ''}".split())[:SHOWN_CHARACTERS]
        # Backblaze repeats the key id it was given.
        for secret in (self._keys.key_id, self._keys.key):
            said = said.replace(secret.strip(), HIDDEN)
        if code in _ELSEWHERE:
            told = error.get("Region") or (metadata.get("HTTPHeaders") or {}).get("x-amz-bucket-region")
            return wrong_region(self.remote.bucket, self.region, told, said)
        if code == "NoSuchBucket":
            return self._no_bucket(said)
        if code == "InvalidAccessKeyId" and region_of(self.remote.endpoint):
            hint = "use an application key and its key id: the master key does not work with the S3 API"
            return NotReadyError(f"the key id is unknown there, or the master key's ({said})", hint=hint)
        if status >= 500 or status == 429 or code in _BUSY:
            what = f"the server is overloaded or out of order ({said})"
            return ServiceError(what, hint=f"the same command may work later; else {ENDPOINT_HINT}")
        meaning = meaning_of(f"{said} {status}")
        if meaning is None:
            return NotReadyError(f"the server refuses ({said})", hint=f"{ENDPOINT_HINT}, bucket and keys")
        return meaning.kind(f"{meaning.message} ({said})", hint=meaning.hint)

    def _no_bucket(self, said: str) -> NotFoundError:
        what = f"there is no bucket {self.remote.bucket}, or these keys may not see it ({said})"
        return NotFoundError(what, hint="look at the remote's bucket and endpoint")


def wrong_region(bucket: str, region: str, told: str | None, said: str = "") -> NotReadyError:
    """The bucket is in another region than requests are signed for; `told` is which, where it was told."""
    where = f"is in {told}, not in {region}" if told else f"is not in {region}"
    hint = f"write region: {told} (and its endpoint)" if told else "look at the remote's region and endpoint"
    return NotReadyError(f"the bucket {bucket} {where}{f' ({said})' if said else ''}", hint=hint)


def _stay_there(context: dict[str, Any], **_: Any) -> None:
    """boto3 follows a bucket to its region and says nothing, rclone does not: what it was told must count."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _client(remote: Remote, keys: Keys, region: str) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    # Profiles, files and addresses of this machine are somebody else's; rclone does not get them either.
    nothing = (None, None, os.devnull, None)
    variables = {"profile": (None, None, None, None), "config_file": nothing, "credentials_file": nothing}
    return boto3.Session(botocore_session=botocore.session.Session(session_vars=variables)).client(
        "s3",
        endpoint_url=remote.endpoint,
        region_name=region,
        aws_access_key_id=keys.key_id.strip(),
        aws_secret_access_key=keys.key.strip(),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if remote.endpoint else "auto"},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 2, "mode": "standard"},
            ignore_configured_endpoint_urls=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _broken(exc: Exception, remote: Remote) -> ServiceError:
    from botocore.exceptions import EndpointConnectionError, HTTPClientError, SSLError

    where = _where(remote)
    if isinstance(exc, SSLError):
        hint = "look at the endpoint (https?) and at what stands between"
        return ServiceError(f"the certificate of {where} is not trusted", hint=hint)
    if isinstance(exc, (EndpointConnectionError, HTTPClientError)):
        hint = f"{ENDPOINT_HINT}, and at this machine's network"
        return ServiceError(f"{where} cannot be reached, or stopped answering", hint=hint)
    return ServiceError(f"{where} does not answer as S3 does", hint=ENDPOINT_HINT)


def _where(remote: Remote) -> str:
    return remote.endpoint or "Amazon"


def _prefix(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _ahead(date: str | None, here: float) -> float | None:
    try:
        return here - email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
