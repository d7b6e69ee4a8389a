"""Whatever answers at the address: the client says so in our own errors, and in time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfymodal.comfyui.ask import UnreachableError, get_json, get_object_info
from comfymodal.comfyui.client import ComfyClient, Message
from comfymodal.errors import ServiceError, TransferError
from tests.doubles.comfy_nonsense import ANSWERS, nonsense_server
from tests.doubles.serving import serve

UNANSWERED = {"truncated", "reset", "hang", "drip", "gzip", "redirect"}

Call = Callable[[ComfyClient], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "post_prompt": lambda client: client.post_prompt("id", {"1": {}}, {}),
    "history": lambda client: client.history("id"),
    "queue": lambda client: client.queue(),
    "system_stats": lambda client: client.system_stats(),
}


def patience_s(answer: str) -> float:
    """Short for what never comes; what does come may take its time on a busy machine."""
    return 0.15 if answer in UNANSWERED else 10


def ask(url: str, call: Call, *, timeout_s: float = 10) -> Any:
    async def converse() -> Any:
        async with ComfyClient(url, client_id="test", timeout_s=timeout_s) as client:
            return await call(client)

    return asyncio.run(converse())


def listen(url: str, *, count: int) -> list[Message]:
    """The first `count` messages of the WebSocket."""

    async def converse() -> list[Message]:
        found: list[Message] = []
        async with ComfyClient(url, client_id="test") as client:
            messages = client.messages()
            async for message in messages:
                found.append(message)
                if len(found) == count:
                    break
            await messages.aclose()  # type: ignore[attr-defined]
        return found

    return asyncio.run(asyncio.wait_for(converse(), 10))


@pytest.mark.parametrize("answer", ANSWERS)
def test_nonsense_is_a_service_error(answer: str) -> None:
    with nonsense_server(answer) as server:
        for call in CALLS.values():
            with pytest.raises(ServiceError) as caught:
                ask(server.url, call, timeout_s=patience_s(answer))
            # A server that never got its answer through may be asked again; one that talks nonsense may not.
            expected = answer in UNANSWERED
            assert isinstance(caught.value, UnreachableError) == expected, caught.value
            assert len(caught.value.message) < 400


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer not in ("gzip", "redirect", "drip")])
def test_nonsense_is_a_service_error_for_the_blocking_client_too(answer: str) -> None:
    with nonsense_server(answer) as server, pytest.raises(ServiceError) as caught:
        get_json(server.url, "/system_stats", timeout_s=patience_s(answer))
    assert isinstance(caught.value, UnreachableError) == (answer in UNANSWERED)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:1", id="nobody listens"),
        pytest.param("http://127.0.0.1:99999", id="no such port"),
        pytest.param("http://127.0.0.1:port", id="a port that is a word"),
        pytest.param("http://[::1", id="an open bracket"),
        pytest.param("http://" + "a" * 70 + ".invalid", id="a label too long"),
        pytest.param("http://", id="no host"),
    ],
)
def test_an_address_that_leads_nowhere_is_unreachable(url: str) -> None:
    with pytest.raises(UnreachableError):
        get_json(url, "/system_stats", timeout_s=1.0)
    with pytest.raises(UnreachableError):
        ask(url, CALLS["queue"], timeout_s=1.0)


def test_a_hang_ends_after_the_timeout() -> None:
    began = time.monotonic()
    with nonsense_server("hang") as server, pytest.raises(UnreachableError):
        ask(server.url, CALLS["queue"], timeout_s=0.2)
    assert time.monotonic() - began < 3


def test_a_refusal_is_an_answer_and_no_error() -> None:
    body = {"error": {"type": "invalid_prompt"}, "node_errors": {"3": {"errors": []}}}

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response(body, status=400)

    app = web.Application()
    app.router.add_post("/prompt", refuse)
    with serve(app) as server:
        reply = ask(server.url, CALLS["post_prompt"])
    assert (reply.status, reply.body, reply.node_errors) == (400, body, body["node_errors"])


@pytest.mark.parametrize(
    ("queue", "ids"),
    [
        pytest.param(
            {"queue_running": [[0, "a", {}, {}, []]], "queue_pending": [[1, "b"]]}, ({"a"}, {"b"}), id="as ComfyUI says"
        ),
        pytest.param({}, (set(), set()), id="nothing"),
        pytest.param({"queue_running": None, "queue_pending": {"a": 1}}, (set(), set()), id="no lists"),
        pytest.param({"queue_running": [[], [1], "ab", None, [2, "c"]]}, ({"c"}, set()), id="odd items"),
    ],
)
def test_queue_ids_are_read_leniently(queue: Any, ids: tuple[set[str], set[str]]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(queue)

    app = web.Application()
    app.router.add_get("/queue", answer)
    with serve(app) as server:
        assert ask(server.url, CALLS["queue"]) == ids


def test_classes_the_server_does_not_know_are_absent() -> None:
    asked = []

    async def info(request: web.Request) -> web.Response:
        asked.append(request.match_info["name"])
        known = {"A b/ü": {"input": {}}, "odd": []}
        name = request.match_info["name"]
        return web.json_response({name: known[name]} if name in known else {})

    app = web.Application()
    app.router.add_get("/object_info/{name}", info)
    with serve(app) as server:
        assert get_object_info(server.url, ["A b/ü", "NoSuch", "odd"]) == {"A b/ü": {"input": {}}}
    assert asked == ["A b/ü", "NoSuch", "odd"]


@pytest.mark.parametrize("answer", ["html", "error", "list", "truncated", "reset", "hang", "bytes"])
def test_an_upload_that_is_not_taken_is_our_error(answer: str, tmp_path: Path) -> None:
    source = tmp_path / "input.png"
    source.write_bytes(b"pixels")
    with nonsense_server(answer) as server, pytest.raises((ServiceError, TransferError)):
        ask(
            server.url,
            lambda client: client.upload(source, subfolder="x", name="input.png"),
            timeout_s=patience_s(answer),
        )


@pytest.mark.parametrize(
    ("status", "stored", "words"),
    [
        pytest.param(200, {"name": "input (1).png"}, "under another name", id="renamed"),
        pytest.param(413, {}, "refuses uploads as large", id="too large"),
    ],
)
def test_a_refused_upload_says_why(status: int, stored: dict[str, str], words: str, tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(stored, status=status)

    app = web.Application()
    app.router.add_post("/upload/image", answer)
    source = tmp_path / "input.png"
    source.write_bytes(b"pixels")
    with serve(app) as server, pytest.raises(TransferError, match=words):
        ask(server.url, lambda client: client.upload(source, subfolder="x", name="input.png"))


REFERENCE = {"filename": "ä &?.png", "subfolder": "a/b", "type": "output"}


def test_a_download_arrives_whole_with_its_hash(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    seen = []

    async def view(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        return web.Response(body=data)

    app = web.Application()
    app.router.add_get("/view", view)
    target = tmp_path / "out.png"
    with serve(app) as server:
        size, sha256 = ask(server.url, lambda client: client.download(REFERENCE, target))
    assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert target.read_bytes() == data
    assert seen == [REFERENCE]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param("truncated", UnreachableError, id="cut"),
        pytest.param("hang", UnreachableError, id="silent"),
        pytest.param("reset", UnreachableError, id="reset"),
        pytest.param("error", TransferError, id="HTTP 500"),
    ],
)
def test_a_cut_download_leaves_no_file(answer: str, error: type[Exception], tmp_path: Path) -> None:
    with nonsense_server(answer) as server, pytest.raises(error):
        ask(
            server.url,
            lambda client: client.download(REFERENCE, tmp_path / "out.png"),
            timeout_s=patience_s(answer),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_download_into_no_folder_is_a_disk_error_and_no_network_error(tmp_path: Path) -> None:
    with nonsense_server("html") as server, pytest.raises(FileNotFoundError):
        ask(server.url, lambda client: client.download(REFERENCE, tmp_path / "gone" / "out.png"))


@pytest.mark.parametrize("line", ["refused", "html", "reset"])
def test_no_websocket_is_a_disconnection(line: str) -> None:
    with nonsense_server("html", line=line) as server:
        heard = listen(server.url, count=2)
    assert heard == [Message("disconnected", {"failures": 1}), Message("disconnected", {"failures": 2})]


def test_wrong_frames_are_skipped() -> None:
    with nonsense_server("html", line="nonsense") as server:
        heard = listen(server.url, count=6)
    assert [message.type for message in heard] == ["connected", "executing", "executing", "status", "progress", "good"]
    assert [dict(message.data) for message in heard[:4]] == [{}, {}, {}, {}]


@pytest.mark.parametrize("line", ["closing", "broken"])
def test_a_line_that_closes_at_once_is_tried_ever_more_slowly(line: str) -> None:
    with nonsense_server("html", line=line) as server:
        heard = listen(server.url, count=6)
    assert [message.type for message in heard] == ["connected", "disconnected"] * 3
    assert [message.data.get("failures") for message in heard[1::2]] == [1, 2, 3]


def test_another_prompt_is_never_interrupted() -> None:
    posted = []

    async def queue(request: web.Request) -> web.Response:
        return web.json_response({"queue_running": [[0, "other"]], "queue_pending": [[1, "mine"]]})

    async def interrupt(request: web.Request) -> web.Response:
        posted.append(json.loads(await request.text()))
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/queue", queue)
    app.router.add_post("/interrupt", interrupt)
    with serve(app) as server:
        ask(server.url, lambda client: client.interrupt(["mine"]))
        ask(server.url, lambda client: client.interrupt(["other"]))
    assert posted == [{"prompt_id": "other"}]


def test_a_port_that_takes_and_never_speaks_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UnreachableError):
            get_json(url, "/system_stats", timeout_s=0.2)
        with pytest.raises(UnreachableError):
            ask(url, CALLS["queue"], timeout_s=0.2)
