"""A server that answers everything wrongly, in one chosen way: what a client may meet behind any address."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import WSMsgType, web

from tests.doubles.serving import Served, serve

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _html(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>welcome</html>", content_type="text/html")


async def _error(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="500 Internal Server Error")


async def _list(request: web.Request) -> web.StreamResponse:
    return web.json_response([1, 2, 3])


async def _deep(request: web.Request) -> web.StreamResponse:
    return web.Response(text="[" * 200_000, content_type="application/json")


async def _bytes(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"system": "\xff\xfe', headers={"Content-Type": "application/json; charset=utf-8"})


async def _charset(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"e30=", headers={"Content-Type": "application/json; charset=base64"})


async def _gzip(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})


async def _empty(request: web.Request) -> web.StreamResponse:
    return web.Response(text="")


async def _truncated(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"system": {"comfyui_version": ')
    assert request.transport is not None
    request.transport.close()
    return response


async def _reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(600):
            await response.write(b" ")
            await asyncio.sleep(0.1)
    return response


async def _redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path_qs)


ANSWERS: dict[str, Answer] = {
    "html": _html,
    "error": _error,
    "list": _list,
    "deep": _deep,
    "bytes": _bytes,
    "charset": _charset,
    "gzip": _gzip,
    "empty": _empty,
    "truncated": _truncated,
    "reset": _reset,
    "hang": _hang,
    "drip": _drip,
    "redirect": _redirect,
}

FRAMES: tuple[str, ...] = (
    "",
    "hello",
    "[]",
    "null",
    "{}",
    '{"type": 5}',
    '{"type": "executing"}',
    '{"type": "executing", "data": [1]}',
    '{"type": "progress_state", "data": {"nodes": 7}}',
    '{"type": "status", "data": null}',
    "[" * 100_000,
    '{"type": "progress", "data": {"value": NaN}}',
)


async def _nonsense_line(request: web.Request) -> web.StreamResponse:
    """Wrong frames, wrong bytes, then one good message."""
    line = web.WebSocketResponse()
    await line.prepare(request)
    for frame in FRAMES:
        await line.send_str(frame)
    for binary in (b"", b"\x00", struct.pack(">II", 1, 9) + b"\xff", struct.pack(">II", 4, 2**31)):
        await line.send_bytes(binary)
    await line.send_str('{"type": "good", "data": {}}')
    async for _ in line:
        pass
    return line


async def _closing_line(request: web.Request) -> web.StreamResponse:
    line = web.WebSocketResponse()
    await line.prepare(request)
    await line.close()
    return line


async def _broken_line(request: web.Request) -> web.StreamResponse:
    """A text frame that is no UTF-8, and then one with a reserved opcode."""
    line = web.WebSocketResponse()
    await line.prepare(request)
    assert request.transport is not None
    request.transport.write(b"\x81\x02\xff\xfe" + b"\x8f\x00")
    async for message in line:
        if message.type is WSMsgType.ERROR:
            break
    return line


LINES: dict[str, Answer] = {
    "refused": _error,
    "html": _html,
    "reset": _reset,
    "nonsense": _nonsense_line,
    "closing": _closing_line,
    "broken": _broken_line,
}


@contextlib.contextmanager
def nonsense_server(answer: str, *, line: str = "refused") -> Iterator[Served]:
    """Answer every request with `ANSWERS[answer]`, and every WebSocket with `LINES[line]`."""
    app = web.Application()
    app.router.add_get("/ws", LINES[line])
    app.router.add_route("*", "/{path:.*}", ANSWERS[answer])
    with serve(app) as served:
        yield served
