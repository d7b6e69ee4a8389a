"""Who asks, in which workspace and environment."""

from __future__ import annotations

import time

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import BUILDER_VERSION, ENVIRONMENT, WORKSPACE, Cloud, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty


class WorkspaceRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def ClientHello(self, request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=BUILDER_VERSION)

    async def TokenInfoGet(self, request: api_pb2.TokenInfoGetRequest) -> api_pb2.TokenInfoGetResponse:
        user = api_pb2.UserIdentity(user_id="us-double", username="tester")
        return api_pb2.TokenInfoGetResponse(
            token_id=self._cloud.token_id, workspace_id="ac-double", workspace_name=WORKSPACE, user_identity=user
        )

    async def WorkspaceNameLookup(self, request: Empty) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(workspace_name=WORKSPACE, username=WORKSPACE)

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = request.deployment_name or ENVIRONMENT
        if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            self._cloud.environments.setdefault(name, new_id("en"))
        self._cloud.environment(name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=self._cloud.environments[name],
            metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings),
        )

    async def EnvironmentList(self, request: Empty) -> api_pb2.EnvironmentListResponse:
        items = [
            api_pb2.EnvironmentListItem(
                name=name, environment_id=environment_id, default=name == ENVIRONMENT, created_at=time.time()
            )
            for name, environment_id in self._cloud.environments.items()
        ]
        return api_pb2.EnvironmentListResponse(items=items)

    async def EnvironmentCreate(self, request: api_pb2.EnvironmentCreateRequest) -> Empty:
        if request.name in self._cloud.environments:
            refuse(Status.ALREADY_EXISTS, f"Environment '{request.name}' already exists.")
        self._cloud.environments[request.name] = new_id("en")
        return Empty()
