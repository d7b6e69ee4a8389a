"""HTTP: blobs and blocks for the client and containers, and what tests use to look inside and to make faults."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web
from grpclib import Status

from tests.doubles.modal_cloud.cloud import DONE, Cloud, Container
from tests.doubles.modal_cloud.files import write_whole
from tests.doubles.modal_cloud.rpc_containers import facts
from tests.doubles.modal_cloud.rpc_mounts import blob, stored
from tests.doubles.modal_cloud.scheduler import GRACE_S, Scheduler

PIECE_BYTES = 64 * 1024

GoAway = Callable[[float], Awaitable[None]]


class Control:
    def __init__(self, cloud: Cloud, scheduler: Scheduler, go_away: GoAway) -> None:
        self._cloud = cloud
        self._scheduler = scheduler
        self._go_away = go_away
        self._tasks: set[asyncio.Future[None]] = set()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_put("/blob/{id}", self._put_blob)
        app.router.add_get("/blob/{id}", self._get_blob)
        app.router.add_put("/block/{name}", self._put_block)
        app.router.add_get("/read/{name}", self._read)
        app.router.add_get("/containers", self._containers)
        app.router.add_get("/requests", self._requests)
        app.router.add_get("/volumes", self._volumes)
        app.router.add_post("/control", self._control)
        return app

    async def _put_blob(self, request: web.Request) -> web.Response:
        data = await request.read()
        write_whole(blob(self._cloud, request.match_info["id"]), data)
        return web.Response(headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        path = blob(self._cloud, request.match_info["id"])
        return web.FileResponse(path) if path.exists() else web.Response(status=404)

    async def _put_block(self, request: web.Request) -> web.Response:
        data = await request.read()
        name = request.match_info["name"]
        if hashlib.sha256(data).hexdigest() != name:
            return web.Response(status=400, text="not the block that was announced")
        write_whole(stored(self._cloud, name), data)
        return web.Response(text=name)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        start, end = int(request.query["start"]), int(request.query["end"])
        answer = web.StreamResponse(headers={"Content-Length": str(end - start)})
        await answer.prepare(request)
        with (self._cloud.folder / "reads" / request.match_info["name"]).open("rb") as file:
            file.seek(start)
            while (left := end - file.tell()) > 0:
                rate = self._cloud.faults.block_bytes_per_s
                piece = file.read(min(left, max(rate // 10, 1) if rate else PIECE_BYTES))
                try:
                    await answer.write(piece)
                except ConnectionResetError:
                    break  # who read was killed, or has enough
                if rate:
                    await asyncio.sleep(len(piece) / rate)
        return answer

    async def _containers(self, request: web.Request) -> web.Response:
        return web.json_response([facts(self._cloud, found) for found in self._cloud.containers.values()])

    async def _requests(self, request: web.Request) -> web.Response:
        rpc = request.query.get("rpc")
        return web.json_response([entry for entry in self._cloud.requests if rpc in (None, entry["rpc"])])

    async def _volumes(self, request: web.Request) -> web.Response:
        return web.json_response({one.name: str(one.folder) for one in self._cloud.volumes.values() if one.name})

    async def _control(self, request: web.Request) -> web.Response:
        body = await request.json()
        action = getattr(self, f"do_{body.pop('do', '')}", None)
        if action is None:
            return web.json_response({"error": "unknown action"}, status=400)
        action(**body)
        self._cloud.bell.ring()
        return web.json_response({})

    def do_go_away(self, seconds: float) -> None:
        task = asyncio.ensure_future(self._go_away(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def do_kill_container(self, task_id: str) -> None:
        process = self._alive(task_id).process
        if process is None:
            raise web.HTTPConflict(text=f"{task_id} has no process yet")
        process.kill()

    def do_preempt(self, task_id: str, grace_s: float = GRACE_S) -> None:
        self._scheduler.interrupt(self._alive(task_id), grace_s)

    def do_expire_results(self) -> None:
        """The results of all calls that are done are gone."""
        for call in self._cloud.calls.values():
            call.is_expired = call.is_expired or all(found.state == DONE for found in call.inputs)

    def do_forget_logs(self) -> None:
        self._cloud.logs.clear()

    def do_hold_inputs(self, on: bool) -> None:
        self._cloud.faults.is_holding_inputs = on

    def do_lose_answer(self, rpc: str, times: int = 1) -> None:
        self._cloud.faults.losing[rpc] = times

    def do_fail(self, rpc: str, status: str = "UNAVAILABLE", times: int = 1) -> None:
        self._cloud.faults.failing[rpc] = [Status[status]] * times

    def do_slow_blocks(self, bytes_per_s: int) -> None:
        """Volume blocks come at this rate; 0 for as fast as they can."""
        self._cloud.faults.block_bytes_per_s = bytes_per_s

    def do_bill(self, **settings: Any) -> None:
        """Set what the bill says, see `cloud.Bills`."""
        self._cloud.bills = replace(self._cloud.bills, **settings)

    def _alive(self, task_id: str) -> Container:
        found = self._cloud.containers.get(task_id)
        if found is None or not found.is_alive:
            raise web.HTTPNotFound(text=f"no such container: {task_id}")
        return found
