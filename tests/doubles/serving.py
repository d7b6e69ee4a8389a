"""Runs an aiohttp application on a port of this machine, in a thread of its own, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. `do` runs a plain function on its loop and waits for the result."""

    url: str
    loop: asyncio.AbstractEventLoop

    def do(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@contextlib.contextmanager
def serve(app: web.Application) -> Iterator[Served]:
    """Serve `app` until the block ends; open connections are cut then."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    ready = threading.Event()
    ports: list[int] = []

    async def begin() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        ready.set()

    def live() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=live, name="double", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield Served(f"http://127.0.0.1:{ports[0]}", loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
