"""Hugging Face's resolve protocol, Civitai's version API, and the store of files behind both, with faults to order.

The hub and its store are two servers: as with the real ones, a file is a redirect to a signed address on another host,
and a store answers 400 to whoever shows it a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_doubleToken0123456789"

Fault = str | tuple[str, Any]
"""`cut` (after so many bytes), `status` (`(code, headers)`), `page`, `hang` (seconds), `whole` (no ranges)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived."""

    host: str
    path: str
    headers: dict[str, str]


@dataclass
class ModelHub:
    """`files` by `owner/repo/path`; `faults` are used up one by one, by requests for a file's bytes."""

    url: str = ""
    store_url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    unaccepted: set[str] = field(default_factory=set)
    """Gated repositories whose licence the account of the token did not accept."""
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[tuple[str, Any]] = field(default_factory=list)
    hub_faults: list[tuple[str, Any]] = field(default_factory=list)
    has_ranges: bool = True
    has_tags: bool = True
    is_linked: bool = True
    """Whether the hub tells the sha256 beforehand, as for files in LFS."""
    is_login_page: bool = False
    """Whether Civitai sends those without a token to its login page."""
    asked: list[Asked] = field(default_factory=list)

    def put(self, name: str, content: bytes) -> str:
        """Offer a file; return its sha256."""
        self.files[name] = content
        return hashlib.sha256(content).hexdigest()

    def put_version(self, number: int, name: str, content: bytes, *, kind: str = "LORA", sha256: str = "") -> None:
        self.files[f"civitai/{number}"] = content
        self.versions[str(number)] = {
            "id": number,
            "model": {"name": "A model", "type": kind},
            "files": [
                {
                    "name": name,
                    "type": "Model",
                    "primary": True,
                    "sizeKB": len(content) / 1024,
                    "hashes": {"SHA256": (sha256 or hashlib.sha256(content).hexdigest()).upper()},
                    "downloadUrl": f"{self.url}/api/download/models/{number}",
                }
            ],
        }

    def of_store(self) -> list[Asked]:
        """Requests for bytes of files, without the single bytes that only ask for headers."""
        return [each for each in self.asked if each.host == "store" and each.headers.get("range") != "bytes=0-0"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub
    host: str

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append(Asked(self.host, self.path, headers))
        (self._store if self.host == "store" else self._front)(urlsplit(self.path), headers)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _front(self, address: Any, headers: dict[str, str]) -> None:
        if self.hub.hub_faults:
            self._fail(*self.hub.hub_faults.pop(0))
            return
        path = unquote(address.path)
        is_open = headers.get("authorization") == f"Bearer {TOKEN}"
        if found := re.fullmatch(r"/api/v1/model-versions/(\d+)", path):
            version = self.hub.versions.get(found[1])
            self._answer(200 if version else 404, json.dumps(version or {"error": "Model not found"}).encode())
        elif found := re.fullmatch(r"/api/download/models/(\d+)", path):
            self._civitai(f"civitai/{found[1]}", is_open=is_open)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/auth-check", path):
            self._auth_check(found[1], headers.get("authorization"))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(f"{found[1]}/{found[3]}", found[1], is_open=is_open)
        else:
            self._answer(404, b"{}")

    def _auth_check(self, repository: str, authorization: str | None) -> None:
        is_known = any(name.startswith(f"{repository}/") for name in self.hub.files)
        if authorization not in (None, f"Bearer {TOKEN}"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif not is_known:
            # To whoever shows no token the hub does not say which of both it is.
            self._refuse(404 if authorization else 401, "RepoNotFound", "Repository not found")
        elif repository in self.hub.unaccepted:
            self._refuse(403, "GatedRepo", f"Access to model {repository} is restricted")
        elif repository in self.hub.gated and authorization is None:
            self._refuse(401, "GatedRepo", f"Access to model {repository} is restricted")
        else:
            self._answer(200, b"{}")

    def _refuse(self, status: int, code: str, message: str) -> None:
        more = {"X-Error-Code": code, "X-Error-Message": message}
        self._answer(status, json.dumps({"error": message}).encode(), more)

    def _resolve(self, name: str, repository: str, *, is_open: bool) -> None:
        content = self.hub.files.get(name)
        if repository in self.hub.gated and not is_open:
            more = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {repository} is restricted."}
            self._answer(401, b"Access is restricted", more)
        elif content is None:
            self._answer(
                404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            )
        else:
            linked = {"X-Linked-Etag": f'"{_sha(content)}"', "X-Linked-Size": str(len(content))}
            location = f"{self.hub.store_url}/{name}?X-Amz-Signature=s3cretSignature"
            self._answer(302, b"", {"Location": location, **(linked if self.hub.is_linked else {})})

    def _civitai(self, name: str, *, is_open: bool) -> None:
        if name in self.hub.gated and not is_open and self.hub.is_login_page:
            self._answer(307, b"", {"Location": "/login?returnUrl=%2Fmodels&reason=download-auth"})
        elif name in self.hub.gated and not is_open:
            said = {"error": "Unauthorized", "message": "The creator of this asset requires you to be logged in"}
            self._answer(401, json.dumps(said).encode())
        else:
            self._answer(307, b"", {"Location": f"{self.hub.store_url}/{name}?X-Amz-Signature=s3cretSignature"})

    def _store(self, address: Any, headers: dict[str, str]) -> None:
        content = self.hub.files.get(unquote(address.path).lstrip("/"))
        if "authorization" in headers:
            self._answer(400, b"<Error><Code>InvalidRequest</Code></Error>")
            return
        if content is None:
            self._answer(404, b"")
            return
        is_probe = headers.get("range") == "bytes=0-0"
        kind, value = self.hub.faults.pop(0) if self.hub.faults and not is_probe else ("", None)
        if kind not in ("", "cut"):
            self._fail(kind, value)
            return
        self._send(content, headers, cut_at=value if kind == "cut" else None)

    def _send(self, content: bytes, headers: dict[str, str], *, cut_at: int | None) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        is_current = headers.get("if-range") in (None, tag)
        more = {"ETag": tag} if self.hub.has_tags else {}
        start, end, status = 0, len(content), 200
        if wanted and is_current and self.hub.has_ranges:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
            if start >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}", **more})
                return
            status = 206
            more["Content-Range"] = f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}"
        body = content[start:end]
        self._answer(status, body, more, cut_at=cut_at)

    def _fail(self, kind: str, value: Any) -> None:
        if kind == "status":
            code, more = value
            self._answer(code, json.dumps({"message": f"fault {code}"}).encode(), more)
        elif kind == "page":
            self._answer(200, b"<!DOCTYPE html><p>hello", {"Content-Type": "text/html; charset=utf-8"})
        else:
            raise ValueError(kind)

    def _answer(
        self, status: int, body: bytes, more: dict[str, str] | None = None, *, cut_at: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body if cut_at is None else body[:cut_at])
            if cut_at is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True


@contextlib.contextmanager
def model_hub() -> Iterator[ModelHub]:
    """Both servers, on free ports of this machine, until the block ends."""
    hub = ModelHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type("_At", (_Handler,), {"hub": hub, "host": host}))
        for host in ("hub", "store")
    ]
    hub.url, hub.store_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(5)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
