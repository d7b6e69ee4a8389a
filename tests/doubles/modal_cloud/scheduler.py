"""Which container runs what, and when containers start and end. Decides; `containers.py` does."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import (
    BUSY,
    DONE,
    ENDED,
    IDLE,
    PENDING,
    RUNNING,
    STARTING,
    App,
    Call,
    Cloud,
    Container,
    Function,
    Input,
    new_id,
)

RUNNING_STATES = (api_pb2.APP_STATE_DEPLOYED, api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_DETACHED)
MOST_CONTAINERS = 8
SCALEDOWN_S = 60.0
TIMEOUT_S = 300.0
GRACE_S = 30.0
LONGEST_DELAY_S = 1.0
TICK_S = 0.1
LEAST_CORES, LEAST_GIB = 0.125, 0.125

FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
INTERNAL_FAILURE = api_pb2.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
TERMINATED = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
TIMEOUT = api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT


class Launcher(Protocol):
    """Starts containers. `start` returns when the process runs, and sees to it that `ended` is called when it ends."""

    async def start(self, container: Container, ended: Ended) -> None: ...


class Ended(Protocol):
    def __call__(self, container: Container, exit_code: int | None, reason: str = "") -> None: ...


class Scheduler:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, launcher: Launcher) -> None:
        """Look after everything until cancelled."""
        while True:
            for function in list(self._cloud.functions.values()):
                self._scale(function, launcher)
            for container in list(self._cloud.containers.values()):
                if container.is_alive:
                    self._watch(container)
            await self._cloud.bell.wait(TICK_S)

    def assign(self, container: Container) -> Input | None:
        """The next input of a container that asks for one; None while there is none."""
        if container.state == STARTING:
            container.started_at = time.time()
        if container.input is not None or self._cloud.faults.is_holding_inputs:
            return None
        if container.state != IDLE:
            container.state, container.idle_since = IDLE, time.time()
        found = next(iter(self._cloud.pending(container.function_id)), None)
        if found is not None:
            found.state, found.task_id, found.started_at = RUNNING, container.task_id, time.time()
            container.state, container.input = BUSY, found
            self._cloud.bell.ring()
        return found

    def put_output(self, container: Container, item: api_pb2.FunctionPutOutputsItem) -> None:
        """Take what a container made of its input; too late if the input is no longer its own."""
        found = self._cloud.inputs.get(item.input_id)
        if found is None or found.state != RUNNING or found.task_id != container.task_id:
            return
        container.input, container.state, container.idle_since = None, IDLE, time.time()
        if item.result.status == api_pb2.GenericResult.GENERIC_STATUS_SUCCESS or found.cancelled_at:
            self._finish(found, item.result, item.data_format)
        else:
            self._fail(found, item.result, item.data_format)

    def start_failed(self, container: Container, result: api_pb2.GenericResult) -> None:
        """A container could not get ready: the input it was meant for fails."""
        container.end()
        container.end_reason = result.exception
        pending = self._cloud.pending(container.function_id)
        if pending:
            self._fail(pending[0], result, api_pb2.DATA_FORMAT_UNSPECIFIED)
        self._cloud.bell.ring()

    def cancel(self, call: Call, *, is_terminating: bool) -> None:
        """Cancel what is not done; what runs is told, or with *is_terminating* ended together with its container."""
        for found in call.inputs:
            if found.state == PENDING:
                self._terminate(found)
            elif found.state == RUNNING:
                found.cancelled_at = found.cancelled_at or time.time()
                container = self._cloud.containers[found.task_id]
                if is_terminating:
                    self._terminate(found)
                    container.input = None
                    self.interrupt(container, GRACE_S)
        self._cloud.bell.ring()

    def interrupt(self, container: Container, grace_s: float) -> None:
        """End a container as Modal does: SIGINT, and SIGKILL when the grace is over. Its input runs again elsewhere."""
        container.end()
        container.end_reason = container.end_reason or "interrupted"
        container.kill_at = time.time() + (grace_s if container.process else 0)
        if container.process:
            container.process.interrupt()
        self._cloud.bell.ring()

    def retire(self, container: Container) -> None:
        """Let a container end after its input, if it has one."""
        container.end()
        self._cloud.bell.ring()

    def retire_old(self, dropped: set[str]) -> None:
        """After a publication: containers of an older definition, or of a function that is gone, end."""
        for container in self._cloud.containers.values():
            function = self._cloud.function(container.function_id)
            is_dropped = (function.base_id or function.function_id) in dropped
            if container.is_alive and (is_dropped or container.generation != function.generation):
                self.retire(container)

    def stop_app(self, app_id: str) -> None:
        for call in self._cloud.calls.values():
            if call.app_id == app_id:
                self.cancel(call, is_terminating=True)
        for container in self._cloud.containers.values():
            if container.app_id == app_id and container.is_alive and not container.kill_at:
                self.interrupt(container, GRACE_S)

    def ended(self, container: Container, exit_code: int | None, reason: str = "") -> None:
        """A container's process is gone: decide about the input it had."""
        was_starting = container.state == STARTING
        container.state, container.exit_code = ENDED, exit_code
        container.finished_at = container.finished_at or time.time()
        container.end_reason = container.end_reason or reason
        found, container.input = container.input, None
        text = reason or f"Container '{container.task_id}' exited unexpectedly with code {exit_code}."
        result = api_pb2.GenericResult(status=INTERNAL_FAILURE, exception=text)
        if found is not None and found.state == RUNNING:
            if found.cancelled_at:
                self._terminate(found)
            elif container.end_reason == "interrupted":
                found.state, found.task_id = PENDING, ""
            else:
                self._fail(found, result, api_pb2.DATA_FORMAT_UNSPECIFIED)
        elif was_starting and not container.is_ending:
            self.start_failed(container, result)
        self._cloud.bell.ring()

    def _scale(self, function: Function, launcher: Launcher) -> None:
        app = self._cloud.apps[function.app_id]
        if app.state not in RUNNING_STATES or self._cloud.faults.is_holding_inputs:
            return
        settings = function.settings
        usable = [found for found in self._cloud.alive(function.function_id) if not found.is_ending]
        waiting = len(self._cloud.pending(function.function_id))
        free = [found for found in usable if found.state != BUSY]
        least = settings.min_containers if is_published(app, function) else 0
        wanted = max(len(usable) + waiting - len(free), least)
        most = settings.max_containers or MOST_CONTAINERS
        for _ in range(min(wanted, most) - len(usable)):
            self._start(function, launcher)
        window_s = settings.scaledown_window or SCALEDOWN_S
        idle = [found for found in free if found.state == IDLE and time.time() - found.idle_since > window_s]
        if not waiting:
            for container in idle[: max(len(usable) - least, 0)]:
                self.retire(container)

    def _start(self, function: Function, launcher: Launcher) -> None:
        resources = function.definition.resources
        gpu = resources.gpu_config
        container = Container(
            new_id("ta"),
            function.function_id,
            function.app_id,
            function.name,
            f"{gpu.gpu_type}:{gpu.count}" if gpu.count > 1 else gpu.gpu_type,
            function.generation,
            cores=max(resources.milli_cpu / 1000, LEAST_CORES),
            gib=max(resources.memory_mb / 1024, LEAST_GIB),
            regions=tuple(function.definition.scheduler_placement.regions),
        )
        self._cloud.containers[container.task_id] = container
        task = asyncio.create_task(launcher.start(container, self.ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self, container: Container) -> None:
        now = time.time()
        definition = self._cloud.function(container.function_id).definition
        found = container.input
        if container.kill_at and now > container.kill_at and container.process:
            container.process.kill()
        elif container.state == STARTING:
            limit_s = definition.startup_timeout_secs or definition.timeout_secs or TIMEOUT_S
            if now - container.enqueued_at > limit_s and not container.kill_at:
                text = f"Container '{container.task_id}' hit its startup timeout of {limit_s:g}s"
                self.start_failed(container, api_pb2.GenericResult(status=TIMEOUT, exception=text))
                self.interrupt(container, GRACE_S)
        elif found is not None and found.cancelled_at and now - found.cancelled_at > GRACE_S:
            self._terminate(found)
            container.input = None
            self.interrupt(container, 0)
        elif found is not None and not found.cancelled_at:
            limit_s = definition.timeout_secs or TIMEOUT_S
            if now - found.started_at > limit_s:
                self._time_out(container, found, limit_s)

    def _time_out(self, container: Container, found: Input, limit_s: float) -> None:
        text = f"Task's current input {found.input_id} hit its timeout of {limit_s:g}s"
        container.input = None
        self._fail(found, api_pb2.GenericResult(status=TIMEOUT, exception=text), api_pb2.DATA_FORMAT_UNSPECIFIED)
        self.interrupt(container, GRACE_S)

    def _fail(self, found: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        """An attempt failed: try again if the function's policy allows, else the call failed."""
        policy = self._cloud.function(found.function_id).definition.retry_policy
        if found.cancelled_at or found.retry_count >= policy.retries:
            self._finish(found, result, data_format)
            return
        delay_s = policy.initial_delay_ms / 1000 * (policy.backoff_coefficient or 1.0) ** found.retry_count
        found.not_before = time.time() + min(delay_s, LONGEST_DELAY_S)
        found.retry_count += 1
        found.state, found.task_id = PENDING, ""
        self._cloud.bell.ring()

    def _terminate(self, found: Input) -> None:
        text = "The function call was cancelled."
        self._finish(found, api_pb2.GenericResult(status=TERMINATED, exception=text), 0)

    def _finish(self, found: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        found.state, found.finished_at = DONE, time.time()
        found.output = api_pb2.FunctionGetOutputsItem(
            result=result,
            idx=found.idx,
            input_id=found.input_id,
            data_format=data_format,  # type: ignore[arg-type]
            task_id=found.task_id,
            input_started_at=found.started_at,
            output_created_at=found.finished_at,
            retry_count=found.retry_count,
        )
        self._cloud.bell.ring()


def is_published(app: App, function: Function) -> bool:
    return (function.base_id or function.function_id) in app.function_ids.values()
