"""Containers: the real runtime in a process of its own, with what Modal's workers would have prepared for it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import psutil
from grpclib import GRPCError
from modal_proto import api_pb2

from tests.doubles.modal_cloud import files, jail
from tests.doubles.modal_cloud.cloud import WORKSPACE, Cloud, Container, Function, VolumeMount
from tests.doubles.modal_cloud.rpc_apps import layout
from tests.doubles.modal_cloud.rpc_images import image_environ
from tests.doubles.modal_cloud.rpc_mounts import stored
from tests.doubles.modal_cloud.rpc_volumes import VolumeRpc
from tests.doubles.modal_cloud.scheduler import Ended

CODE_ROOT = PurePosixPath("/root")
BUCKET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SIDES = ("stdout", "stderr")
LAST_WORDS_S = 2.0
LONGEST_LINE = 1 << 20
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL")

Serve = Callable[[Container], Awaitable[str]]
"""Opens a control plane for one container; returns its address."""

Close = Callable[[Container], None]


@dataclass(frozen=True)
class Settings:
    """How containers are made."""

    python: Path
    image_env: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[Path, ...] = ()
    buckets: Path | None = None
    """Has a folder for every bucket there is, whoever's it is."""
    is_flat: bool = False


class RunningProcess:
    """A container's processes: in a namespace of their own, or flat in a process group."""

    def __init__(self, process: Process, *, is_flat: bool) -> None:
        self._process = process
        self._is_flat = is_flat

    @property
    def pid(self) -> int:
        """The runtime's, as this machine counts; the outermost process's while there is no runtime yet."""
        return self._runtime() or self._process.pid

    def interrupt(self) -> None:
        runtime = self._runtime()
        if runtime is None:
            self.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(runtime, signal.SIGINT)

    def kill(self) -> None:
        if self._is_flat:
            for found in children_of(self._process.pid, is_recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.kill()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def pids(self) -> list[int]:
        return [self._process.pid, *(found.pid for found in children_of(self._process.pid, is_recursive=True))]

    def _runtime(self) -> int | None:
        """In a namespace: the eldest child of its first process, which is the only child of `unshare`."""
        if self._is_flat:
            return self._process.pid
        first = children_of(self._process.pid)
        inner = children_of(first[0].pid) if first else []
        return inner[0].pid if inner else None


def children_of(pid: int, *, is_recursive: bool = False) -> list[psutil.Process]:
    """Eldest first; none if the process is gone."""
    try:
        return sorted(psutil.Process(pid).children(recursive=is_recursive), key=psutil.Process.create_time)
    except psutil.NoSuchProcess:
        return []


class Containers:
    def __init__(self, cloud: Cloud, volumes: VolumeRpc, settings: Settings, serve: Serve, close: Close) -> None:
        self._cloud = cloud
        self._volumes = volumes
        self._settings = settings
        self._serve = serve
        self._close = close
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, container: Container, ended: Ended) -> None:
        try:
            process = await self._start(container)
        except (OSError, shutil.Error, GRPCError, KeyError) as error:
            print(f"container {container.task_id}: {error!r}", file=sys.stderr)
            ended(container, None, f"The container could not be made: {error}")
            return
        task = asyncio.create_task(self._follow(container, process, ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End every container at once."""
        for container in self._cloud.containers.values():
            if container.process and container.is_alive:
                container.process.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, container: Container) -> Process:
        function = self._cloud.function(container.function_id)
        folder = self._cloud.folder / "containers" / container.task_id
        for name in ("root", "home", "tmp", "code"):
            (folder / name).mkdir(parents=True)
        await self._mount_volumes(container, function, folder)
        buckets = self._mount_buckets(function)
        loose = self._place_code(function, folder)
        address = await self._serve(container)
        arguments = folder / "arguments.bin"
        arguments.write_bytes(self._arguments(container, function).SerializeToString())
        environ = self._environ(container, function, folder, buckets)
        environ |= {"MODAL_SERVER_URL": address, "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments)}
        argv = self._argv(container, folder, loose, buckets)
        # asyncio starts processes from this thread, which lives as long as the double does.
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder / "code",
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,
            preexec_fn=prepare_child,
        )
        container.process_at = time.time()
        container.process = RunningProcess(process, is_flat=self._settings.is_flat)
        return process

    async def _mount_volumes(self, container: Container, function: Function, folder: Path) -> None:
        for wanted in function.definition.volume_mounts:
            store = self._cloud.volume(wanted.volume_id).folder
            if wanted.HasField("sub_path"):
                store = store / wanted.sub_path.strip("/")
                store.mkdir(parents=True, exist_ok=True)
            mount = VolumeMount(
                wanted.volume_id, wanted.mount_path, folder / "volumes" / wanted.volume_id, store, wanted.read_only
            )
            async with self._volumes.lock(wanted.volume_id):
                mount.known = await asyncio.to_thread(files.copy_folder, store, mount.view, is_linking=wanted.read_only)
            container.mounts[wanted.volume_id] = mount

    def _mount_buckets(self, function: Function) -> dict[str, Path]:
        """Where each bucket of the function comes from, by where it is mounted: no copy, and nothing is written there.

        A container whose bucket does not open is not made.
        """
        found = {}
        for wanted in function.definition.cloud_bucket_mounts:
            keys = self._cloud.secrets[wanted.credentials_secret_id].values
            missing = [name for name in BUCKET_KEYS if not keys.get(name)]
            if missing:
                raise OSError(f"no {' and no '.join(missing)} for the bucket {wanted.bucket_name}")
            place = (self._settings.buckets or Path("/nowhere")) / wanted.bucket_name
            if not place.is_dir():
                raise OSError(f"the bucket {wanted.bucket_name} does not exist")
            place = place / wanted.key_prefix.rstrip("/")
            # A prefix is only the beginning of names: there need be none.
            place.mkdir(parents=True, exist_ok=True)
            found[wanted.mount_path] = place
        return found

    def _place_code(self, function: Function, folder: Path) -> list[tuple[Path, str]]:
        """Put the mounted files in place; what is not below `/root` is returned with where it belongs."""
        loose = []
        for mount_id in function.definition.mount_ids:
            for file in self._cloud.mounts.get(mount_id, []):
                name = PurePosixPath(file.filename)
                if name.is_relative_to(CODE_ROOT):
                    path = folder / "code" / name.relative_to(CODE_ROOT)
                else:
                    path = folder / "files" / name.relative_to("/")
                    loose.append((path, str(name)))
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(stored(self._cloud, file.sha256_hex), path)
                path.chmod((file.mode or 0o644) & 0o777)
        return loose

    def _arguments(self, container: Container, function: Function) -> api_pb2.ContainerArguments:
        app = self._cloud.app(function.app_id)
        found = layout(self._cloud, app)
        definition = api_pb2.Function()
        definition.CopyFrom(function.definition)
        return api_pb2.ContainerArguments(
            task_id=container.task_id,
            function_id=function.function_id,
            app_id=app.app_id,
            function_def=definition,
            serialized_params=function.params,
            environment_name=app.environment,
            app_layout=found,
        )

    def _environ(
        self, container: Container, function: Function, folder: Path, buckets: Mapping[str, Path]
    ) -> dict[str, str]:
        definition = function.definition
        environ = {
            "PATH": os.pathsep.join([str(self._settings.python.parent), os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONUNBUFFERED": "1",
            # Several run at once: threads of one that wait for each other keep the processors from the others.
            "OMP_NUM_THREADS": "1",
        }
        environ |= image_environ(self._cloud, definition.image_id)
        environ |= self._settings.image_env
        for secret_id in definition.secret_ids:
            environ |= self._cloud.secrets[secret_id].values
        if self._settings.is_flat:
            views = {mount.mount_path: str(mount.view) for mount in container.mounts.values()}
            # What names the folder in which buckets are mounted finds them there, too.
            for mount_path, place in buckets.items():
                link = folder / "buckets" / mount_path.lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(place)
                views |= {mount_path: str(link), str(PurePosixPath(mount_path).parent): str(link.parent)}
            environ = {name: views.get(value, value) for name, value in environ.items()}
        return environ | {
            "PYTHONPATH": str(folder / "code"),
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": container.task_id,
            "MODAL_IMAGE_ID": definition.image_id,
            "MODAL_ENVIRONMENT": self._cloud.app(container.app_id).environment,
            "MODAL_WORKSPACE": WORKSPACE,
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_DOUBLE",
            "MODAL_REGION": "nowhere-1",
            "MODAL_CONFIG_PATH": str(folder / "home" / "modal.toml"),
        }

    def _argv(
        self, container: Container, folder: Path, loose: list[tuple[Path, str]], buckets: Mapping[str, Path]
    ) -> list[str]:
        runtime = [str(self._settings.python), "-m", "modal._container_entrypoint"]
        if self._settings.is_flat:
            return runtime
        binds = [(str(mount.view), mount.mount_path, mount.is_read_only) for mount in container.mounts.values()]
        binds += [(str(place), mount_path, True) for mount_path, place in buckets.items()]
        binds += [(str(path), name, True) for path, name in loose]
        spec = {
            "root": str(folder / "root"),
            "binds": binds,
            "hidden": [str(found) for found in self._settings.hidden],
            "argv": runtime,
            "cwd": str(folder / "code"),
        }
        path = folder / "jail.json"
        path.write_text(json.dumps(spec))
        return [*UNSHARE, sys.executable, "-I", "-S", str(jail.__file__), str(path)]

    async def _follow(self, container: Container, process: Process, ended: Ended) -> None:
        readers = [asyncio.create_task(self._read(container, *side(process, name))) for name in SIDES]
        code = await process.wait()
        container.finished_at = time.time()
        if self._settings.is_flat:
            # Whatever it left behind, a server it started for instance, goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait(readers, timeout=LAST_WORDS_S)
        for reader in readers:
            reader.cancel()
        self._close(container)
        ended(container, code)

    async def _read(self, container: Container, source: int, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as rest:
                line = rest.partial
            except asyncio.LimitOverrunError as overrun:
                line = await stream.readexactly(overrun.consumed)
            if not line:
                return
            self._cloud.log(container, source, line.decode(errors="replace"))


def side(process: Process, name: str) -> tuple[int, asyncio.StreamReader]:
    stream = getattr(process, name)
    assert isinstance(stream, asyncio.StreamReader)
    return (api_pb2.FILE_DESCRIPTOR_STDOUT if name == "stdout" else api_pb2.FILE_DESCRIPTOR_STDERR), stream


def prepare_child() -> None:
    """Run in the new process: end with the double, however it ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@functools.cache
def can_isolate() -> bool:
    """Whether containers can have file systems and processes of their own: tried, as root is not always enough."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0
