"""A job's HTTP and WebSocket traffic with a ComfyUI server; knows the protocol, decides nothing.

Facts about the protocol were measured on ComfyUI 0.3.64 and 0.3.75 and read in the sources up to 0.38.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from comfymodal.comfyui.ask import ANSWER_TIMEOUT_S, UnreachableError, parse_object, unexpected
from comfymodal.errors import TransferError

if TYPE_CHECKING:
    import aiohttp

CHUNK_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 256 << 20
RECONNECT_DELAYS_S = (0.05, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to a posted prompt: HTTP status and JSON body."""

    status: int
    body: Mapping[str, Any]

    @property
    def node_errors(self) -> Mapping[str, Any]:
        found = self.body.get("node_errors")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Message:
    """One text message of the WebSocket; `type` is `disconnected` or `connected` for the line itself."""

    type: str
    data: Mapping[str, Any]


class ComfyClient:
    """One client of one server. Use as an async context manager."""

    def __init__(self, url: str, *, client_id: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.url = url
        self.client_id = client_id
        self.timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ComfyClient:
        import aiohttp

        # No Origin header is ever sent: ComfyUI answers 403 when it does not match the host.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.timeout_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def post_prompt(self, prompt_id: str, graph: Mapping[str, Any], extra_data: Mapping[str, Any]) -> Reply:
        """Queue a prompt. A refusal is a `Reply` with status 400; raises `ServiceError` for anything unexpected."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id, "extra_data": dict(extra_data)}
        async with self._request("POST", "/prompt", json=body) as response:
            text = await _text_of(response)
            if response.status not in (200, 400):
                raise unexpected("POST /prompt", response.status, text)
            return Reply(response.status, parse_object(text, "POST /prompt"))

    async def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """The finished prompt's entry; None while it is queued, running or unknown: the server does not say which."""
        entry = (await self._get(f"/history/{prompt_id}")).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def queue(self) -> tuple[frozenset[str], frozenset[str]]:
        """Prompt ids that are (running, pending)."""
        body = await self._get("/queue")
        return _ids(body.get("queue_running")), _ids(body.get("queue_pending"))

    async def interrupt(self, prompt_ids: Collection[str]) -> None:
        """Stop the running prompt if it is one of these; never another's.

        Servers that predate the `prompt_id` argument stop whatever runs, so the queue is asked first.
        """
        running, _ = await self.queue()
        for prompt_id in running.intersection(prompt_ids):
            await self._post("/interrupt", {"prompt_id": prompt_id})

    async def dequeue(self, prompt_ids: Sequence[str]) -> None:
        """Take pending prompts off the queue; running ones are not touched by the server."""
        await self._post("/queue", {"delete": list(prompt_ids)})

    async def system_stats(self) -> Mapping[str, Any]:
        return await self._get("/system_stats")

    async def upload(self, source: Path, *, subfolder: str, name: str) -> None:
        """Put a file of any type under the server's input folder. Raises `TransferError` when it is refused."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("overwrite", "true")
        form.add_field("subfolder", subfolder)
        form.add_field("type", "input")
        with source.open("rb") as stream:
            form.add_field("image", stream, filename=name)
            timeout = aiohttp.ClientTimeout(total=None, sock_read=self.timeout_s)
            async with self._request("POST", "/upload/image", data=form, timeout=timeout) as response:
                text = await _text_of(response)
                if response.status == 413:
                    raise TransferError(
                        f"the server refuses uploads as large as {source.name} ({source.stat().st_size} bytes)",
                        hint="start ComfyUI with a larger --max-upload-size (MB)",
                    )
                if response.status != 200:
                    raise unexpected("POST /upload/image", response.status, text)
        stored = parse_object(text, "POST /upload/image")
        if stored.get("name") != name:
            raise TransferError(f"the server stored {subfolder}/{name} under another name: {stored.get('name')}")

    async def download(self, reference: Mapping[str, str], destination: Path) -> tuple[int, str]:
        """Copy one of the server's files to `destination`, whole or not at all; return (bytes, sha256).

        Raises `TransferError` when the server no longer has it.
        """
        import aiohttp

        wanted = {key: reference[key] for key in ("filename", "subfolder", "type")}
        query = urlencode(wanted, errors="surrogatepass")
        digest = hashlib.sha256()
        size = 0
        part = destination.with_name(destination.name + ".part")
        timeout = aiohttp.ClientTimeout(total=None, sock_read=self.timeout_s)
        try:
            async with self._request("GET", f"/view?{query}", timeout=timeout) as response:
                if response.status != 200:
                    raise TransferError(
                        f"the server no longer has {reference['type']}/{reference['subfolder']}/{reference['filename']}"
                        f" (HTTP {response.status})",
                        hint="change an input, or restart ComfyUI: a cached result names the file it wrote long ago",
                    )
                with part.open("wb") as stream:
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        digest.update(chunk)
                        stream.write(chunk)
                        size += len(chunk)
            os.replace(part, destination)
        finally:
            part.unlink(missing_ok=True)
        return size, digest.hexdigest()

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the server's text messages for ever, reconnecting with the same client id.

        What was said while the line was down is not repeated: after each `connected` the reader must ask
        `queue` and `history`. Never raises for network reasons; the reader decides when a server is dead.
        """
        import asyncio  # 30 ms that the operator's side, which only uses `get_json`, need not pay

        failures = 0
        while True:
            try:
                async for message in self._one_connection():
                    # ComfyUI speaks at once: a line that opens and says nothing is no success.
                    failures = failures if message.type == "connected" else 0
                    yield message
            except UnreachableError:
                pass
            failures += 1
            yield Message("disconnected", {"failures": failures})
            await asyncio.sleep(RECONNECT_DELAYS_S[min(failures, len(RECONNECT_DELAYS_S)) - 1])

    async def _one_connection(self) -> AsyncIterator[Message]:
        import aiohttp

        session = self._require_session()
        try:
            async with session.ws_connect(
                f"{self.url}/ws?{urlencode({'clientId': self.client_id})}",
                heartbeat=20.0,
                max_msg_size=MAX_MESSAGE_BYTES,
                # A proxy that cannot compress closes a compressed line at once; there is little to gain here.
                compress=0,
            ) as line:
                yield Message("connected", {})
                async for frame in line:
                    if frame.type == aiohttp.WSMsgType.TEXT and (message := _parse_message(frame.data)):
                        yield message
        except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as exc:
            raise UnreachableError(f"WebSocket to {self.url}: {exc or type(exc).__name__}") from exc

    async def _get(self, path: str) -> Mapping[str, Any]:
        async with self._request("GET", path) as response:
            text = await _text_of(response)
            if response.status != 200:
                raise unexpected(f"GET {path}", response.status, text)
            return parse_object(text, f"GET {path}")

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        async with self._request("POST", path, json=body) as response:
            if response.status != 200:
                raise unexpected(f"POST {path}", response.status, await _text_of(response))

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        try:
            async with self._require_session().request(method, self.url + path, **options) as response:
                yield response
        except (TimeoutError, aiohttp.ClientError, ConnectionError, UnicodeError) as exc:
            raise UnreachableError(
                f"{method} {self.url}{path.partition('?')[0]}: {exc or type(exc).__name__}",
                hint="is ComfyUI still running there?",
            ) from exc

    def _require_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use ComfyClient as an async context manager")
        return self._session


async def _text_of(response: aiohttp.ClientResponse) -> str:
    # `response.text()` raises what no caller expects for bytes that are no UTF-8.
    return (await response.read()).decode("utf-8", "replace")


def _parse_message(text: str) -> Message | None:
    # progress_state repeats every node at every step (O(n^2) bytes on a big graph) and says nothing
    # that executing and progress do not: skip it before parsing.
    if text.startswith('{"type": "progress_state"'):
        return None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        return None
    data = body.get("data")
    return Message(body["type"], data if isinstance(data, dict) else {})


def _ids(items: object) -> frozenset[str]:
    # An item is [number, prompt_id, prompt, extra_data, outputs]; the list is in heap order, not execution order.
    if not isinstance(items, list):
        return frozenset()
    return frozenset(str(item[1]) for item in items if isinstance(item, list) and len(item) > 1)
