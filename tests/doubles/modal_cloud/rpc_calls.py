"""Calls as clients see them: begun, waited for, cancelled, and looked at afterwards."""

from __future__ import annotations

import base64
import json
import time

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import DONE, PENDING, RUNNING, Call, Cloud, Input, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty
from tests.doubles.modal_cloud.scheduler import RUNNING_STATES, Scheduler

LONGEST_WAIT_S = 55.0
RESULT = api_pb2.GenericResult
STATUSES = {
    RESULT.GENERIC_STATUS_SUCCESS: api_pb2.FUNCTION_CALL_INPUT_STATUS_SUCCESS,
    RESULT.GENERIC_STATUS_FAILURE: api_pb2.FUNCTION_CALL_INPUT_STATUS_FAILURE,
    RESULT.GENERIC_STATUS_TERMINATED: api_pb2.FUNCTION_CALL_INPUT_STATUS_TERMINATED,
    RESULT.GENERIC_STATUS_TIMEOUT: api_pb2.FUNCTION_CALL_INPUT_STATUS_TIMEOUT,
}


class CallRpc:
    def __init__(self, cloud: Cloud, scheduler: Scheduler) -> None:
        self._cloud = cloud
        self._scheduler = scheduler

    async def FunctionMap(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        function = self._cloud.function(request.function_id)
        if self._cloud.apps[function.app_id].state not in RUNNING_STATES:
            refuse(Status.FAILED_PRECONDITION, f"App '{function.app_id}' is not running.")
        if request.function_call_type != api_pb2.FUNCTION_CALL_TYPE_UNARY:
            refuse(Status.UNIMPLEMENTED, "The double knows no map.")
        call = Call(new_id("fc"), function.function_id, function.app_id, request.function_call_invocation_type)
        self._cloud.calls[call.call_id] = call
        answers = [self._enqueue(call, item) for item in request.pipelined_inputs]
        self._cloud.bell.ring()
        return api_pb2.FunctionMapResponse(
            function_call_id=call.call_id,
            pipelined_inputs=answers,
            retry_policy=function.definition.retry_policy,
            function_call_jwt=jwt(function_call_id=call.call_id),
            max_inputs_outstanding=1000,
        )

    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest
    ) -> api_pb2.FunctionGetOutputsResponse:
        call = self._cloud.call(request.function_call_id)
        until = time.monotonic() + min(request.timeout, LONGEST_WAIT_S)
        while not (done := finished(call, request)) and not call.is_expired:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            await self._cloud.bell.wait(left_s)
        if call.is_expired:
            # As Modal has it: nothing to wait for, and nothing there.
            return api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=0)
        return api_pb2.FunctionGetOutputsResponse(
            idxs=[found.idx for found in done],
            outputs=[found.output for found in done if found.output],
            last_entry_id="0-0",
            num_unfinished_inputs=sum(found.state != DONE for found in call.inputs),
        )

    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._cloud.call(request.function_call_id)
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.call_id,
            num_inputs=len(call.inputs),
            metadata=api_pb2.FunctionCallHandleMetadata(app_id=call.app_id, function_id=call.function_id),
        )

    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest) -> Empty:
        call = self._cloud.call(request.function_call_id)
        self._scheduler.cancel(call, is_terminating=request.terminate_containers)
        return Empty()

    async def FunctionGetCallGraph(
        self, request: api_pb2.FunctionGetCallGraphRequest
    ) -> api_pb2.FunctionGetCallGraphResponse:
        call = self._cloud.call(request.function_call_id)
        definition = self._cloud.function(call.function_id).definition
        inputs = [
            api_pb2.InputCallGraphInfo(
                input_id=found.input_id,
                status=found.output.result.status if found.output else RESULT.GENERIC_STATUS_UNSPECIFIED,
                function_call_id=call.call_id,
                task_id=found.task_id,
            )
            for found in call.inputs
        ]
        about = api_pb2.FunctionCallCallGraphInfo(
            function_call_id=call.call_id,
            function_name=definition.function_name,
            module_name=definition.module_name,
        )
        return api_pb2.FunctionGetCallGraphResponse(inputs=inputs, function_calls=[about])

    async def FunctionCallFetch(self, request: api_pb2.FunctionCallFetchRequest) -> api_pb2.FunctionCallFetchResponse:
        found = self._inputs_of(request.function_id, has_variants=request.all_variants)
        if request.WhichOneof("query_oneof") == "tail":
            chosen = sorted(found, key=lambda one: -one.enqueued_at)[: request.tail.count]
        else:
            since, until = request.range.since.ToNanoseconds() / 1e9, request.range.until.ToNanoseconds() / 1e9
            chosen = [one for one in found if since <= one.enqueued_at < until][: request.range.limit or None]
        return api_pb2.FunctionCallFetchResponse(function_call_inputs=[self._about(one) for one in chosen])

    async def FunctionCallCount(self, request: api_pb2.FunctionCallCountRequest) -> api_pb2.FunctionCallCountResponse:
        found = self._inputs_of(request.function_id, has_variants=request.all_variants)
        since, until = request.since.ToNanoseconds() / 1e9, request.until.ToNanoseconds() / 1e9
        step = request.bucket_secs
        buckets: dict[int, int] = {}
        for one in found:
            if since <= one.enqueued_at < until:
                begin = int(one.enqueued_at // step * step)
                buckets[begin] = buckets.get(begin, 0) + 1
        answer = api_pb2.FunctionCallCountResponse()
        for begin, count in sorted(buckets.items()):
            answer.buckets.add(count=count).bucket_start_at.FromSeconds(begin)
        return answer

    def _enqueue(self, call: Call, item: api_pb2.FunctionPutInputsItem) -> api_pb2.FunctionPutInputsResponseItem:
        found = Input(new_id("in"), call.call_id, call.function_id, item.idx, item.input)
        call.inputs.append(found)
        self._cloud.inputs[found.input_id] = found
        token = jwt(
            idx=found.idx, input_id=found.input_id, function_call_id=call.call_id, entry_id="0-0", retry_count=0
        )
        return api_pb2.FunctionPutInputsResponseItem(idx=found.idx, input_id=found.input_id, input_jwt=token)

    def _inputs_of(self, function_id: str, *, has_variants: bool) -> list[Input]:
        ids = {function_id}
        if has_variants:
            ids |= {found.function_id for found in self._cloud.functions.values() if found.base_id == function_id}
        return [found for found in self._cloud.inputs.values() if found.function_id in ids]

    def _about(self, found: Input) -> api_pb2.FunctionCallInputInfo:
        container = self._cloud.containers.get(found.task_id)
        startup_s = None
        if container and container.started_at and container.enqueued_at > found.enqueued_at:
            startup_s = container.started_at - container.enqueued_at
        return about(found, found.payload.method_name, startup_s)


def about(found: Input, method: str, startup_s: float | None) -> api_pb2.FunctionCallInputInfo:
    """One line of `modal function calls`."""
    info = api_pb2.FunctionCallInputInfo(
        function_call_id=found.call_id,
        status=status_of(found),
        service_method_name=method or None,
        container_id=found.task_id or None,
        startup_time_seconds=startup_s,
    )
    info.enqueued_at.FromNanoseconds(int(found.enqueued_at * 1e9))
    if found.started_at:
        info.started_at.FromNanoseconds(int(found.started_at * 1e9))
        info.execution_time_seconds = (found.finished_at or time.time()) - found.started_at
    return info


def status_of(found: Input) -> api_pb2.FunctionCallInputStatus.ValueType:
    if found.output is not None:
        return STATUSES.get(found.output.result.status, api_pb2.FUNCTION_CALL_INPUT_STATUS_INTERNAL_FAILURE)
    states = {
        PENDING: api_pb2.FUNCTION_CALL_INPUT_STATUS_PENDING,
        RUNNING: api_pb2.FUNCTION_CALL_INPUT_STATUS_RUNNING,
    }
    return states[found.state]


def finished(call: Call, request: api_pb2.FunctionGetOutputsRequest) -> list[Input]:
    last = request.end_idx if request.HasField("end_idx") else len(call.inputs)
    return [found for found in call.inputs if found.state == DONE and request.start_idx <= found.idx <= last]


def jwt(**fields: str | int) -> str:
    """A token of the form that clients take apart."""
    parts = [{"alg": "none", "typ": "JWT"}, fields]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."
