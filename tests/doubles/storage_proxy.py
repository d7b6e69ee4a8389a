"""An HTTP proxy in front of a real storage server that fails the way networks and services do.

Requests keep their `Host`, so signatures stay valid, and a server that tells its own address tells the proxy's.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

CHUNK = 1 << 15
EXPIRED = (
    b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>'
)

Kind = Literal["status", "reset", "hang", "truncate", "flip", "slow"]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match."""

    kind: Kind
    times: int = 1
    method: str = "GET"
    path: str = ""
    """A part of the path with its query; empty matches every one."""
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: int = 0
    """Bytes of the answer's body that get through first."""
    total_after: int | None = None
    """The fault begins when so many bytes of bodies have gone through the proxy, in all."""
    rate: int = 0
    """Bytes per second on one connection, for `slow`."""
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.hits < self.times and self.method in ("", method) and self.path in path


class StorageProxy:
    """`url` is where clients connect; `faults` may change at any time."""

    def __init__(self, target_url: str) -> None:
        parts = urlsplit(target_url)
        self.target = (parts.hostname or "", parts.port or 80)
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        """Answered requests by method."""
        self.bytes_sent = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        """Set at the end, so that hanging answers hang no longer."""
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, kind: Kind, **options: Any) -> Fault:
        fault = Fault(kind, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests[method] += 1
            for fault in self.faults:
                if fault.matches(method, path) and self.bytes_sent >= (fault.total_after or 0):
                    fault.hits += 1
                    return fault
        return None

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    """The default of 5 makes 32 connections at once wait for a second."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that is killed or told to stop cuts its lines; that is what it is here for.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def storage_proxy(target_url: str) -> Iterator[StorageProxy]:
    proxy = StorageProxy(target_url)
    try:
        yield proxy
    finally:
        proxy.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: StorageProxy
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        fault = self.owner.take(self.command, self.path)
        with contextlib.suppress(OSError, http.client.HTTPException):
            if fault and fault.kind in ("status", "reset") and not fault.after:
                self._refuse(fault)
            else:
                self._forward(fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        return

    def _refuse(self, fault: Fault) -> None:
        if fault.kind == "reset":
            self._reset()
            return
        # The body must be read before the line can be used again.
        self._body()
        self.send_response(fault.status)
        for name, value in {"Content-Type": "application/xml", **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(fault.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(fault.body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, fault: Fault | None) -> None:
        line = http.client.HTTPConnection(*self.owner.target, timeout=120)
        try:
            line.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    line.putheader(name, value)
            line.endheaders()
            self._send_body(line, fault)
            self._answer(line.getresponse(), fault)
        except OSError:
            self.close_connection = True
            raise
        finally:
            line.close()

    def _send_body(self, line: http.client.HTTPConnection, fault: Fault | None) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0:
            chunk = self.rfile.read(min(CHUNK, left))
            if not chunk:
                raise ConnectionError("the client went away")
            left -= len(chunk)
            if fault and fault.kind == "slow":
                time.sleep(len(chunk) / fault.rate)
            line.send(chunk)

    def _answer(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None and self.command != "HEAD" and answer.status not in (204, 304):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self._pass_on(answer, fault)

    def _pass_on(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        sent = 0
        while chunk := answer.read(CHUNK):
            if fault:
                chunk = self._spoil(chunk, sent, fault)
            self.wfile.write(chunk)
            sent += len(chunk)
            with self.owner.lock:
                self.owner.bytes_sent += len(chunk)

    def _spoil(self, chunk: bytes, sent: int, fault: Fault) -> bytes:
        if fault.kind == "slow":
            time.sleep(len(chunk) / fault.rate)
            return chunk
        if sent + len(chunk) <= fault.after:
            return chunk
        kept = max(0, fault.after - sent)
        if fault.kind == "flip":
            if sent <= fault.after < sent + len(chunk):
                return chunk[:kept] + bytes([chunk[kept] ^ 1]) + chunk[kept + 1 :]
            return chunk
        self.wfile.write(chunk[:kept])
        self.wfile.flush()
        if fault.kind == "hang":
            self.owner.released.wait(120)
        if fault.kind == "reset":
            self._reset()
        self.close_connection = True
        raise ConnectionError("cut on purpose")

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The socket is closed at once, and with it goes what is still under way: the client sees a reset.
        self.connection.close()
