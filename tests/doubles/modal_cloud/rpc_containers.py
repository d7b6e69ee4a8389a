"""What containers ask for, and what clients ask about them."""

from __future__ import annotations

import asyncio
import time

from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import ENDED, Cloud, Container
from tests.doubles.modal_cloud.protobuf import Empty
from tests.doubles.modal_cloud.scheduler import GRACE_S, Scheduler

HEARTBEAT_S = 14.0
INPUT_WAIT_S = 50.0
OUTPUT_S = 0.01


class ContainerRpc:
    def __init__(self, cloud: Cloud, scheduler: Scheduler) -> None:
        self._cloud = cloud
        self._scheduler = scheduler

    async def ContainerHello(self, request: Empty) -> Empty:
        self._cloud.calling_container()
        return Empty()

    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest
    ) -> api_pb2.ContainerHeartbeatResponse:
        # Held until there is something to say, as Modal's workers do: cancellations arrive at once.
        container = self._cloud.calling_container()
        until = time.monotonic() + HEARTBEAT_S
        while (left_s := until - time.monotonic()) > 0:
            found = container.input
            if found is not None and found.cancelled_at:
                event = api_pb2.CancelInputEvent(input_ids=[found.input_id])
                return api_pb2.ContainerHeartbeatResponse(cancel_input_event=event)
            await self._cloud.bell.wait(left_s)
        return api_pb2.ContainerHeartbeatResponse()

    async def FunctionGetInputs(self, request: api_pb2.FunctionGetInputsRequest) -> api_pb2.FunctionGetInputsResponse:
        container = self._cloud.calling_container()
        until = time.monotonic() + INPUT_WAIT_S
        while (left_s := until - time.monotonic()) > 0:
            if container.is_ending and container.input is None:
                kill = api_pb2.FunctionGetInputsItem(kill_switch=True)
                return api_pb2.FunctionGetInputsResponse(inputs=[kill])
            found = self._scheduler.assign(container)
            if found is not None:
                call = self._cloud.call(found.call_id)
                item = api_pb2.FunctionGetInputsItem(
                    input_id=found.input_id,
                    input=found.payload,
                    function_call_id=found.call_id,
                    function_call_invocation_type=call.invocation_type,  # type: ignore[arg-type]
                    retry_count=found.retry_count,
                )
                return api_pb2.FunctionGetInputsResponse(inputs=[item])
            # Inputs that wait for a retry become ready without a bell.
            await self._cloud.bell.wait(min(left_s, 0.1))
        return api_pb2.FunctionGetInputsResponse()

    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest) -> Empty:
        container = self._cloud.calling_container()
        # What the function printed last is in the pipe already: let it be read as this input's.
        await asyncio.sleep(OUTPUT_S)
        for item in request.outputs:
            self._scheduler.put_output(container, item)
        return Empty()

    async def TaskResult(self, request: api_pb2.TaskResultRequest) -> Empty:
        self._scheduler.start_failed(self._cloud.calling_container(), request.result)
        return Empty()

    async def ContainerStop(self, request: api_pb2.ContainerStopRequest) -> api_pb2.ContainerStopResponse:
        container = self._cloud.container(request.task_id)
        if container.is_alive and request.graceful:
            self._scheduler.retire(container)
        elif container.is_alive and not container.kill_at:
            self._scheduler.interrupt(container, GRACE_S)
        return api_pb2.ContainerStopResponse()

    async def TaskList(self, request: api_pb2.TaskListRequest) -> api_pb2.TaskListResponse:
        environment = self._cloud.environment(request.environment_name)
        apps = {app.app_id: app for app in self._cloud.apps.values()}
        tasks = [
            api_pb2.TaskStats(
                task_id=one.task_id,
                app_id=one.app_id,
                app_description=apps[one.app_id].name,
                started_at=one.started_at,
                enqueued_at=one.enqueued_at,
            )
            for one in self._cloud.containers.values()
            if one.is_alive
            and (one.app_id == request.app_id if request.app_id else apps[one.app_id].environment == environment)
        ]
        return api_pb2.TaskListResponse(tasks=tasks)

    async def TaskGetInfo(self, request: api_pb2.TaskGetInfoRequest) -> api_pb2.TaskGetInfoResponse:
        found = self._cloud.container(request.task_id)
        info = api_pb2.TaskInfo(
            id=found.task_id,
            enqueued_at=found.enqueued_at,
            started_at=found.started_at,
            finished_at=found.finished_at,
            gpu_type=found.gpu,
        )
        return api_pb2.TaskGetInfoResponse(app_id=found.app_id, info=info)


def facts(cloud: Cloud, container: Container) -> dict[str, object]:
    """What a test may want to know of a container."""
    doing = container.input
    return {
        "task_id": container.task_id,
        "app_id": container.app_id,
        "app": cloud.apps[container.app_id].name,
        "function_id": container.function_id,
        "function": container.name,
        "gpu": container.gpu,
        "state": container.state,
        "is_alive": container.state != ENDED,
        "is_ending": container.is_ending,
        "pid": container.process.pid if container.process else None,
        "enqueued_at": container.enqueued_at,
        "process_at": container.process_at or None,
        "started_at": container.started_at or None,
        "told_at": container.told_at or None,
        "finished_at": container.finished_at or None,
        "exit_code": container.exit_code,
        "end_reason": container.end_reason,
        "input_id": doing.input_id if doing else None,
        "call_id": doing.call_id if doing else None,
        "volumes": {
            mount.mount_path: {
                "name": cloud.volumes[mount.volume_id].name if mount.volume_id in cloud.volumes else None,
                "view": str(mount.view),
                "is_read_only": mount.is_read_only,
            }
            for mount in container.mounts.values()
        },
    }
