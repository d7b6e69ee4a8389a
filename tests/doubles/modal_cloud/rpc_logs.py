"""What containers said: fetched, counted, and followed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Protocol

from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import Cloud, LogLine


class Filters(Protocol):
    """What the three requests have in common."""

    @property
    def app_id(self) -> str: ...
    @property
    def function_id(self) -> str: ...
    @property
    def parametrized_function_id(self) -> str: ...
    @property
    def function_call_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def search_text(self) -> str: ...


class LogRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest) -> api_pb2.AppFetchLogsResponse:
        self._cloud.app(request.app_id)
        since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()
        found = [line for line in self._lines(request, request.source) if since <= line.timestamp_ns < until]
        return api_pb2.AppFetchLogsResponse(batches=[batch(line) for line in found[-request.limit or None :]])

    async def AppCountLogs(self, request: api_pb2.AppCountLogsRequest) -> api_pb2.AppCountLogsResponse:
        self._cloud.app(request.app_id)
        since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()
        step = request.bucket_secs
        buckets: dict[int, list[int]] = {}
        for line in self._lines(request, request.source):
            if since <= line.timestamp_ns < until:
                begin = line.timestamp_ns // 10**9 // step * step
                buckets.setdefault(begin, [0, 0, 0])[max(line.source, 1) - 1] += 1
        answer = api_pb2.AppCountLogsResponse(app_id=request.app_id)
        for begin, (out, err, system) in sorted(buckets.items()):
            bucket = answer.buckets.add(stdout_logs=out, stderr_logs=err, system_logs=system)
            bucket.bucket_start_at.FromSeconds(begin)
        return answer

    async def AppGetLogs(self, request: api_pb2.AppGetLogsRequest) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        # Without an entry to go on from, a stream begins with what is said from now on.
        seen = int(request.last_entry_id.split("-")[0]) if request.last_entry_id else self._cloud.log_count
        until = time.monotonic() + request.timeout
        while True:
            is_done = self._cloud.app(request.app_id).is_stopped and not self._is_alive(request.app_id)
            for line in self._lines(request, request.file_descriptor):
                if line.number > seen:
                    seen = line.number
                    yield batch(line)
            if is_done:
                yield api_pb2.TaskLogsBatch(app_done=True, entry_id=f"{seen}-0")
                return
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            await self._cloud.bell.wait(left_s)

    def _is_alive(self, app_id: str) -> bool:
        return any(found.app_id == app_id and found.is_alive for found in self._cloud.containers.values())

    def _lines(self, filters: Filters, source: int) -> list[LogLine]:
        ids = self._function_ids(filters)
        return [
            line
            for line in self._cloud.logs
            if line.app_id == filters.app_id
            and (not ids or line.function_id in ids)
            and filters.function_call_id in ("", line.call_id)
            and filters.task_id in ("", line.task_id)
            and source in (0, line.source)
            and filters.search_text in line.text
        ]

    def _function_ids(self, filters: Filters) -> set[str]:
        """The function asked for, and its variants; empty for all."""
        if filters.parametrized_function_id:
            return {filters.parametrized_function_id}
        if not filters.function_id:
            return set()
        found = self._cloud.functions.values()
        return {filters.function_id} | {one.function_id for one in found if one.base_id == filters.function_id}


def batch(line: LogLine) -> api_pb2.TaskLogsBatch:
    item = api_pb2.TaskLogs(
        data=line.text,
        timestamp=line.timestamp_ns / 1e9,
        timestamp_ns=line.timestamp_ns,
        file_descriptor=line.source,  # type: ignore[arg-type]
        function_call_id=line.call_id,
        input_id=line.input_id,
        container_id=line.task_id,
    )
    return api_pb2.TaskLogsBatch(
        task_id=line.task_id,
        function_id=line.function_id,
        input_id=line.input_id,
        items=[item],
        entry_id=f"{line.number}-0",
    )
