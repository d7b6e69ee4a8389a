"""`modal.Dict`: keys and values are bytes that only the client understands."""

from __future__ import annotations

from collections.abc import AsyncIterator

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import Cloud, Dict, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty


class DictRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def DictGetOrCreate(self, request: api_pb2.DictGetOrCreateRequest) -> api_pb2.DictGetOrCreateResponse:
        environment = self._cloud.environment(request.environment_name)
        creation = request.object_creation_type
        found = None
        if creation != api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL:
            found = self._find(request.deployment_name, environment)
        if found and creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            refuse(Status.ALREADY_EXISTS, f"Dict '{request.deployment_name}' already exists.")
        if found is None:
            if creation == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                refuse(Status.NOT_FOUND, f"Dict '{request.deployment_name}' not found in environment '{environment}'.")
            found = Dict(new_id("di"), request.deployment_name, environment)
            found.values.update({entry.key: entry.value for entry in request.data})
            self._cloud.dicts[found.dict_id] = found
        return api_pb2.DictGetOrCreateResponse(dict_id=found.dict_id, metadata=metadata(found))

    async def DictGetById(self, request: api_pb2.DictGetByIdRequest) -> api_pb2.DictGetByIdResponse:
        found = self._dict(request.dict_id)
        return api_pb2.DictGetByIdResponse(dict_id=found.dict_id, metadata=metadata(found))

    async def DictHeartbeat(self, request: api_pb2.DictHeartbeatRequest) -> Empty:
        return Empty()

    async def DictList(self, request: api_pb2.DictListRequest) -> api_pb2.DictListResponse:
        environment = self._cloud.environment(request.environment_name)
        before = request.pagination.created_before or float("inf")
        found = [
            found
            for found in self._cloud.dicts.values()
            if found.name and found.environment == environment and found.created_at < before
        ]
        found.sort(key=lambda one: -one.created_at)
        infos = [
            api_pb2.DictListResponse.DictInfo(
                name=one.name, created_at=one.created_at, dict_id=one.dict_id, metadata=metadata(one)
            )
            for one in found[: request.pagination.max_objects or None]
        ]
        return api_pb2.DictListResponse(dicts=infos, environment_name=environment)

    async def DictDelete(self, request: api_pb2.DictDeleteRequest) -> Empty:
        del self._cloud.dicts[self._dict(request.dict_id).dict_id]
        return Empty()

    async def DictGet(self, request: api_pb2.DictGetRequest) -> api_pb2.DictGetResponse:
        value = self._dict(request.dict_id).values.get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def DictPop(self, request: api_pb2.DictPopRequest) -> api_pb2.DictPopResponse:
        value = self._dict(request.dict_id).values.pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def DictContains(self, request: api_pb2.DictContainsRequest) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in self._dict(request.dict_id).values)

    async def DictLen(self, request: api_pb2.DictLenRequest) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=len(self._dict(request.dict_id).values))

    async def DictUpdate(self, request: api_pb2.DictUpdateRequest) -> api_pb2.DictUpdateResponse:
        values = self._dict(request.dict_id).values
        updates = {entry.key: entry.value for entry in request.updates}
        if request.if_not_exists:
            updates = {key: value for key, value in updates.items() if key not in values}
        values.update(updates)
        return api_pb2.DictUpdateResponse(created=bool(updates))

    async def DictClear(self, request: api_pb2.DictClearRequest) -> Empty:
        self._dict(request.dict_id).values.clear()
        return Empty()

    async def DictContents(self, request: api_pb2.DictContentsRequest) -> AsyncIterator[api_pb2.DictEntry]:
        for key, value in list(self._dict(request.dict_id).values.items()):
            yield api_pb2.DictEntry(key=key if request.keys else b"", value=value if request.values else b"")

    def _find(self, name: str, environment: str) -> Dict | None:
        found = self._cloud.dicts.values()
        return next((one for one in found if (one.name, one.environment) == (name, environment)), None)

    def _dict(self, dict_id: str) -> Dict:
        return self._cloud.dicts.get(dict_id) or refuse(Status.NOT_FOUND, f"Dict '{dict_id}' not found.")


def metadata(found: Dict) -> api_pb2.DictMetadata:
    info = api_pb2.CreationInfo(created_at=found.created_at, created_by="tester")
    return api_pb2.DictMetadata(name=found.name, creation_info=info)
