"""What servers say, as ours: redirects, names of files, waits, refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from comfymodal.errors import NotReadyError, ServiceError
from comfymodal.storage.web import Access, TryAgainError, get_json, open_url

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers each path as it was told, and keeps what was asked with."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append({name.lower(): value for name, value in self.headers.items()})
                status, headers, body = server.answers[self.path]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join(5)


def access(server: Server, token: str | None = "secret-token") -> Access:
    return Access(server.url, "X_TOKEN", "x-credentials", "https://tokens", "https://licence", token=token)


@pytest.mark.parametrize(
    ("location", "said"),
    [("ftp://example.org/a", "ftp://"), ("file:///etc/passwd", "file://"), ("/again", "in a circle")],
)
def test_redirects_that_are_not_followed(server: Server, location: str, said: str) -> None:
    server.answers["/again"] = (302, {"Location": location}, b"")
    with pytest.raises(ServiceError, match=said):
        open_url(f"{server.url}/again")


def test_a_redirect_on_the_same_host_keeps_the_token(server: Server) -> None:
    server.answers = {"/old": (307, {"Location": "/new"}, b""), "/new": (200, {}, b"x")}
    with open_url(f"{server.url}/old", access=access(server)) as answer:
        assert answer.read(5) == b"x"

    assert [asked["authorization"] for asked in server.asked] == ["Bearer secret-token"] * 2
    # Civitai's front door refuses Python's own name.
    assert all(asked["user-agent"].startswith("comfymodal/") for asked in server.asked)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.safetensors"', "a b.safetensors"),
        ("attachment; filename=a.bin; size=5", "a.bin"),
        ("attachment; filename=\"x.bin\"; filename*=UTF-8''%C3%BC.bin", "ü.bin"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\x\\y.bin"', "y.bin"),
        ('attachment; filename=""', None),
        ("inline", None),
    ],
)
def test_names_that_servers_give(server: Server, disposition: str, name: str | None) -> None:
    server.answers["/a"] = (200, {"Content-Disposition": disposition}, b"x")
    with open_url(f"{server.url}/a") as answer:
        assert answer.facts().filename == name


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7.0, 7.0), (formatdate(time.time() + 6000, usegmt=True), 4000.0, 6001.0), ("soon", None, None)],
    ids=["seconds", "date", "words"],
)
def test_how_long_a_server_asks_to_wait(server: Server, text: str, least: float | None, most: float | None) -> None:
    server.answers["/a"] = (429, {"Retry-After": text}, b"")
    with pytest.raises(TryAgainError) as caught:
        open_url(f"{server.url}/a")

    if least is None or most is None:
        assert caught.value.after_s is None
    else:
        assert caught.value.after_s is not None
        assert least <= caught.value.after_s <= most


def test_a_token_that_a_server_repeats_is_not_shown(server: Server) -> None:
    server.answers["/a"] = (401, {}, b'{"message": "bad token secret-token"}')
    with pytest.raises(NotReadyError) as caught:
        open_url(f"{server.url}/a", access=access(server))

    assert "secret-token" not in str(caught.value.to_dict())
    assert "bad token ***" in caught.value.message


@pytest.mark.parametrize("token", ["two\nlines", "ümläut", "with space"])
def test_a_token_that_is_none_is_never_sent(server: Server, token: str) -> None:
    with pytest.raises(NotReadyError, match="X_TOKEN holds more than a token"):
        open_url(f"{server.url}/a", access=access(server, token))

    assert server.asked == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"a"'])
def test_an_answer_that_is_no_json_may_be_one_later(server: Server, body: bytes) -> None:
    server.answers["/a"] = (200, {}, body)
    with pytest.raises(TryAgainError, match="something else than JSON"):
        get_json(f"{server.url}/a")


def test_a_strange_server_that_wants_a_login_gets_no_token(server: Server) -> None:
    server.answers["/a"] = (401, {}, b"")
    with pytest.raises(NotReadyError, match="it wants a login"):
        open_url(f"{server.url}/a")
