"""Secrets: named sets of environment variables."""

from __future__ import annotations

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import Cloud, Secret, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty

ANONYMOUS = (api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP, api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL)


class SecretRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def SecretGetOrCreate(self, request: api_pb2.SecretGetOrCreateRequest) -> api_pb2.SecretGetOrCreateResponse:
        environment = self._cloud.environment(request.environment_name)
        found = None
        if request.object_creation_type not in ANONYMOUS:
            found = self._find(request.deployment_name, environment)
        if found is None or request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            found = self._create(request, environment, found)
        elif request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            refuse(Status.ALREADY_EXISTS, f"Secret '{request.deployment_name}' already exists.")
        missing = [key for key in request.required_keys if key not in found.values]
        if missing:
            names = ", ".join(missing)
            refuse(Status.FAILED_PRECONDITION, f"Secret '{request.deployment_name}' is missing key(s): {names}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=found.secret_id, metadata=metadata(found))

    async def SecretUpdate(self, request: api_pb2.SecretUpdateRequest) -> Empty:
        secret = self._secret(request.secret_id)
        for update in request.updates:
            if update.HasField("value"):
                secret.values[update.key] = update.value
            else:
                secret.values.pop(update.key, None)
        return Empty()

    async def SecretGetInfo(self, request: api_pb2.SecretGetInfoRequest) -> api_pb2.SecretGetInfoResponse:
        return api_pb2.SecretGetInfoResponse(metadata=metadata(self._secret(request.secret_id)))

    async def SecretList(self, request: api_pb2.SecretListRequest) -> api_pb2.SecretListResponse:
        environment = self._cloud.environment(request.environment_name)
        before = request.pagination.created_before or float("inf")
        found = [
            secret
            for secret in self._cloud.secrets.values()
            if secret.name and secret.environment == environment and secret.created_at < before
        ]
        found.sort(key=lambda secret: -secret.created_at)
        items = [
            api_pb2.SecretListItem(
                label=secret.name,
                created_at=secret.created_at,
                environment_name=environment,
                secret_id=secret.secret_id,
                metadata=metadata(secret),
            )
            for secret in found[: request.pagination.max_objects or None]
        ]
        return api_pb2.SecretListResponse(items=items, environment_name=environment)

    async def SecretDelete(self, request: api_pb2.SecretDeleteRequest) -> Empty:
        del self._cloud.secrets[self._secret(request.secret_id).secret_id]
        return Empty()

    def _find(self, name: str, environment: str) -> Secret | None:
        found = self._cloud.secrets.values()
        return next((secret for secret in found if (secret.name, secret.environment) == (name, environment)), None)

    def _secret(self, secret_id: str) -> Secret:
        return self._cloud.secrets.get(secret_id) or refuse(Status.NOT_FOUND, f"Secret '{secret_id}' not found.")

    def _create(self, request: api_pb2.SecretGetOrCreateRequest, environment: str, existing: Secret | None) -> Secret:
        if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            refuse(Status.NOT_FOUND, f"Secret '{request.deployment_name}' not found in environment '{environment}'.")
        name = "" if request.object_creation_type in ANONYMOUS else request.deployment_name
        secret_id = existing.secret_id if existing else new_id("st")
        secret = Secret(secret_id, name, environment, dict(request.env_dict))
        self._cloud.secrets[secret_id] = secret
        return secret


def metadata(secret: Secret) -> api_pb2.SecretMetadata:
    return api_pb2.SecretMetadata(
        name=secret.name,
        creation_info=api_pb2.CreationInfo(created_at=secret.created_at, created_by="tester"),
        keys=sorted(secret.values),
        environment_name=secret.environment,
    )
