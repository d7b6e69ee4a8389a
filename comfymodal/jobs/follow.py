"""Queue a job's prompts ahead, follow them to their end, and keep what each leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from comfymodal.comfyui.ask import UnreachableError
from comfymodal.comfyui.client import ComfyClient, Message
from comfymodal.comfyui.outputs import read_history
from comfymodal.comfyui.refusals import explain_node_error, explain_refusal
from comfymodal.errors import BudgetReachedError, ComfymodalError, EngineDiedError, RunFailedError
from comfymodal.jobs.contract import Engine, Place
from comfymodal.jobs.gauge import LoadClock, MemoryGauge
from comfymodal.jobs.keep import Keeper, title_of
from comfymodal.jobs.manifest import Manifest

QUEUE_AHEAD = 8
"""Enough that the server never waits for us, few enough that a stop takes little off its queue."""

TICK_S = 0.25
POLL_WHEN_SILENT_S = 2.0
POLL_ANYWAY_S = 10.0
GONE_AFTER_S = 5.0
"""A server that refuses connections this long is dead; a restart of its network is shorter."""

LOST_AFTER_S = 1.0

STOP_PATIENCE_S = 60.0
"""An interrupt takes effect at the next step or node; loading a large model is one node."""

T = TypeVar("T")


@dataclass(slots=True)
class Posted:
    """A prompt the server has."""

    index: int
    prompt_id: str
    graph: Mapping[str, Any]
    queued_at: float
    node_errors: Mapping[str, Any]
    started_at: float | None = None
    started_mono: float | None = None
    moved_mono: float | None = None
    """When it last showed a sign of life."""
    node_id: str = ""
    done: set[str] = field(default_factory=set)
    absent_since: float | None = None
    load_clock: LoadClock = field(default_factory=LoadClock)


@dataclass(slots=True)
class Follower:
    """One job's conversation with one server."""

    job: Mapping[str, Any]
    place: Place
    engine: Engine
    client: ComfyClient
    manifest: Manifest
    facts: dict[str, Any] = field(default_factory=dict)
    """The engine's; what is measured of it on the way is put there."""
    posted: dict[str, Posted] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    is_stopping: bool = False
    is_late: bool = False
    stopping_since: float = 0.0
    heard_at: float = 0.0
    polled_at: float = 0.0
    given_up: ComfymodalError | None = None
    kept: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    gauge: MemoryGauge = field(init=False)

    def __post_init__(self) -> None:
        self.gauge = MemoryGauge(self.client, self.facts, self._is_executing)

    async def follow(self) -> None:
        """Return when every prompt has a result, or when a stop was asked for and has taken effect.

        Raises `EngineDiedError` or `UnreachableError` when the server is gone, `OSError` when the disk is full,
        `RunFailedError` when the job's time is up.
        """
        self.waiting.extend(i for i in range(len(self.job["prompts"])) if i not in self.manifest.results)
        if self.manifest.was_begun:
            await self._take_up()
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        listener = asyncio.create_task(self._listen(inbox))
        committer = asyncio.create_task(self._commit_kept())
        watchdog = asyncio.create_task(self._watch_over(asyncio.current_task()))
        self.gauge.start()
        try:
            # Connect before posting, or the first events are lost; a server without a WebSocket is polled.
            self.heard_at = self.polled_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await self._handle(await asyncio.wait_for(inbox.get(), GONE_AFTER_S))
            while self.waiting or self.posted:
                await self._obey()
                await self._post_ahead()
                await self._hear(inbox)
                if self._is_poll_due():
                    await self._poll()
            self.kept.put_nowait(None)
            await committer
        except asyncio.CancelledError:
            if self.given_up is None:
                raise
            raise self.given_up from None
        finally:
            await self.gauge.close()
            for task in (listener, committer, watchdog):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self.is_late:
            raise self._too_late()

    def _is_executing(self) -> bool:
        return any(prompt.started_at is not None for prompt in self.posted.values())

    async def _listen(self, inbox: asyncio.Queue[Message]) -> None:
        async for message in self.client.messages():
            await inbox.put(message)

    async def _commit_kept(self) -> None:
        """Make finished prompts durable, then say so, while the next ones render: a volume takes about a second."""
        is_last = False
        while not is_last:
            taken = [await self.kept.get()]
            while not self.kept.empty():
                taken.append(self.kept.get_nowait())
            done = [event for event in taken if event is not None]
            is_last = len(done) < len(taken)
            if not done:
                continue
            # One that fails is made up for by the next, and the job's last one must succeed.
            with contextlib.suppress(ComfymodalError):
                await asyncio.to_thread(self.place.commit, "outputs")
            for event in done:
                self.place.emit(event)

    async def _hear(self, inbox: asyncio.Queue[Message]) -> None:
        if not self.posted:
            return
        try:
            message = await asyncio.wait_for(inbox.get(), TICK_S)
        except TimeoutError:
            return
        while True:
            await self._handle(message)
            if inbox.empty():
                return
            message = inbox.get_nowait()

    async def _handle(self, message: Message) -> None:
        self.heard_at = time.monotonic()
        if message.type == "disconnected":
            self._raise_if_dead()
            self.polled_at = 0.0
        elif message.type == "connected":
            self.polled_at = 0.0 if self.posted else self.polled_at
        elif prompt := self.posted.get(str(message.data.get("prompt_id"))):
            if message.type == "executing" and message.data.get("node") is None:
                # Only now is the history entry certain to be there; execution_success comes too early.
                await self._collect(prompt)
            else:
                self._report(prompt, message)

    def _report(self, prompt: Posted, message: Message) -> None:
        data = message.data
        prompt.moved_mono = time.monotonic()
        if prompt.started_at is None and message.type in ("execution_start", "executing", "progress"):
            prompt.started_at, prompt.started_mono = time.time(), prompt.moved_mono
            prompt.load_clock.enter(None, prompt.moved_mono)
            self.place.emit({"type": "prompt_started", "prompt": prompt.index})
        if message.type == "execution_cached":
            cached = data.get("nodes")
            prompt.done.update(str(node) for node in (cached if isinstance(cached, list) else ()))
        elif message.type == "executed":
            prompt.done.add(str(data.get("display_node") or data.get("node")))
        elif message.type == "executing":
            node_id = str(data.get("display_node") or data.get("node"))
            self.place.emit(
                {
                    "type": "node",
                    "prompt": prompt.index,
                    "node_id": node_id,
                    "title": title_of(prompt.graph, node_id),
                    "done": len(prompt.done),
                    "total": len(prompt.graph),
                }
            )
            prompt.done.add(node_id)
            prompt.node_id = node_id
            prompt.load_clock.enter(str(prompt.graph.get(node_id, {}).get("class_type")), prompt.moved_mono)
        elif message.type == "progress":
            value, total = _number(data.get("value")), _number(data.get("max"))
            step = {"value": value, "max": total, "node_id": str(data.get("node"))}
            self.place.emit({"type": "step", "prompt": prompt.index, **step})

    async def _post_ahead(self) -> None:
        while self.waiting and len(self.posted) < QUEUE_AHEAD:
            index = self.waiting.popleft()
            prompt = self.job["prompts"][index]
            if self.job.get("collect_only"):
                self._finish(index, "lost", error=self._lost(prompt["prompt_id"]))
                continue
            await self._post(index, prompt)
            # A thousand refusals in a row must not keep a stop waiting.
            await self._obey()

    async def _post(self, index: int, prompt: Mapping[str, Any]) -> None:
        attempts = 0

        async def post() -> Any:
            nonlocal attempts
            attempts += 1
            # A connection that broke after the server took the prompt must not make it run twice.
            if attempts > 1 and await self._is_known(prompt["prompt_id"]):
                return None
            return await self.client.post_prompt(prompt["prompt_id"], prompt["graph"], prompt.get("extra_data") or {})

        queued_at = time.time()
        reply = await self._patiently(post)
        node_errors = reply.node_errors if reply else {}
        if reply and (reply.status != 200 or (node_errors and not self.job.get("allow_partial"))):
            refusal = explain_refusal(reply.body, prompt["graph"])
            if reply.status == 200:
                # The server queued the branches that are valid and would say nothing of the others.
                refusal.hint = f"{refusal.hint or ''} (--allow-partial renders the rest)".strip()
                await self._withdraw([prompt["prompt_id"]])
            self._finish(index, "refused", error=refusal)
            return
        self.posted[prompt["prompt_id"]] = Posted(index, prompt["prompt_id"], prompt["graph"], queued_at, node_errors)
        self.place.emit({"type": "prompt_queued", "prompt": index, "total": len(self.job["prompts"])})

    async def _take_up(self) -> None:
        """Find prompts that an earlier attempt of this job posted."""
        for index in list(self.waiting):
            prompt = self.job["prompts"][index]
            if await self._is_known(prompt["prompt_id"]):
                self.waiting.remove(index)
                self.posted[prompt["prompt_id"]] = Posted(index, prompt["prompt_id"], prompt["graph"], time.time(), {})
                self.polled_at = 0.0

    async def _is_known(self, prompt_id: str) -> bool:
        # Queue first: a prompt that finishes in between is then found in the history.
        running, pending = await self.client.queue()
        return prompt_id in running or prompt_id in pending or await self.client.history(prompt_id) is not None

    def _is_poll_due(self) -> bool:
        now = time.monotonic()
        if self.is_stopping:
            return now - self.polled_at > TICK_S
        silent = now - max(self.heard_at, self.polled_at) > POLL_WHEN_SILENT_S
        return self.polled_at == 0.0 or silent or now - self.polled_at > POLL_ANYWAY_S

    async def _poll(self) -> None:
        """The safety net: what the server's queue and history say, whatever the WebSocket told or lost."""
        self.polled_at = time.monotonic()
        running, pending = await self._patiently(self.client.queue)
        for prompt in list(self.posted.values()):
            if prompt.prompt_id in running or prompt.prompt_id in pending:
                prompt.absent_since = None
            elif await self._patiently(partial(self.client.history, prompt.prompt_id)) is not None:
                await self._collect(prompt)
            else:
                self._note_absence(prompt)

    def _note_absence(self, prompt: Posted) -> None:
        # For a moment it can be on its way from the queue to the history; for longer, it is neither.
        now = time.monotonic()
        prompt.absent_since = prompt.absent_since or now
        if self.is_stopping:
            self._finish_posted(prompt, "cancelled")
        elif now - prompt.absent_since > LOST_AFTER_S:
            self._raise_if_dead()
            self._finish_posted(prompt, "lost", error=self._lost(prompt.prompt_id))

    async def _collect(self, prompt: Posted) -> None:
        self.gauge.look_now()
        prompt.load_clock.pause(time.monotonic())
        entry = await self._patiently(partial(self.client.history, prompt.prompt_id))
        if entry is None:
            self.polled_at = 0.0
            return
        self.place.emit({"type": "prompt_saving", "prompt": prompt.index})
        finished = read_history(entry)
        keeper = Keeper(self.engine, self.client, self.manifest.folder, self._patiently)
        outputs, error = await keeper.keep(
            finished.files, prompt=prompt.index, graph=prompt.graph, with_temporary=bool(self.job.get("keep_temporary"))
        )
        status = "failed" if error else finished.ending
        if finished.error is not None:
            node_id = str(finished.error.get("node_id") or "?")
            error = explain_node_error(finished.error, title_of(prompt.graph, node_id))
        elif prompt.node_errors and error is None:
            error = explain_refusal({"node_errors": prompt.node_errors}, prompt.graph)
        texts = [
            {"node_id": text.node_id, "title": title_of(prompt.graph, text.node_id), "text": text.text}
            for text in finished.texts
        ]
        self._finish_posted(prompt, status, error=error, outputs=outputs, texts=texts, is_cached=finished.is_cached)

    async def _obey(self) -> None:
        if not self.is_stopping:
            self.is_late = self.place.deadline is not None and time.time() > self.place.deadline
            if self.is_late or self.place.control() is not None:
                self.is_stopping, self.stopping_since = True, time.monotonic()
                self.waiting.clear()
                self.place.emit({"type": "phase", "phase": "stopping"})
        if self.is_stopping and self.posted:
            await self._withdraw(list(self.posted))
            if time.monotonic() - self.stopping_since > STOP_PATIENCE_S:
                for prompt in list(self.posted.values()):
                    self._finish_posted(prompt, "cancelled")

    async def _withdraw(self, prompt_ids: list[str]) -> None:
        with contextlib.suppress(UnreachableError):
            await self.client.dequeue(prompt_ids)
            await self.client.interrupt(prompt_ids)

    def _finish_posted(self, prompt: Posted, status: str, **result: Any) -> None:
        del self.posted[prompt.prompt_id]
        now = time.monotonic()
        seconds = now - prompt.started_mono if prompt.started_mono is not None else 0.0
        times: dict[str, Any] = {
            "queued_at": prompt.queued_at,
            "started_at": prompt.started_at,
            "load_s": prompt.load_clock.read(now),
        }
        self._finish(prompt.index, status, seconds=seconds, **times, **result)

    def _finish(self, index: int, status: str, *, error: ComfymodalError | None = None, **result: Any) -> None:
        complete = {
            "index": index,
            "prompt_id": self.job["prompts"][index]["prompt_id"],
            "status": status,
            "is_cached": False,
            "outputs": [],
            "texts": [],
            "queued_at": None,
            "started_at": None,
            "ended_at": time.time(),
            "seconds": 0.0,
            "load_s": None,
            "error": error.to_dict() if error else None,
            **result,
        }
        self.manifest.add(complete)
        outputs = len(complete["outputs"])
        self.kept.put_nowait({"type": "prompt_done", "prompt": index, "status": status, "outputs": outputs})

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the server may only have lost its network for a moment."""
        first_failure: float | None = None
        while True:
            try:
                return await ask()
            except UnreachableError:
                self._raise_if_dead()
                now = time.monotonic()
                first_failure = first_failure or now
                if now - first_failure > GONE_AFTER_S:
                    raise
                await asyncio.sleep(TICK_S)

    def _lost(self, prompt_id: str) -> EngineDiedError:
        return EngineDiedError(
            f"the server no longer knows prompt {prompt_id}: it was restarted, or someone cleared its queue",
            hint=f"render again: comfymodal runs again {self.job['run_id']}",
        )

    async def _watch_over(self, task: asyncio.Task[Any] | None) -> None:
        """End a job that no longer gets on, also while it waits for an answer of a server that hangs."""
        while self.given_up is None:
            await asyncio.sleep(TICK_S)
            try:
                self._raise_if_stalled()
                deadline = self.place.deadline
                if deadline is not None and time.time() > deadline + STOP_PATIENCE_S:
                    raise self._too_late()
            except ComfymodalError as exc:
                self.given_up = exc
                if task is not None:
                    task.cancel()

    def _too_late(self) -> ComfymodalError:
        again = f"comfymodal runs again {self.job['run_id']}"
        if self.job.get("is_budget_deadline"):
            return BudgetReachedError("the run's budget was reached", hint=f"allow more (--max-cost), then: {again}")
        return RunFailedError("the run's time limit was reached", hint=f"raise the limit, then: {again}")

    def _raise_if_stalled(self) -> None:
        """A node that shows no sign of life is given up: on a rented GPU it would be paid for until the timeout."""
        limit_s = float(self.job.get("stall_s") or 0)
        for prompt in self.posted.values() if limit_s else ():
            if prompt.moved_mono is not None and time.monotonic() - prompt.moved_mono > limit_s:
                raise EngineDiedError(
                    f"node {prompt.node_id} ({title_of(prompt.graph, prompt.node_id)}) showed no sign of life for "
                    f"{limit_s:.0f} s (comfyui.stall_timeout)",
                    hint="if it only takes long, raise comfyui.stall_timeout",
                )

    def _raise_if_dead(self) -> None:
        if (death := self.engine.death()) is not None:
            raise EngineDiedError(death, hint=f"render again: comfymodal runs again {self.job['run_id']}")


def _number(value: object) -> float:
    # What custom nodes report as progress is anything at all; 0 of 0 shows no bar.
    return value if isinstance(value, int | float) and math.isfinite(value) else 0
