"""Run the double: prints how to reach it, then serves until it is told to end.

python -m tests.doubles.modal_cloud --folder DIR --container-python PYTHON [--image-env KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from tests.doubles.modal_cloud.cloud import Cloud
from tests.doubles.modal_cloud.containers import Containers, Settings, can_isolate
from tests.doubles.modal_cloud.control import Control
from tests.doubles.modal_cloud.rpc_apps import AppRpc
from tests.doubles.modal_cloud.rpc_billing import BillingRpc
from tests.doubles.modal_cloud.rpc_calls import CallRpc
from tests.doubles.modal_cloud.rpc_containers import ContainerRpc
from tests.doubles.modal_cloud.rpc_dicts import DictRpc
from tests.doubles.modal_cloud.rpc_functions import FunctionRpc
from tests.doubles.modal_cloud.rpc_images import ImageRpc
from tests.doubles.modal_cloud.rpc_logs import LogRpc
from tests.doubles.modal_cloud.rpc_mounts import MountRpc
from tests.doubles.modal_cloud.rpc_secrets import SecretRpc
from tests.doubles.modal_cloud.rpc_volumes import VolumeRpc
from tests.doubles.modal_cloud.rpc_workspace import WorkspaceRpc
from tests.doubles.modal_cloud.scheduler import Scheduler
from tests.doubles.modal_cloud.server import HOST, Doors, Rpcs

LONGEST_FOLDER = 90


def main() -> None:
    options = parse()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sockets = socket_folder(folder)
    settings = Settings(
        # Not resolved: a virtual environment's interpreter is a link.
        options.container_python.absolute(),
        dict(pair.split("=", 1) for pair in options.image_env),
        tuple(found.resolve() for found in options.hide),
        options.buckets.resolve() if options.buckets else None,
        options.flat or not can_isolate(),
    )
    try:
        asyncio.run(serve(folder, sockets, settings, until_eof=options.until_eof))
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def socket_folder(folder: Path) -> Path:
    """Where sockets are: in *folder*, or elsewhere if their paths would be longer than the system allows."""
    sockets = folder / "sockets"
    if len(str(sockets)) > LONGEST_FOLDER:
        return Path(tempfile.mkdtemp(prefix="modal-cloud-"))
    sockets.mkdir(exist_ok=True)
    return sockets


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="modal_cloud", description="A double of Modal's control plane.")
    parser.add_argument("--folder", type=Path, required=True, help="where everything lives")
    parser.add_argument("--container-python", type=Path, required=True, help="has modal and what it needs, no more")
    parser.add_argument("--image-env", action="append", default=[], metavar="KEY=VALUE", help="over the image's own")
    parser.add_argument("--hide", type=Path, action="append", default=[], help="empty for containers")
    parser.add_argument("--buckets", type=Path, help="a folder for every bucket that functions can mount")
    parser.add_argument("--flat", action="store_true", help="no namespaces; where they cannot be had, always")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin does")
    return parser.parse_args()


async def serve(folder: Path, sockets: Path, settings: Settings, *, until_eof: bool) -> None:
    cloud = Cloud(folder)
    scheduler = Scheduler(cloud)
    volumes = VolumeRpc(cloud)
    services = [
        *(
            WorkspaceRpc(cloud),
            BillingRpc(cloud),
            ImageRpc(cloud),
            MountRpc(cloud),
            SecretRpc(cloud),
            DictRpc(cloud),
            volumes,
        ),
        *(AppRpc(cloud, scheduler), FunctionRpc(cloud), CallRpc(cloud, scheduler)),
        *(ContainerRpc(cloud, scheduler), LogRpc(cloud)),
    ]
    rpcs = Rpcs(cloud, services)
    doors = Doors(rpcs, sockets)
    containers = Containers(cloud, volumes, settings, doors.open_for, doors.close_for)
    runner = web.AppRunner(Control(cloud, scheduler, doors.go_away).app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    cloud.url = f"http://{HOST}:{runner.addresses[0][1]}"
    await doors.open()
    announce(environ_for(cloud, doors) | {"MODAL_CLOUD_MODE": "flat" if settings.is_flat else "namespaced"})
    ending = asyncio.create_task(told_to_end(until_eof))
    working = asyncio.create_task(scheduler.run(containers))
    await asyncio.wait([ending, working], return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    await containers.stop()
    await doors.close()
    await runner.cleanup()
    rpcs.close()
    if not working.cancelled() and working.done():
        working.result()


def environ_for(cloud: Cloud, doors: Doors) -> dict[str, str]:
    return {
        "MODAL_SERVER_URL": doors.url,
        "MODAL_TOKEN_ID": cloud.token_id,
        "MODAL_TOKEN_SECRET": cloud.token_secret,
        "MODAL_CONFIG_PATH": str(cloud.folder / "no-modal.toml"),
        "MODAL_CLOUD_CONTROL": cloud.url,
    }


def announce(environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        print(f"export {name}={value}")
    print(flush=True)


async def told_to_end(until_eof: bool) -> None:
    """Wait for a signal, or for the end of stdin."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if until_eof:

        def read() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(told.set)

        threading.Thread(target=read, daemon=True).start()
    await told.wait()


if __name__ == "__main__":
    main()
