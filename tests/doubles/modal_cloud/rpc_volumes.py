"""Volumes: created, listed, filled, read and emptied by clients; committed and reloaded by containers."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud import files
from tests.doubles.modal_cloud.cloud import Cloud, Container, Volume, VolumeMount, new_id, refuse
from tests.doubles.modal_cloud.protobuf import Empty
from tests.doubles.modal_cloud.rpc_mounts import stored

BLOCK_BYTES = 8 * 1024 * 1024
BATCH = 1000
V1, V2 = api_pb2.VOLUME_FS_VERSION_V1, api_pb2.VOLUME_FS_VERSION_V2
OPEN_FILES = "there are open files preventing the operation"


class VolumeRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._locks: dict[str, asyncio.Lock] = {}

    async def VolumeGetOrCreate(self, request: api_pb2.VolumeGetOrCreateRequest) -> api_pb2.VolumeGetOrCreateResponse:
        environment = self._cloud.environment(request.environment_name)
        creation = request.object_creation_type
        found = None
        if creation != api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL:
            found = self._find(request.deployment_name, environment)
        if found and creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            refuse(Status.ALREADY_EXISTS, f"Volume '{request.deployment_name}' already exists.")
        if found is None:
            if creation == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                refuse(
                    Status.NOT_FOUND, f"Volume '{request.deployment_name}' not found in environment '{environment}'."
                )
            found = self._create(request.deployment_name, environment, request.version)
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=found.volume_id, version=version_of(found), metadata=metadata(found)
        )

    async def VolumeGetById(self, request: api_pb2.VolumeGetByIdRequest) -> api_pb2.VolumeGetByIdResponse:
        volume = self._cloud.volume(request.volume_id)
        return api_pb2.VolumeGetByIdResponse(volume_id=volume.volume_id, metadata=metadata(volume))

    async def VolumeHeartbeat(self, request: api_pb2.VolumeHeartbeatRequest) -> Empty:
        return Empty()

    async def VolumeList(self, request: api_pb2.VolumeListRequest) -> api_pb2.VolumeListResponse:
        environment = self._cloud.environment(request.environment_name)
        before = request.pagination.created_before or float("inf")
        found = [
            volume
            for volume in self._cloud.volumes.values()
            if volume.name and volume.environment == environment and volume.created_at < before
        ]
        found.sort(key=lambda volume: -volume.created_at)
        items = [
            api_pb2.VolumeListItem(
                label=volume.name,
                volume_id=volume.volume_id,
                created_at=volume.created_at,
                metadata=metadata(volume),
            )
            for volume in found[: request.pagination.max_objects or None]
        ]
        return api_pb2.VolumeListResponse(items=items, environment_name=environment)

    async def VolumeDelete(self, request: api_pb2.VolumeDeleteRequest) -> Empty:
        volume = self._cloud.volume(request.volume_id)
        del self._cloud.volumes[volume.volume_id]
        shutil.rmtree(volume.folder)
        return Empty()

    async def VolumeRename(self, request: api_pb2.VolumeRenameRequest) -> Empty:
        volume = self._cloud.volume(request.volume_id)
        if self._find(request.name, volume.environment):
            refuse(Status.ALREADY_EXISTS, f"Volume '{request.name}' already exists.")
        volume.name = request.name
        return Empty()

    async def VolumeListFiles(
        self, request: api_pb2.VolumeListFilesRequest
    ) -> AsyncIterator[api_pb2.VolumeListFilesResponse]:
        entries = self._entries(request.volume_id, request.path, is_recursive=request.recursive)
        for start in range(0, len(entries), BATCH):
            yield api_pb2.VolumeListFilesResponse(entries=entries[start : start + BATCH])

    async def VolumeListFiles2(
        self, request: api_pb2.VolumeListFiles2Request
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        entries = self._entries(request.volume_id, request.path, is_recursive=request.recursive)
        for start in range(0, len(entries), BATCH):
            yield api_pb2.VolumeListFiles2Response(entries=entries[start : start + BATCH])

    async def VolumePutFiles(self, request: api_pb2.VolumePutFilesRequest) -> Empty:
        self._expect(request.volume_id, V1)
        names = [file.filename for file in request.files]
        self._check_targets(request.volume_id, names, is_new=request.disallow_overwrite_existing_files)
        for file in request.files:
            path = self._path(request.volume_id, file.filename)
            await asyncio.to_thread(self._put, [stored(self._cloud, file.sha256_hex)], path, file.mode or 0o644)
        return Empty()

    async def VolumePutFiles2(self, request: api_pb2.VolumePutFiles2Request) -> api_pb2.VolumePutFiles2Response:
        self._expect(request.volume_id, V2)
        names = [file.path for file in request.files]
        self._check_targets(request.volume_id, names, is_new=request.disallow_overwrite_existing_files)
        missing = [
            api_pb2.VolumePutFiles2Response.MissingBlock(
                file_index=file_index, block_index=block_index, put_url=f"{self._cloud.url}/block/{name}"
            )
            for file_index, file in enumerate(request.files)
            for block_index, name in enumerate(block.contents_sha256.hex() for block in file.blocks)
            if not stored(self._cloud, name).exists()
        ]
        if not missing:
            for file in request.files:
                blocks = [stored(self._cloud, block.contents_sha256.hex()) for block in file.blocks]
                path = self._path(request.volume_id, file.path)
                await asyncio.to_thread(self._put, blocks, path, file.mode or 0o644, file.size)
        return api_pb2.VolumePutFiles2Response(missing_blocks=missing)

    async def VolumeGetFile2(self, request: api_pb2.VolumeGetFile2Request) -> api_pb2.VolumeGetFile2Response:
        path = self._path(request.volume_id, request.path)
        if not path.is_file():
            refuse(Status.NOT_FOUND, f"No such file: {request.path}")
        size = path.stat().st_size
        start = min(request.start, size)
        length = min(request.len or size, size - start)
        # A link of its own: what is read later is the file as it is now, whatever is committed meanwhile.
        snapshot = self._cloud.folder / "reads" / new_id("rd")
        snapshot.parent.mkdir(exist_ok=True)
        os.link(path, snapshot)
        edges = [start, *range((start // BLOCK_BYTES + 1) * BLOCK_BYTES, start + length, BLOCK_BYTES), start + length]
        urls = [
            f"{self._cloud.url}/read/{snapshot.name}?start={begin}&end={end}"
            for begin, end in itertools.pairwise(edges)
            if end > begin
        ]
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=start, len=length)

    async def VolumeRemoveFile(self, request: api_pb2.VolumeRemoveFileRequest) -> Empty:
        return self._remove(request.volume_id, request.path, is_recursive=request.recursive)

    async def VolumeRemoveFile2(self, request: api_pb2.VolumeRemoveFile2Request) -> Empty:
        return self._remove(request.volume_id, request.path, is_recursive=request.recursive)

    async def VolumeCopyFiles(self, request: api_pb2.VolumeCopyFilesRequest) -> Empty:
        self._expect(request.volume_id, V1)
        return await asyncio.to_thread(self._copy, request.volume_id, list(request.src_paths), request.dst_path)

    async def VolumeCopyFiles2(self, request: api_pb2.VolumeCopyFiles2Request) -> Empty:
        self._expect(request.volume_id, V2)
        return await asyncio.to_thread(self._copy, request.volume_id, list(request.src_paths), request.dst_path)

    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest) -> api_pb2.VolumeCommitResponse:
        container = self._cloud.calling_container()
        mount = self._mount(container, request.volume_id)
        if mount.is_read_only:
            # The runtime commits every volume when it ends, these too.
            return api_pb2.VolumeCommitResponse(skip_reload=True)
        async with self.lock(request.volume_id):
            mount.known = await asyncio.to_thread(
                files.commit, mount.view, mount.store, mount.known, self._room(container)
            )
        return api_pb2.VolumeCommitResponse(skip_reload=True)

    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest) -> Empty:
        container = self._cloud.calling_container()
        mount = self._mount(container, request.volume_id)
        assert container.process is not None
        pids = container.process.pids()
        if held := await asyncio.to_thread(files.open_files, pids, mount.view):
            refuse(Status.FAILED_PRECONDITION, f"{OPEN_FILES}: {', '.join(held)}")
        async with self.lock(request.volume_id):
            mount.known = await asyncio.to_thread(
                files.reload, mount.view, mount.store, mount.known, self._room(container)
            )
        return Empty()

    def lock(self, volume_id: str) -> asyncio.Lock:
        """Held while a volume's committed state is read or changed as a whole."""
        return self._locks.setdefault(volume_id, asyncio.Lock())

    def _find(self, name: str, environment: str) -> Volume | None:
        found = self._cloud.volumes.values()
        return next((volume for volume in found if (volume.name, volume.environment) == (name, environment)), None)

    def _create(self, name: str, environment: str, version: int) -> Volume:
        volume_id = new_id("vo")
        folder = self._cloud.folder / "volumes" / volume_id
        folder.mkdir(parents=True)
        volume = Volume(volume_id, name, environment, version or V1, folder)
        self._cloud.volumes[volume_id] = volume
        return volume

    def _expect(self, volume_id: str, version: int) -> None:
        if self._cloud.volume(volume_id).version != version:
            refuse(Status.FAILED_PRECONDITION, "This is not how files are put on a volume of this version.")

    def _path(self, volume_id: str, name: str) -> Path:
        """Where a file of a volume is; names stay within it."""
        parts = [part for part in PurePosixPath("/", name).parts[1:] if part != "."]
        if ".." in parts:
            refuse(Status.INVALID_ARGUMENT, f"Not a path within the volume: {name}")
        return self._cloud.volume(volume_id).folder.joinpath(*parts)

    def _check_targets(self, volume_id: str, names: list[str], *, is_new: bool) -> None:
        for name in names:
            path = self._path(volume_id, name)
            if path.is_dir() or (is_new and path.exists()):
                refuse(Status.ALREADY_EXISTS, f"{name}: already exists")

    def _put(self, contents: list[Path], path: Path, mode: int, size: int | None = None) -> None:
        """Put a file together; with a size, of blocks whose zeros at the end were left out."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._cloud.folder / "contents" / new_id("put")
        temporary.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            for index, content in enumerate(contents):
                file.seek(index * BLOCK_BYTES)
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file)
            if size is not None:
                file.truncate(size)
        temporary.chmod(mode & 0o777)
        temporary.replace(path)

    def _entries(self, volume_id: str, name: str, *, is_recursive: bool) -> list[api_pb2.FileEntry]:
        root = self._cloud.volume(volume_id).folder
        path = self._path(volume_id, name)
        if path.is_file() or path.is_symlink():
            return [entry(path, root)]
        if not path.is_dir():
            refuse(Status.NOT_FOUND, f"No such file or directory: {name}")
        return [entry(found, root) for found in sorted(path.rglob("*") if is_recursive else path.iterdir())]

    def _remove(self, volume_id: str, name: str, *, is_recursive: bool) -> Empty:
        path = self._path(volume_id, name)
        if path.is_dir() and not path.is_symlink():
            if not is_recursive:
                refuse(Status.INVALID_ARGUMENT, f"{name} is a directory")
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            refuse(Status.NOT_FOUND, f"No such file or directory: {name}")
        return Empty()

    def _copy(self, volume_id: str, sources: list[str], name: str) -> Empty:
        """As `cp` does: the folder of the target must be there. The copies are files written now."""
        target = self._path(volume_id, name)
        if len(sources) > 1 and not target.is_dir():
            refuse(Status.INVALID_ARGUMENT, f"{name} is not a directory")
        if not target.parent.is_dir():
            refuse(Status.NOT_FOUND, f"No such file or directory: {name}")
        for source in sources:
            path = self._path(volume_id, source)
            if not path.is_file():
                refuse(Status.NOT_FOUND, f"No such file: {source}")
            self._put([path], target / path.name if target.is_dir() else target, path.stat().st_mode)
        return Empty()

    def _mount(self, container: Container, volume_id: str) -> VolumeMount:
        return container.mounts.get(volume_id) or refuse(
            Status.NOT_FOUND, f"Volume '{volume_id}' is not mounted in this container."
        )

    def _room(self, container: Container) -> Path:
        return self._cloud.folder / "containers" / container.task_id / "room"


def version_of(volume: Volume) -> api_pb2.VolumeFsVersion.ValueType:
    return V2 if volume.version == V2 else V1


def metadata(volume: Volume) -> api_pb2.VolumeMetadata:
    info = api_pb2.CreationInfo(created_at=volume.created_at, created_by="tester")
    return api_pb2.VolumeMetadata(version=version_of(volume), name=volume.name, creation_info=info)


def entry(path: Path, root: Path) -> api_pb2.FileEntry:
    stat = path.lstat()
    kind = api_pb2.FileEntry.DIRECTORY if path.is_dir() else api_pb2.FileEntry.FILE
    if path.is_symlink():
        kind = api_pb2.FileEntry.SYMLINK
    size = 0 if path.is_dir() else stat.st_size
    name = path.relative_to(root).as_posix()
    return api_pb2.FileEntry(path=name, type=kind, mtime=int(stat.st_mtime), size=size)
