"""Images, which are built at once: of all their commands only `ENV` has an effect."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import BUILDER_VERSION, Cloud, id_of, refuse


class ImageRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def ImageGetOrCreate(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        image_id = id_of("im", request.image.SerializeToString(deterministic=True))
        self._cloud.images[image_id] = request.image
        success = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=success, metadata=metadata())

    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest) -> api_pb2.ImageFromIdResponse:
        if request.image_id not in self._cloud.images:
            refuse(Status.NOT_FOUND, f"Image '{request.image_id}' not found.")
        return api_pb2.ImageFromIdResponse(image_id=request.image_id, metadata=metadata())


def metadata() -> api_pb2.ImageMetadata:
    return api_pb2.ImageMetadata(image_builder_version=BUILDER_VERSION)


def image_environ(cloud: Cloud, image_id: str) -> dict[str, str]:
    """The environment variables that an image and those below it set."""
    found: dict[str, str] = {}
    image = cloud.images.get(image_id)
    if image is None:
        return found
    for base in image.base_images:
        found |= image_environ(cloud, base.image_id)
    return found | environ_of(image.dockerfile_commands)


def environ_of(commands: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for command in commands:
        if command.startswith("ENV "):
            name, _, value = command.removeprefix("ENV ").partition("=")
            words = shlex.split(value)
            # What refers to other variables (PATH of an image that is not there) has no meaning here.
            if "$" not in value or value.startswith("'"):
                found[name.strip()] = words[0] if words else ""
    return found
