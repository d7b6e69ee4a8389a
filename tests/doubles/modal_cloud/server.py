"""The control plane's doors: gRPC for the client on a port, for each container on a socket of its own; and HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from modal_proto.api_grpc import ModalClientBase

from tests.doubles.modal_cloud.cloud import CALLER, CLIENT, Cloud, Container, refuse
from tests.doubles.modal_cloud.protobuf import Message, MessageToDict

LONGEST_VALUE = 20_000
HOST = "127.0.0.1"

Answer = Callable[[str, Stream[Message, Message]], Awaitable[None]]


class Rpcs:
    """Answers requests with what the service objects offer; everything else is UNIMPLEMENTED."""

    def __init__(self, cloud: Cloud, services: list[object]) -> None:
        self._cloud = cloud
        self._handlers = {
            name: getattr(service, name) for service in services for name in dir(service) if name[0].isupper()
        }
        self._lost: dict[str, Message] = {}
        self._journal = (cloud.folder / "requests.jsonl").open("a")

    def close(self) -> None:
        self._journal.close()

    def servicer(self, caller: str) -> ModalClientBase:
        """The whole service as one caller has it."""

        async def answer(name: str, stream: Stream[Message, Message]) -> None:
            CALLER.set(caller)
            await self._answer(name, stream, caller)

        methods = {name: method(name, answer) for name in ModalClientBase.__abstractmethods__}
        made = type("Servicer", (ModalClientBase,), methods)()
        assert isinstance(made, ModalClientBase)
        return made

    async def _answer(self, name: str, stream: Stream[Message, Message], caller: str) -> None:
        request = await stream.recv_message()
        assert request is not None
        if caller == CLIENT:
            self._check_token(stream)
        self._record(name, request, caller)
        self._fail_if_told(name)
        handler = self._handlers.get(name) or refuse(Status.UNIMPLEMENTED, f"The double does not know {name}.")
        # A repeated request has the key of the first one and takes effect once.
        metadata: Mapping[str, Any] = stream.metadata or {}
        key = str(metadata.get("x-idempotency-key"))
        if (known := self._lost.get(key)) is not None:
            self._lose_if_told(name, key, known)
            await stream.send_message(known)
            return
        found = handler(request)
        if inspect.isasyncgen(found):
            async for message in found:
                await stream.send_message(message)
            return
        message = await found
        self._lose_if_told(name, key, message)
        await stream.send_message(message)

    def _check_token(self, stream: Stream[Message, Message]) -> None:
        metadata: Mapping[str, Any] = stream.metadata or {}
        given = metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")
        if given != (self._cloud.token_id, self._cloud.token_secret):
            refuse(Status.UNAUTHENTICATED, "Token ID or secret is invalid.")

    def _record(self, name: str, request: Message, caller: str) -> None:
        body = shortened(MessageToDict(request, preserving_proto_field_name=True))
        entry = {"rpc": name, "at": time.time(), "caller": caller, "body": body}
        self._cloud.requests.append(entry)
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()

    def _fail_if_told(self, name: str) -> None:
        if statuses := self._cloud.faults.failing.get(name):
            raise GRPCError(statuses.pop(0), "The double was told to fail.")

    def _lose_if_told(self, name: str, key: str, message: Message) -> None:
        left = self._cloud.faults.losing.get(name, 0)
        if left > 0:
            self._cloud.faults.losing[name] = left - 1
            self._lost[key] = message
            refuse(Status.UNAVAILABLE, "The double was told to lose this answer.")


class Doors:
    """Where the service is offered. The client's door can be closed for a while; containers do not notice."""

    def __init__(self, rpcs: Rpcs, sockets: Path) -> None:
        self._rpcs = rpcs
        self._sockets = sockets
        self._client: DroppingServer | None = None
        self._containers: dict[str, Server] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def open(self) -> None:
        self._client = DroppingServer([self._rpcs.servicer(CLIENT)])
        await self._client.start(HOST, self.port)
        self.port = self._client.port()

    async def go_away(self, seconds: float) -> None:
        """Drop the client's connections and accept none until the time is over."""
        assert self._client is not None
        self._client.drop()
        await self._client.wait_closed()
        await asyncio.sleep(seconds)
        await self.open()

    async def open_for(self, container: Container) -> str:
        path = self._sockets / container.task_id[-12:]
        server = Server([self._rpcs.servicer(container.task_id)])
        await server.start(path=str(path))
        self._containers[container.task_id] = server
        return f"unix://{path}"

    def close_for(self, container: Container) -> None:
        if server := self._containers.pop(container.task_id, None):
            server.close()

    async def close(self) -> None:
        for server in self._containers.values():
            server.close()
        if self._client is not None:
            self._client.drop()
            await self._client.wait_closed()


class DroppingServer(Server):
    """A server that can hang up."""

    def __init__(self, handlers: list[ModalClientBase]) -> None:
        super().__init__(handlers)
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        self._protocols.append(made)
        return made

    def port(self) -> int:
        assert self._server is not None
        sockets = self._server.sockets  # type: ignore[attr-defined]
        found = sockets[0].getsockname()[1]
        assert isinstance(found, int)
        return found

    def drop(self) -> None:
        self.close()
        for protocol in self._protocols:
            transport = getattr(getattr(protocol, "connection", None), "_transport", None)
            if transport is not None:
                transport.abort()
        self._protocols = []


def method(name: str, answer: Answer) -> Callable[..., Awaitable[None]]:
    async def rpc(self: object, stream: Stream[Message, Message]) -> None:
        await answer(name, stream)

    return rpc


def shortened(value: Any) -> Any:
    """The same without the bulk of long texts: file contents and payloads are not worth keeping twice."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return value[:LONGEST_VALUE] + "…"
    return value
