"""Apps: created, published, found, tagged and stopped."""

from __future__ import annotations

import time

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import App, Cloud, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty
from tests.doubles.modal_cloud.rpc_functions import metadata as function_metadata
from tests.doubles.modal_cloud.rpc_functions import publish
from tests.doubles.modal_cloud.rpc_volumes import metadata as volume_metadata
from tests.doubles.modal_cloud.scheduler import Scheduler

RUNNING_STATES = (api_pb2.APP_STATE_DEPLOYED, api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_DETACHED)


class AppRpc:
    def __init__(self, cloud: Cloud, scheduler: Scheduler) -> None:
        self._cloud = cloud
        self._scheduler = scheduler

    async def AppCreate(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        environment = self._cloud.environment(request.environment_name)
        app = App(new_id("ap"), request.description, environment, request.app_state, tags=dict(request.tags))
        self._cloud.apps[app.app_id] = app
        url = page_url(app)
        return api_pb2.AppCreateResponse(app_id=app.app_id, app_page_url=url, app_logs_url=f"{url}/logs")

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self._cloud.environment(request.environment_name)
        app = self._cloud.deployed(request.name, environment)
        stopped = [
            one
            for one in self._cloud.apps.values()
            if (one.name, one.environment) == (request.name, environment) and one.is_stopped and one.deployed_at
        ]
        shown = app or (stopped[-1] if stopped else None)
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.app_id if app else "",
            previous_app_id=stopped[-1].app_id if stopped else "",
            environment_name=environment,
            lifecycle=lifecycle(shown) if shown else None,
        )

    async def AppGetOrCreate(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        environment = self._cloud.environment(request.environment_name)
        app = self._cloud.deployed(request.app_name, environment)
        if app is None:
            if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                refuse(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{environment}'.")
            app = App(new_id("ap"), request.app_name, environment, api_pb2.APP_STATE_DEPLOYED)
            self._cloud.apps[app.app_id] = app
        return api_pb2.AppGetOrCreateResponse(app_id=app.app_id, handle_metadata=handle(app))

    async def AppGetInfo(self, request: api_pb2.AppGetInfoRequest) -> api_pb2.AppGetInfoResponse:
        return api_pb2.AppGetInfoResponse(info=handle(self._cloud.app(request.app_id)))

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=layout(self._cloud, self._cloud.app(request.app_id)))

    async def AppGetLifecycle(self, request: api_pb2.AppGetLifecycleRequest) -> api_pb2.AppGetLifecycleResponse:
        return api_pb2.AppGetLifecycleResponse(lifecycle=lifecycle(self._cloud.app(request.app_id)))

    async def AppPublish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        app = self._cloud.app(request.app_id)
        if app.is_stopped:
            refuse(Status.FAILED_PRECONDITION, f"App '{app.app_id}' is stopped.")
        dropped = set(app.function_ids.values()) - set(request.function_ids.values())
        app.name = request.name or app.name
        app.state = request.app_state
        app.tags = dict(request.tags)
        app.function_ids, app.class_ids = dict(request.function_ids), dict(request.class_ids)
        app.version += 1
        app.deployed_at = time.time()
        for function_id in app.function_ids.values():
            publish(self._cloud, self._cloud.function(function_id))
        self._scheduler.retire_old(dropped)
        self._cloud.bell.ring()
        return api_pb2.AppPublishResponse(url=page_url(app), deployed_at=app.deployed_at)

    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest) -> Empty:
        self._cloud.app(request.app_id)
        return Empty()

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest) -> Empty:
        app = self._cloud.app(request.app_id)
        if app.state in (api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_INITIALIZING):
            self._stop(app)
        return Empty()

    async def AppStop(self, request: api_pb2.AppStopRequest) -> Empty:
        self._stop(self._cloud.app(request.app_id))
        return Empty()

    async def AppSetTags(self, request: api_pb2.AppSetTagsRequest) -> Empty:
        self._cloud.app(request.app_id).tags = dict(request.tags)
        return Empty()

    async def AppGetTags(self, request: api_pb2.AppGetTagsRequest) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._cloud.app(request.app_id).tags)

    async def AppList(self, request: api_pb2.AppListRequest) -> api_pb2.AppListResponse:
        environment = self._cloud.environment(request.environment_name)
        items = [
            api_pb2.AppListResponse.AppListItem(
                app_id=app.app_id,
                description=app.name,
                name=app.name,
                state=app.state,  # type: ignore[arg-type]
                created_at=app.created_at,
                stopped_at=app.stopped_at,
                n_running_tasks=self._running(app),
                metadata=handle(app),
            )
            for app in self._cloud.apps.values()
            if app.environment == environment
        ]
        return api_pb2.AppListResponse(apps=items)

    def _running(self, app: App) -> int:
        return sum(one.is_alive and one.app_id == app.app_id for one in self._cloud.containers.values())

    def _stop(self, app: App) -> None:
        if app.is_stopped:
            return
        app.state = api_pb2.APP_STATE_STOPPED
        app.stopped_at = time.time()
        self._scheduler.stop_app(app.app_id)
        self._cloud.bell.ring()


def page_url(app: App) -> str:
    return f"https://modal.com/apps/double/{app.environment}/{app.app_id}"


def lifecycle(app: App) -> api_pb2.AppLifecycle:
    return api_pb2.AppLifecycle(
        app_state=app.state,  # type: ignore[arg-type]
        created_at=app.created_at,
        created_by="tester",
        deployed_at=app.deployed_at,
        deployed_by="tester",
        version=app.version,
        stopped_at=app.stopped_at,
        stopped_by="tester" if app.stopped_at else "",
    )


def handle(app: App) -> api_pb2.AppHandleMetadata:
    return api_pb2.AppHandleMetadata(
        description=app.name,
        app_id=app.app_id,
        environment_name=app.environment,
        lifecycle=lifecycle(app),
        functions=app.function_ids,
    )


def layout(cloud: Cloud, app: App) -> api_pb2.AppLayout:
    """An app's functions and classes, and everything they depend on: a container looks all of it up."""
    objects = {}
    for function_id in app.function_ids.values():
        function = cloud.function(function_id)
        objects[function_id] = api_pb2.Object(
            object_id=function_id, function_handle_metadata=function_metadata(function)
        )
        for dependency in function.definition.object_dependencies:
            objects.setdefault(dependency.object_id, dependency_of(cloud, dependency.object_id))
    for class_id in app.class_ids.values():
        objects[class_id] = api_pb2.Object(object_id=class_id, class_handle_metadata=api_pb2.ClassHandleMetadata())
    return api_pb2.AppLayout(objects=objects.values(), function_ids=app.function_ids, class_ids=app.class_ids)


def dependency_of(cloud: Cloud, object_id: str) -> api_pb2.Object:
    if object_id in cloud.volumes:
        return api_pb2.Object(object_id=object_id, volume_metadata=volume_metadata(cloud.volumes[object_id]))
    if object_id in cloud.mounts:
        return api_pb2.Object(object_id=object_id, mount_handle_metadata=api_pb2.MountHandleMetadata())
    return api_pb2.Object(object_id=object_id)
