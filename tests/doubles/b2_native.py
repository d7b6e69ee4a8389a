"""B2's native API as rclone 1.75 speaks it, in memory: versions, large files, keys that may do less, caps, expiry.

It is our reading of the API, not B2: texts of errors may differ. Addresses it tells are those it was asked at, so
that a proxy in front sees everything.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

ALL = frozenset({"listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"})
CLASS_A = frozenset({"upload_file", "upload_part", "hide_file", "delete_file_version", "start_large_file",
                     "finish_large_file", "cancel_large_file", "get_upload_url", "get_upload_part_url"})  # fmt: skip
CLASS_B = frozenset({"download"})


@dataclass
class Key:
    """An application key. `buckets` and `prefix` limit it."""

    key_id: str = "0040000000000000000000001"
    key: str = "K004doubleSecretOfTheB2Fake0123"
    capabilities: frozenset[str] = ALL
    buckets: tuple[str, ...] = ()
    prefix: str | None = None
    expires_at: float | None = None
    """Unix seconds; what the key's answer says, nothing is refused after it."""


@dataclass(frozen=True)
class Version:
    file_id: str
    name: str
    action: str
    """upload or hide"""
    data: bytes
    sha1: str
    info: Mapping[str, str]
    timestamp: int
    content_type: str = "application/octet-stream"

    def to_json(self, bucket: str) -> dict[str, Any]:
        return {
            "fileId": self.file_id, "fileName": self.name, "action": self.action, "size": len(self.data),
            "contentLength": len(self.data), "uploadTimestamp": self.timestamp, "contentSha1": self.sha1,
            "contentType": self.content_type, "fileInfo": dict(self.info), "bucketId": bucket, "accountId": "acc",
        }  # fmt: skip


@dataclass
class Large:
    bucket: str
    name: str
    info: Mapping[str, str]
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass
class B2Native:
    """The account. Change and read it from a test when nothing is under way."""

    key: Key = field(default_factory=Key)
    buckets: dict[str, list[Version]] = field(default_factory=lambda: {"models": []})
    """Oldest version first."""
    caps: set[str] = field(default_factory=set)
    """`download`, `storage` or `transaction`: what is used up."""
    expires_after: int | None = None
    """A token is good for so many calls."""
    rate: int = 0
    """Bytes per second of one download."""
    calls: Counter[str] = field(default_factory=Counter)
    unfinished: dict[str, Large] = field(default_factory=dict)
    _tokens: dict[str, int] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    # What tests do and see

    def put(self, name: str, data: bytes, *, bucket: str = "models", sha1: str | None = None) -> Version:
        """Upload; `sha1` "none" is a large file of a client that told no hash."""
        return self._add(bucket, name, data, {}, sha1=sha1 or hashlib.sha1(data).hexdigest())

    def files(self, bucket: str = "models") -> dict[str, bytes]:
        """What is there to see, by name."""
        return {each.name: each.data for each in self._current(bucket)}

    def remove(self, name: str, *, bucket: str = "models") -> None:
        """Hide the file, as its owner's delete does."""
        self._add(bucket, name, b"", {}, sha1="")

    def calls_by_class(self) -> dict[str, int]:
        """A: free; B and C: billed. Authorizing, listing and copying are C."""
        found = Counter("A" if name in CLASS_A else "B" if name in CLASS_B else "C" for name in self.calls.elements())
        return dict(found)

    def expire_tokens(self) -> None:
        self._tokens.clear()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/b2api/{version}/b2_authorize_account", self._authorize)
        app.router.add_get("/b2api/{version}/b2_download_file_by_id", self._download_by_id)
        app.router.add_get("/file/{bucket}/{name:.*}", self._download_by_name)
        app.router.add_post("/b2api/{version}/b2_{call}", self._call)
        app.router.add_post("/upload/file/{bucket}", self._upload)
        app.router.add_post("/upload/part/{file_id}", self._upload_part)
        app.middlewares.append(_as_json)
        return app

    # Versions

    def _add(
        self, bucket: str, name: str, data: bytes, info: Mapping[str, str], *, sha1: str, content_type: str = ""
    ) -> Version:
        number = next(self._numbers)
        action = "upload" if sha1 else "hide"
        version = Version(
            f"4_z{number:012d}", name, action, data, sha1, info, 1_700_000_000_000 + number, content_type or "b2/x-auto"
        )
        self.buckets[bucket].append(version)
        return version

    def _current(self, bucket: str) -> list[Version]:
        newest = {each.name: each for each in self.buckets[bucket]}
        return sorted((each for each in newest.values() if each.action == "upload"), key=lambda each: each.name)

    def _by_id(self, file_id: str) -> tuple[str, Version]:
        for bucket, versions in self.buckets.items():
            for each in versions:
                if each.file_id == file_id:
                    return bucket, each
        raise Refusal(404, "not_found", f"File not present: {file_id}")

    # Who may do what

    async def _authorize(self, request: web.Request) -> web.Response:
        self.calls["authorize_account"] += 1
        given = request.headers.get("Authorization", "").removeprefix("Basic ")
        if base64.b64decode(given).decode() != f"{self.key.key_id}:{self.key.key}":
            raise Refusal(401, "unauthorized", "The applicationKeyId or the applicationKey is wrong")
        token = f"4_token_{next(self._numbers)}"
        self._tokens[token] = 0
        allowed = {
            "buckets": [{"id": name, "name": name} for name in self.key.buckets] or None,
            "capabilities": sorted(self.key.capabilities),
            "namePrefix": self.key.prefix,
        }
        storage = {
            "absoluteMinimumPartSize": 5_000_000, "recommendedPartSize": 100_000_000, "minimumPartSize": 5_000_000,
            "apiUrl": _here(request), "downloadUrl": _here(request), "s3ApiUrl": "https://s3.us-west-004.example",
            "allowed": allowed, "bucketId": None, "infoType": "storageApi",
        }  # fmt: skip
        return web.json_response(
            {"accountId": "acc", "authorizationToken": token, "apiInfo": {"storageApi": storage},
             "applicationKeyExpirationTimestamp": int(self.key.expires_at * 1000) if self.key.expires_at else None}
        )  # fmt: skip

    def _allow(self, request: web.Request, capability: str, *, bucket: str = "", name: str | None = None) -> None:
        token = request.headers.get("Authorization", "")
        if token not in self._tokens:
            raise Refusal(401, "bad_auth_token", "Invalid authorization token")
        self._tokens[token] += 1
        if self.expires_after is not None and self._tokens[token] > self.expires_after:
            del self._tokens[token]
            raise Refusal(401, "expired_auth_token", "Authorization token has expired")
        outside = self.key.prefix is not None and name is not None and not name.startswith(self.key.prefix)
        elsewhere = bool(bucket and self.key.buckets and bucket not in self.key.buckets)
        if capability not in self.key.capabilities or outside or elsewhere:
            raise Refusal(401, "unauthorized", "")
        if "transaction" in self.caps:
            raise Refusal(403, "transaction_cap_exceeded", "Transaction cap exceeded, see the Caps & Alerts page")
        if bucket and bucket not in self.buckets:
            raise Refusal(400, "bad_bucket_id", f"Bucket {bucket} does not exist")

    # Calls with JSON in and out

    async def _call(self, request: web.Request) -> web.Response:
        name = request.match_info["call"]
        self.calls[name] += 1
        call: Callable[[web.Request, dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_do_{name}", None)
        if call is None:
            raise Refusal(400, "bad_request", f"unknown call {name}")
        return web.json_response(call(request, await request.json()))

    def _do_list_buckets(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body.get("bucketName")
        self._allow(request, "listBuckets", bucket="")
        if self.key.buckets and wanted not in self.key.buckets:
            raise Refusal(401, "unauthorized", "")
        names = [name for name in self.buckets if wanted in (None, name)]
        private = {"bucketType": "allPrivate", "lifecycleRules": []}
        return {"buckets": [{"bucketId": name, "bucketName": name, **private} for name in names]}

    def _do_create_bucket(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeBuckets")
        if body["bucketName"] in self.buckets:
            raise Refusal(400, "duplicate_bucket_name", "Bucket name is already in use")
        self.buckets[body["bucketName"]] = []
        return {**body, "bucketId": body["bucketName"], "lifecycleRules": []}

    def _do_list_file_names(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "listFiles", bucket=body["bucketId"], name=body.get("prefix", ""))
        return self._page(body, self._current(body["bucketId"]))

    def _do_list_file_versions(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "listFiles", bucket=body["bucketId"], name=body.get("prefix", ""))
        versions = sorted(self.buckets[body["bucketId"]], key=lambda each: (each.name, -each.timestamp))
        return self._page(body, versions)

    def _page(self, body: dict[str, Any], versions: list[Version]) -> dict[str, Any]:
        prefix, delimiter = body.get("prefix", ""), body.get("delimiter", "")
        start, size = body.get("startFileName", ""), min(1000, body.get("maxFileCount", 100))
        entries: list[dict[str, Any]] = []
        for each in versions:
            if not each.name.startswith(prefix) or each.name < start:
                continue
            head, found, _ = each.name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            folder = f"{prefix}{head}{delimiter}"
            if not found:
                entries.append(each.to_json(body["bucketId"]))
            elif not entries or entries[-1]["fileName"] != folder:
                entries.append({"fileName": folder, "action": "folder", "size": 0, "fileId": None})
        more = entries[size]["fileName"] if len(entries) > size else None
        return {"files": entries[:size], "nextFileName": more, "nextFileId": None}

    def _do_get_upload_url(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles", bucket=body["bucketId"])
        url = f"{_here(request)}/upload/file/{body['bucketId']}"
        return {**body, "uploadUrl": url, "authorizationToken": request.headers["Authorization"]}

    def _do_get_upload_part_url(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles")
        url = f"{_here(request)}/upload/part/{body['fileId']}"
        return {**body, "uploadUrl": url, "authorizationToken": request.headers["Authorization"]}

    def _do_start_large_file(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles", bucket=body["bucketId"], name=body["fileName"])
        file_id = f"4_large{next(self._numbers):012d}"
        self.unfinished[file_id] = Large(
            body["bucketId"], body["fileName"], body.get("fileInfo", {}), body.get("contentType", "")
        )
        return {
            **body,
            "fileId": file_id,
            "accountId": "acc",
            "uploadTimestamp": 1,
            "fileInfo": body.get("fileInfo", {}),
        }

    def _do_finish_large_file(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles")
        large = self._large(body["fileId"])
        parts = [large.parts[number] for number in sorted(large.parts)]
        if [hashlib.sha1(part).hexdigest() for part in parts] != body["partSha1Array"]:
            raise Refusal(400, "bad_request", "part SHA1s do not match")
        del self.unfinished[body["fileId"]]
        added = self._add(
            large.bucket, large.name, b"".join(parts), large.info, sha1="none", content_type=large.content_type
        )
        return added.to_json(large.bucket)

    def _do_cancel_large_file(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles")
        large = self._large(body["fileId"])
        del self.unfinished[body["fileId"]]
        return {**body, "bucketId": large.bucket, "fileName": large.name, "accountId": "acc"}

    def _do_list_unfinished_large_files(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "listFiles", bucket=body["bucketId"])
        files = [{"fileId": file_id, "fileName": each.name} for file_id, each in self.unfinished.items()]
        return {"files": files, "nextFileId": None}

    def _do_copy_file(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        bucket, source = self._by_id(body["sourceFileId"])
        target = body.get("destinationBucketId") or bucket
        self._allow(request, "readFiles", bucket=bucket, name=source.name)
        self._allow(request, "writeFiles", bucket=target, name=body["fileName"])
        info = body.get("fileInfo", {}) if body.get("metadataDirective") == "REPLACE" else source.info
        return self._add(target, body["fileName"], source.data, info, sha1=source.sha1).to_json(target)

    def _do_hide_file(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._allow(request, "writeFiles", bucket=body["bucketId"], name=body["fileName"])
        if body["fileName"] not in self.files(body["bucketId"]):
            raise Refusal(400, "no_such_file", f"File not present: {body['fileName']}")
        return self._add(body["bucketId"], body["fileName"], b"", {}, sha1="").to_json(body["bucketId"])

    def _do_delete_file_version(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        bucket, version = self._by_id(body["fileId"])
        self._allow(request, "deleteFiles", bucket=bucket, name=version.name)
        self.buckets[bucket].remove(version)
        return body

    def _large(self, file_id: str) -> Large:
        if file_id not in self.unfinished:
            raise Refusal(400, "bad_request", f"No active upload for: {file_id}")
        return self.unfinished[file_id]

    # Bytes

    async def _upload(self, request: web.Request) -> web.Response:
        self.calls["upload_file"] += 1
        bucket, name = request.match_info["bucket"], unquote(request.headers["X-Bz-File-Name"])
        self._allow(request, "writeFiles", bucket=bucket, name=name)
        data, sha1 = await self._checked(request)
        info = {
            key.lower().removeprefix("x-bz-info-"): unquote(value)
            for key, value in request.headers.items()
            if key.lower().startswith("x-bz-info-")
        }
        return web.json_response(self._add(bucket, name, data, info, sha1=sha1).to_json(bucket))

    async def _upload_part(self, request: web.Request) -> web.Response:
        self.calls["upload_part"] += 1
        self._allow(request, "writeFiles")
        large = self._large(request.match_info["file_id"])
        number = int(request.headers["X-Bz-Part-Number"])
        data, sha1 = await self._checked(request)
        large.parts[number] = data
        told = {"partNumber": number, "contentLength": len(data), "contentSha1": sha1}
        return web.json_response({"fileId": request.match_info["file_id"], **told})

    async def _checked(self, request: web.Request) -> tuple[bytes, str]:
        data = await request.read()
        if "storage" in self.caps:
            raise Refusal(403, "storage_cap_exceeded", "Storage cap exceeded, see the Caps & Alerts page")
        told = request.headers["X-Bz-Content-Sha1"]
        if told == "hex_digits_at_end":
            data, told = data[:-40], data[-40:].decode()
        if (found := hashlib.sha1(data).hexdigest()) != told:
            raise Refusal(400, "bad_request", f"Sha1 did not match data received: {found}")
        return data, told

    async def _download_by_id(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, *self._by_id(request.query["fileId"]))

    async def _download_by_name(self, request: web.Request) -> web.StreamResponse:
        bucket, name = request.match_info["bucket"], request.match_info["name"]
        self._allow(request, "readFiles", bucket=bucket, name=name)
        found = [each for each in self._current(bucket) if each.name == name]
        if not found:
            self.calls["download"] += 1
            raise Refusal(404, "not_found", f"File with such name does not exist: {name}")
        return await self._send(request, bucket, found[0])

    async def _send(self, request: web.Request, bucket: str, version: Version) -> web.StreamResponse:
        self.calls["download"] += 1
        self._allow(request, "readFiles", bucket=bucket, name=version.name)
        if "download" in self.caps and request.method == "GET":
            raise Refusal(403, "download_cap_exceeded", "Download cap exceeded, see the Caps & Alerts page")
        wanted = request.http_range
        data = version.data[wanted]
        is_part = "Range" in request.headers and len(version.data) > 0
        headers = {
            "X-Bz-File-Id": version.file_id,
            "X-Bz-Content-Sha1": version.sha1,
            "X-Bz-Upload-Timestamp": str(version.timestamp),
            "Content-Type": version.content_type,
            "Content-Length": str(len(data)),
            **{f"X-Bz-Info-{key}": value for key, value in version.info.items()},
        }
        answer = web.StreamResponse(status=206 if is_part else 200, headers=headers)
        await answer.prepare(request)
        if request.method == "GET":
            await self._pour(answer, data)
        return answer

    async def _pour(self, answer: web.StreamResponse, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            chunk = data[start : start + (1 << 16)]
            await answer.write(chunk)
            if self.rate:
                await asyncio.sleep(len(chunk) / self.rate)


@web.middleware
async def _as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as exc:
        body = json.dumps({"status": exc.status, "code": exc.code, "message": exc.message})
        return web.Response(status=exc.status, text=body, content_type="application/json")


def _here(request: web.Request) -> str:
    return f"http://{request.host}"
