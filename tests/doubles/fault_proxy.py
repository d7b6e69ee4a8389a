"""A TCP proxy in front of a real server that can cut lines the way networks do. The server behind it stays real."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(eq=False)
class Line:
    client: socket.socket
    server: socket.socket
    is_websocket: bool = False
    is_download: bool = False


class FaultProxy:
    """Forwards bytes; tests cut, count and refuse. `url` is where clients connect."""

    def __init__(self, target_url: str) -> None:
        parts = urlsplit(target_url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._is_refusing = False
        self.websockets = 0
        self.downloads_to_cut = 0
        self.downloads_cut = 0
        self.vanishes_with_download = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, only_websockets: bool) -> int:
        """Close lines as if a cable was pulled; return how many."""
        with self._lock:
            chosen = [line for line in self._lines if line.is_websocket or not only_websockets]
            self._lines = [line for line in self._lines if line not in chosen]
        for line in chosen:
            _close(line.client)
            _close(line.server)
        return len(chosen)

    def refuse(self) -> None:
        """Cut everything and take no new line, as when the server's machine is gone."""
        self._is_refusing = True
        _close(self._listener)
        self.cut(only_websockets=False)

    def _accept(self) -> None:
        while not self._is_refusing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _close(client)
            return
        line = Line(client, server)
        with self._lock:
            self._lines.append(line)
        threading.Thread(target=self._answer, args=(line,), daemon=True).start()
        with contextlib.suppress(OSError):
            while chunk := client.recv(65536):
                # A client may upgrade a connection it used for plain requests before.
                if b"upgrade: websocket" in chunk.lower():
                    line.is_websocket = True
                    self.websockets += 1
                line.is_download = chunk.startswith(b"GET /view")
                server.sendall(chunk)
        _close(server)

    def _answer(self, line: Line) -> None:
        with contextlib.suppress(OSError):
            while chunk := line.server.recv(4096):
                if line.is_download and self.downloads_to_cut > 0:
                    self.downloads_to_cut -= 1
                    self.downloads_cut += 1
                    # The head of the answer and some of the file arrive.
                    line.client.sendall(chunk)
                    if self.vanishes_with_download:
                        self.refuse()
                    break
                line.client.sendall(chunk)
        _close(line.client)


@contextlib.contextmanager
def fault_proxy(target_url: str) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target_url)
    try:
        yield proxy
    finally:
        proxy.refuse()


def _close(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
