"""ComfyUI's protocol without ComfyUI: queue, history, files and WebSocket as 0.3.75 speaks them, with knobs for faults.

Prompts do nothing: each takes `prompt_s`, then leaves what `outputs` says. The order of what is said, and what can be
asked when, is that of `facts/comfyui.md` §3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.doubles.serving import Served, serve

PIXELS = b"\x89PNG\r\n\x1a\n" + b"pixels" * 50


def image_outputs(number: int) -> dict[str, Any]:
    return {"9": {"images": [{"filename": f"img_{number:05d}_.png", "subfolder": "", "type": "output"}]}}


@dataclass
class ComfyServer:
    """What the server is told to do, and what it was asked. Read its state from a test when nothing is under way."""

    prompt_s: float = 0.0
    steps: int = 2
    outputs: Callable[[int], dict[str, Any]] = image_outputs
    history_delay_s: float = 0.0
    """An entry appears this much later than `executing null` says."""
    is_silent: bool = False
    """`executing null` is never sent."""
    done_messages: int = 1
    """How often `executing null` is sent."""
    extra_messages: tuple[str, ...] = ()
    """Said before each prompt ends, on the line of its client."""
    vanishing: frozenset[int] = frozenset()
    """Prompts, by number, that leave the queue without a trace, as when somebody clears it."""
    node_errors: Mapping[str, Any] = field(default_factory=dict)
    """Said with a 200 to every prompt."""
    refusal: Mapping[str, Any] | None = None
    """Said with a 400 to every prompt."""
    failing: Mapping[int, list[Any]] = field(default_factory=dict)
    """By number: the last message of a prompt that ends with `status_str: error`."""
    post_status: int | None = None
    """Answer every post of a prompt with this status and no JSON."""
    view_status: int = 200
    view_cuts: int = 0
    """How many downloads are cut in the middle before one gets through."""
    ws_delay_s: float = 0.0
    ws_status: int | None = None
    answer_delay_s: float = 0.0
    """Every answer takes so long, as of a process that is stopped."""
    vram_total: int = 0
    """Bytes; of a GPU, where there are any."""
    vram_free: Callable[[int], int] = lambda asked: 0
    """What is free, by how often it was asked before."""
    stats_delay_s: float = 0.0
    """Beside `answer_delay_s`, before every answer on the device but the first."""
    nonsense_stats: Any = None
    """Said of the device instead, but for the first time."""
    others_ahead: int = 0
    """Prompts of somebody else that are in the queue before ours, 10 ms each."""

    posted: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    running: list[Any] = field(default_factory=list)
    pending: list[list[Any]] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    interrupts: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    viewed: list[dict[str, str]] = field(default_factory=list)
    stats_asked: int = 0
    most_queued: int = 0
    lines: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    connections: int = 0
    _interrupted: set[str] = field(default_factory=set)
    _generation: int = 0
    _wake: asyncio.Event | None = None

    def restart(self) -> None:
        """Forget everything and cut every line, as a restarted process does. To be run on the server's loop."""
        self._generation += 1
        self.running, self.pending, self.history = [], [], {}
        for line in self.lines.values():
            with contextlib.suppress(AttributeError):
                line._req.transport.abort()  # type: ignore[union-attr]
        self.lines = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26, middlewares=[self._delay])
        app.router.add_get("/ws", self._ws)
        app.router.add_post("/prompt", self._post_prompt)
        app.router.add_get("/queue", self._queue)
        app.router.add_post("/queue", self._change_queue)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_post("/interrupt", self._interrupt)
        app.router.add_get("/view", self._view)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_get("/system_stats", self._stats)
        app.cleanup_ctx.append(self._worker)
        return app

    @web.middleware
    async def _delay(self, request: web.Request, handler: Any) -> Any:
        await asyncio.sleep(self.answer_delay_s)
        return await handler(request)

    async def _worker(self, app: web.Application) -> Any:
        self._wake = asyncio.Event()
        for number in range(self.others_ahead):
            self.pending.append([number - self.others_ahead, f"other-{number}", {}, {"client_id": "other"}, []])
        self._wake.set()
        task = asyncio.create_task(self._work())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _work(self) -> None:
        assert self._wake is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.pending:
                item = min(self.pending)
                self.pending.remove(item)
                await self._execute(item, self._generation)

    async def _execute(self, item: list[Any], generation: int) -> None:
        number, prompt_id, graph, extra, _ = item
        client = extra.get("client_id")
        if number in self.vanishing:
            return
        self.running = [item]
        if client == "other":
            await asyncio.sleep(0.01)
            self.running = []
            return
        self.executed.append(prompt_id)
        await self._say(client, "execution_start", prompt_id=prompt_id)
        await self._say(client, "execution_cached", nodes=[], prompt_id=prompt_id)
        for node_id in graph:
            await self._say(client, "executing", node=node_id, display_node=node_id, prompt_id=prompt_id)
            for step in range(self.steps):
                await self._say(client, "progress", value=step + 1, max=self.steps, prompt_id=prompt_id, node=node_id)
                await asyncio.sleep(self.prompt_s / self.steps / len(graph))
                if prompt_id in self._interrupted or generation != self._generation:
                    break
        if generation == self._generation:
            await self._end(number, prompt_id, client)

    async def _end(self, number: int, prompt_id: str, client: str) -> None:
        last = self.failing.get(number)
        if prompt_id in self._interrupted:
            last = ["execution_interrupted", {"prompt_id": prompt_id, "node_id": "1"}]
        await self._say(client, *(last or ["execution_success"])[:1], prompt_id=prompt_id)
        for text in self.extra_messages:
            await self._say_text(client, text.replace("PROMPT", prompt_id))
        entry = {
            "outputs": {} if prompt_id in self._interrupted else self.outputs(number),
            "status": {
                "status_str": "error" if last else "success",
                "completed": not last,
                "messages": [["execution_start", {"prompt_id": prompt_id}], last or ["execution_success", {}]],
            },
        }
        # As in ComfyUI, where one lock guards both: a prompt is always in the queue or in the history.
        self.running = []
        if self.history_delay_s:
            asyncio.get_running_loop().call_later(self.history_delay_s, self.history.update, {prompt_id: entry})
        else:
            self.history[prompt_id] = entry
        for _ in range(0 if self.is_silent else self.done_messages):
            await self._say(client, "executing", node=None, prompt_id=prompt_id)

    async def _say(self, client: str, kind: str, **data: Any) -> None:
        await self._say_text(client, json.dumps({"type": kind, "data": data}))

    async def _say_text(self, client: str, text: str) -> None:
        line = self.lines.get(client)
        if line is not None:
            with contextlib.suppress(ConnectionError):
                await line.send_str(text)

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        await asyncio.sleep(self.ws_delay_s)
        if self.ws_status:
            return web.Response(status=self.ws_status)
        line = web.WebSocketResponse()
        await line.prepare(request)
        client = request.query["clientId"]
        self.lines[client] = line
        await line.send_str(json.dumps({"type": "status", "data": {"status": {}, "sid": client}}))
        async for _ in line:
            pass
        return line

    async def _post_prompt(self, request: web.Request) -> web.Response:
        assert self._wake is not None
        if self.post_status:
            return web.Response(status=self.post_status, text="no")
        body = await request.json()
        if self.refusal is not None:
            return web.json_response(self.refusal, status=400)
        number = len(self.posted)
        self.posted.append(body["prompt_id"])
        extra = {**body["extra_data"], "client_id": body["client_id"]}
        self.pending.append([number, body["prompt_id"], body["prompt"], extra, []])
        ours = [item for item in (*self.pending, *self.running) if item[3].get("client_id") != "other"]
        self.most_queued = max(self.most_queued, len(ours))
        self._wake.set()
        return web.json_response(
            {"prompt_id": body["prompt_id"], "number": number, "node_errors": dict(self.node_errors)}
        )

    async def _queue(self, request: web.Request) -> web.Response:
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def _change_queue(self, request: web.Request) -> web.Response:
        deleted = set((await request.json())["delete"])
        self.pending = [item for item in self.pending if item[1] not in deleted]
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _interrupt(self, request: web.Request) -> web.Response:
        prompt_id = (await request.json())["prompt_id"]
        self.interrupts.append(prompt_id)
        self._interrupted.add(prompt_id)
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        self.viewed.append(dict(request.query))
        if self.view_status != 200:
            return web.Response(status=self.view_status)
        if self.view_cuts > 0:
            self.view_cuts -= 1
            cut = web.StreamResponse(headers={"Content-Length": str(len(PIXELS))})
            await cut.prepare(request)
            await cut.write(PIXELS[:20])
            assert request.transport is not None
            request.transport.close()
            return cut
        return web.Response(body=PIXELS)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form["image"]
        assert isinstance(image, web.FileField)
        self.uploads[f"{form['subfolder']!s}/{image.filename}"] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": form["subfolder"], "type": "input"})

    async def _stats(self, request: web.Request) -> web.Response:
        system = {"comfyui_version": "0.3.75", "python_version": "3.11.7 (main)", "pytorch_version": "2.13.0+cpu"}
        device: Any = {"name": "cpu", "type": "cpu", "vram_total": 1}
        if self.vram_total:
            device = {"name": "cuda:0 NVIDIA L40S", "type": "cuda", "vram_total": self.vram_total}
            device["vram_free"] = self.vram_free(self.stats_asked)
        if self.stats_asked:
            await asyncio.sleep(self.stats_delay_s)
            device = device if self.nonsense_stats is None else self.nonsense_stats
        self.stats_asked += 1
        return web.json_response({"system": system, "devices": [device]})


@contextlib.contextmanager
def comfy_server(server: ComfyServer) -> Iterator[Served]:
    with serve(server.app()) as served:
        yield served
