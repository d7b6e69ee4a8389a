"""Files of the operator's machine that containers see, and blobs: arguments and results too large for a message."""

from __future__ import annotations

import hashlib
from pathlib import Path

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import Cloud, id_of, new_id, refuse
from tests.doubles.modal_cloud.files import write_whole


class MountRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def MountGetOrCreate(self, request: api_pb2.MountGetOrCreateRequest) -> api_pb2.MountGetOrCreateResponse:
        if request.deployment_name:
            # Modal's own: its client and its Python. Containers have both from their interpreter.
            mount_id = id_of("mo", request.deployment_name.encode())
            self._cloud.mounts.setdefault(mount_id, [])
        else:
            missing = [file.sha256_hex for file in request.files if not stored(self._cloud, file.sha256_hex).exists()]
            if missing:
                refuse(Status.FAILED_PRECONDITION, f"Files were not uploaded: {missing}")
            mount_id = new_id("mo")
            self._cloud.mounts[mount_id] = list(request.files)
        checksum = hashlib.sha256(mount_id.encode()).hexdigest()
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id, handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=checksum)
        )

    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [name for name in request.sha256_hex_hashes if not stored(self._cloud, name).exists()]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        path = stored(self._cloud, request.sha256_hex)
        kind = request.WhichOneof("data_oneof")
        if kind == "data":
            keep(path, request.sha256_hex, request.data)
        elif kind == "data_blob_id":
            keep(path, request.sha256_hex, blob(self._cloud, request.data_blob_id).read_bytes())
        return api_pb2.MountPutFileResponse(exists=path.exists())

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self._cloud.url}/blob/{blob_id}"])
        return api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)

    async def BlobGet(self, request: api_pb2.BlobGetRequest) -> api_pb2.BlobGetResponse:
        if not blob(self._cloud, request.blob_id).exists():
            refuse(Status.NOT_FOUND, f"Blob '{request.blob_id}' not found.")
        return api_pb2.BlobGetResponse(download_url=f"{self._cloud.url}/blob/{request.blob_id}")


def stored(cloud: Cloud, sha256_hex: str) -> Path:
    """Where a file of that content is kept."""
    return cloud.folder / "contents" / sha256_hex


def blob(cloud: Cloud, blob_id: str) -> Path:
    return cloud.folder / "blobs" / blob_id


def keep(path: Path, sha256_hex: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != sha256_hex:
        refuse(Status.INVALID_ARGUMENT, "The content does not match its hash.")
    write_whole(path, data)
