"""Slack's Web API and its incoming webhooks, and a plain webhook, as far as comfymodal speaks to them.

Refuses what Slack refuses, with Slack's words: a foreign token, an unknown channel, blocks that are too long, a file of
another length than was announced, the name of a channel where its id is wanted. Faults are used up one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.doubles.serving import serve

TOKEN = "xoxb-000000000000-double"
HOOK = "/services/T000/B000/doubleSecret"
CHANNEL_ID = "C0DOUBLE01"
CHANNELS = ("#renders", "renders", CHANNEL_ID)

Fault = str | tuple[int, dict[str, str]]
"""`hang`, `cut`, `page` (HTML with 200), `list` (JSON, but no object), `broken` (half a JSON), `drip` (a byte now and
then), `redirect`; or a status with headers."""


@dataclass
class Slack:
    """`messages` are what channels show, `files` those that were shared, `documents` what the plain webhook got."""

    url: str = ""
    scopes: set[str] = field(default_factory=lambda: {"chat:write", "files:write"})
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    @property
    def hook(self) -> str:
        return f"{self.url}{HOOK}"

    @property
    def plain(self) -> str:
        return f"{self.url}/plain/doubleSecret"

    @property
    def texts(self) -> list[str]:
        return [str(message["text"]) for message in self.messages]


@contextlib.contextmanager
def slack() -> Iterator[Slack]:
    double = Slack()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", _Handler(double).answer)
    with serve(app) as served:
        double.url = served.url
        yield double


class _Handler:
    def __init__(self, double: Slack) -> None:
        self._double = double

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self._double.asked.append(request.path)
        fault = self._double.faults.pop(0) if self._double.faults else self._double.always
        if fault is not None:
            return await _fail(request, fault)
        if request.method != "POST":
            return web.json_response({"ok": False, "error": "method_not_allowed"}, status=405)
        if request.path.startswith("/api/"):
            return await self._method(request)
        if request.path.startswith("/upload/"):
            return await self._upload(request)
        return await (self._hook(request) if request.path.startswith("/services/") else self._plain(request))

    async def _method(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _no("invalid_auth")
        methods = {
            "/api/chat.postMessage": ("chat:write", self._post),
            "/api/files.getUploadURLExternal": ("files:write", self._place),
            "/api/files.completeUploadExternal": ("files:write", self._complete),
        }
        if request.path not in methods:
            return _no("unknown_method")
        scope, method = methods[request.path]
        if scope not in self._double.scopes:
            return _no("missing_scope")
        return method(await _arguments(request))

    def _post(self, given: dict[str, Any]) -> web.Response:
        if given.get("channel") not in CHANNELS:
            return _no("channel_not_found")
        if (wrong := wrong_message(given)) is not None:
            return _no(wrong)
        self._double.messages.append(given)
        return web.json_response({"ok": True, "channel": CHANNEL_ID, "ts": "1503435956.000247"})

    def _place(self, given: dict[str, Any]) -> web.Response:
        if not given.get("filename") or not str(given.get("length", "")).isdigit():
            return _no("invalid_arguments")
        file_id = f"F{len(self._double.pending):08}"
        self._double.pending[file_id] = {"name": given["filename"], "length": int(given["length"]), "data": None}
        return web.json_response({"ok": True, "upload_url": f"{self._double.url}/upload/{file_id}", "file_id": file_id})

    async def _upload(self, request: web.Request) -> web.Response:
        # The address is the permission; a token must not travel further than it has to.
        place = self._double.pending.get(request.path.rpartition("/")[2])
        data = await request.read()
        if place is None or "Authorization" in request.headers or len(data) != place["length"]:
            return web.Response(status=400, text="bad upload")
        place["data"] = data
        return web.Response(text=f"OK - {len(data)}")

    def _complete(self, given: dict[str, Any]) -> web.Response:
        if not str(given.get("channel_id", "")).startswith("C"):
            return _no("invalid_channel")
        places = [self._double.pending.pop(str(each["id"]), {}) for each in given["files"]]
        if not places or any(not place.get("data") for place in places):
            return _no("file_not_found")
        self._double.files += [
            {**place, "title": each["title"]} for place, each in zip(places, given["files"], strict=True)
        ]
        return web.json_response({"ok": True, "files": given["files"]})

    async def _hook(self, request: web.Request) -> web.Response:
        if request.path != HOOK:
            return web.Response(status=404, text="no_service")
        try:
            given = json.loads(await request.text())
        except ValueError:
            return web.Response(status=400, text="invalid_payload")
        if (wrong := wrong_message(given)) is not None:
            return web.Response(status=400, text=wrong)
        self._double.messages.append(given)
        return web.Response(text="ok")

    async def _plain(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return web.Response(status=415)
        self._double.documents.append(json.loads(await request.text()))
        return web.Response(status=204)


def wrong_message(given: dict[str, Any]) -> str | None:
    """Slack's word for a message that it refuses: limits of its block kit, and what opens a tag but is none."""
    blocks = given.get("blocks", [])
    if not given.get("text") and not blocks:
        return "no_text"
    if len(blocks) > 50 or len(json.dumps(blocks)) > 13_000 * 6:
        return "msg_blocks_too_long"
    for block in blocks:
        texts = [(block["text"], 3000)] if "text" in block else []
        texts += [(each, 2000) for each in (*block.get("fields", ()), *block.get("elements", ()))]
        if block["type"] not in ("section", "context") or len(block.get("fields", ())) > 10 or not texts:
            return "invalid_blocks"
        for text, most in texts:
            if text["type"] != "mrkdwn" or not 1 <= len(text["text"]) <= most:
                return "invalid_blocks"
            if re.search("[<>]|&(?!(?:amp|lt|gt);)", text["text"]):
                return "invalid_blocks"
    return None


async def _arguments(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        found = json.loads(await request.text())
        assert isinstance(found, dict)
        return found
    return {key: str(value) for key, value in (await request.post()).items()}


async def _fail(request: web.Request, fault: Fault) -> web.StreamResponse:
    if not isinstance(fault, str):
        return web.Response(status=fault[0], headers=fault[1], text="stumbled over doubleSecret")
    if fault == "hang":
        await asyncio.sleep(60)
    if fault in ("hang", "cut"):
        assert request.transport is not None
        request.transport.close()
    if fault == "drip":
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(600):
                await response.write(b" ")
                await asyncio.sleep(0.1)
        return response
    if fault == "redirect":
        return web.Response(status=307, headers={"Location": f"{request.url.origin()}/plain/elsewhere"})
    bodies = {"page": "<html>Log in to the hotel</html>", "list": "[1]", "broken": '{"ok": tr'}
    return web.Response(text=bodies.get(fault, ""))


def _no(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})
