"""What the control plane knows: plain data, no protocol and no processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import string
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import NoReturn, Protocol

from grpclib import GRPCError, Status
from modal_proto import api_pb2

CLIENT = "client"
CALLER: ContextVar[str] = ContextVar("caller", default=CLIENT)
"""Who asks: `client`, or the id of the container."""

ENVIRONMENT = "main"
WORKSPACE = "double"
ALPHABET = string.ascii_letters + string.digits
BUILDER_VERSION = "2025.06"

# Names and form as Modal's own answer has them; the amounts are those of October 2026.
RATES = {
    "gpu_hour_cost_t4": "0.59000",
    "gpu_hour_cost_l4": "0.80000",
    "gpu_hour_cost_a10g": "1.10000",
    "gpu_hour_cost_l40s": "1.95000",
    "gpu_hour_cost_a100_40gb": "2.10000",
    "gpu_hour_cost_a100_80gb": "2.50000",
    "gpu_hour_cost_rtx6000": "3.03000",
    "gpu_hour_cost_h100": "3.95000",
    "gpu_hour_cost_h200": "4.54000",
    "gpu_hour_cost_b200": "6.25000",
    "gpu_hour_cost_b300": "7.10000",
    "cpu_hour_cost": "0.04730",
    "mem_gib_hour_cost": "0.00800",
    "cpu_hour_cost_sandbox": "0.141900",
    "mem_gib_hour_cost_sandbox": "0.024000",
    "volume_storage_gib_month_cost": "0.09000",
}

PENDING, RUNNING, DONE = "pending", "running", "done"
STARTING, IDLE, BUSY, ENDED = "starting", "idle", "busy", "ended"


def refuse(status: Status, message: str) -> NoReturn:
    raise GRPCError(status, message)


def new_id(prefix: str) -> str:
    """An id of the shape Modal's have: the client tells some of them from names by their length."""
    return f"{prefix}-" + "".join(secrets.choice(ALPHABET) for _ in range(22))


def id_of(prefix: str, content: bytes) -> str:
    """The id of something that is what it contains."""
    return f"{prefix}-{hashlib.sha256(content).hexdigest()[:22]}"


class Bell:
    """Wakes everyone who waits, as often as it rings."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next ring, or until the time is over."""
        # Not wait_for, which forgets a cancellation that comes together with the ring.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._event.wait()


@dataclass
class App:
    app_id: str
    name: str
    environment: str
    state: int
    created_at: float = field(default_factory=time.time)
    deployed_at: float = 0.0
    stopped_at: float = 0.0
    version: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)

    @property
    def is_stopped(self) -> bool:
        return self.state == api_pb2.APP_STATE_STOPPED


@dataclass
class Function:
    """A function, a class (its name ends in `.*`), or a variant of one that `with_options` made."""

    function_id: str
    app_id: str
    name: str
    definition: api_pb2.Function = field(default_factory=api_pb2.Function)
    data: api_pb2.FunctionData = field(default_factory=api_pb2.FunctionData)
    staged: tuple[api_pb2.Function, api_pb2.FunctionData] | None = None
    """What the next publication makes the definition."""
    base_id: str = ""
    options: api_pb2.FunctionOptions = field(default_factory=api_pb2.FunctionOptions)
    params: bytes = b""
    generation: int = 0
    """Counts definitions: containers of an older one take no further input."""
    autoscaler: api_pb2.AutoscalerSettings = field(default_factory=api_pb2.AutoscalerSettings)
    """What `autoscaler.update` said since the last deployment."""

    @property
    def settings(self) -> api_pb2.AutoscalerSettings:
        """The autoscaler's settings in force."""
        found = api_pb2.AutoscalerSettings()
        found.CopyFrom(self.definition.autoscaler_settings)
        if self.options.HasField("concurrency_limit"):
            found.max_containers = self.options.concurrency_limit
        if self.options.HasField("task_idle_timeout_secs"):
            found.scaledown_window = self.options.task_idle_timeout_secs
        if self.base_id:
            found.ClearField("min_containers")
        found.MergeFrom(self.autoscaler)
        return found


@dataclass
class Input:
    input_id: str
    call_id: str
    function_id: str
    idx: int
    payload: api_pb2.FunctionInput
    state: str = PENDING
    retry_count: int = 0
    not_before: float = 0.0
    enqueued_at: float = field(default_factory=time.time)
    started_at: float = 0.0
    finished_at: float = 0.0
    task_id: str = ""
    cancelled_at: float = 0.0
    output: api_pb2.FunctionGetOutputsItem | None = None


@dataclass
class Call:
    call_id: str
    function_id: str
    app_id: str
    invocation_type: int
    created_at: float = field(default_factory=time.time)
    inputs: list[Input] = field(default_factory=list)
    is_expired: bool = False


@dataclass
class VolumeMount:
    """A volume as one container has it: a copy, and what the copy was made from."""

    volume_id: str
    mount_path: str
    view: Path
    store: Path
    is_read_only: bool
    known: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Modification time in ns and size of each file of the copy when copy and store last agreed."""


class Process(Protocol):
    """The running side of a container, as `containers.py` makes it."""

    @property
    def pid(self) -> int: ...

    def interrupt(self) -> None: ...

    def kill(self) -> None: ...

    def pids(self) -> list[int]: ...


@dataclass
class Container:
    task_id: str
    function_id: str
    app_id: str
    name: str
    gpu: str
    generation: int
    cores: float = 0.125
    gib: float = 0.125
    regions: tuple[str, ...] = ()
    state: str = STARTING
    enqueued_at: float = field(default_factory=time.time)
    process_at: float = 0.0
    """When its process was started: from then on it is billed."""
    started_at: float = 0.0
    told_at: float = 0.0
    """When it was first told to end; 0 if it was not."""
    finished_at: float = 0.0
    idle_since: float = 0.0
    kill_at: float = 0.0
    """When it is killed, whatever it does; 0 for never."""
    is_ending: bool = False
    input: Input | None = None
    mounts: dict[str, VolumeMount] = field(default_factory=dict)
    process: Process | None = None
    exit_code: int | None = None
    end_reason: str = ""

    @property
    def is_alive(self) -> bool:
        return self.state != ENDED

    def end(self) -> None:
        """It is told to end: it takes no further input."""
        self.is_ending, self.told_at = True, self.told_at or time.time()


@dataclass
class Volume:
    volume_id: str
    name: str
    environment: str
    version: int
    folder: Path
    created_at: float = field(default_factory=time.time)


@dataclass
class Secret:
    secret_id: str
    name: str
    environment: str
    values: dict[str, str]
    created_at: float = field(default_factory=time.time)


@dataclass
class Dict:
    dict_id: str
    name: str
    environment: str
    values: dict[bytes, bytes] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)


@dataclass
class LogLine:
    number: int
    timestamp_ns: int
    source: int
    text: str
    app_id: str
    function_id: str
    task_id: str
    call_id: str
    input_id: str


@dataclass
class Faults:
    """What the control interface asked for."""

    failing: dict[str, list[Status]] = field(default_factory=dict)
    """By RPC: the answers of the next requests, which have no effect."""
    losing: dict[str, int] = field(default_factory=dict)
    """By RPC: how many answers are lost after they took effect."""
    is_holding_inputs: bool = False
    block_bytes_per_s: int = 0


@dataclass
class Bills:
    """What is asked, and how the bill is told. Containers are billed for more than they ask for if they use more."""

    rates: dict[str, str] = field(default_factory=lambda: dict(RATES))
    price: float = 1.0
    """Everything costs so many times more: seconds of a test become dollars."""
    used_with_gpu: tuple[float, float] = (0.0, 0.0)
    used_without_gpu: tuple[float, float] = (0.0, 0.0)
    """Cores and GiB."""
    shift_s: float = 0.0
    """How far the bill's clock is ahead: an hour can end while a test looks on."""
    closed: str = ""
    """The status with which the report is refused, if it is."""
    is_late: bool = False
    """The running hour is not told yet."""
    collected: float = 1.0
    """The part of each row that has been collected so far."""
    extra: dict[str, str] = field(default_factory=dict)
    """Dollars of further resources in every row, by their names."""

    def scaled_rates(self) -> dict[str, str]:
        """As they are told, and as they are billed."""
        if self.price == 1.0:
            return self.rates
        factor = Decimal(str(self.price))
        return {key: str(Decimal(text) * factor) for key, text in self.rates.items()}


@dataclass
class Cloud:
    folder: Path
    url: str = ""
    """Of the HTTP side: blobs, blocks and control."""
    token_id: str = field(default_factory=lambda: new_id("ak"))
    token_secret: str = field(default_factory=lambda: new_id("as"))
    environments: dict[str, str] = field(default_factory=lambda: {ENVIRONMENT: new_id("en")})
    apps: dict[str, App] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    """By class id: the app it is in."""
    images: dict[str, api_pb2.Image] = field(default_factory=dict)
    mounts: dict[str, list[api_pb2.MountFile]] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    dicts: dict[str, Dict] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    requests: list[dict[str, object]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    bills: Bills = field(default_factory=Bills)
    bell: Bell = field(default_factory=Bell)
    """Rings whenever something changed that somebody may wait for."""
    log_count: int = 0

    def environment(self, name: str) -> str:
        """The environment of that name, or the default one; NOT_FOUND if there is none."""
        found = name or ENVIRONMENT
        if found not in self.environments:
            refuse(Status.NOT_FOUND, f"Environment '{found}' not found.")
        return found

    def app(self, app_id: str) -> App:
        return self.apps.get(app_id) or refuse(Status.NOT_FOUND, f"App '{app_id}' not found.")

    def deployed(self, name: str, environment: str) -> App | None:
        """The deployed app of that name."""
        found = self.environment(environment)
        apps = [app for app in self.apps.values() if app.name == name and app.environment == found]
        return next((app for app in apps if app.state == api_pb2.APP_STATE_DEPLOYED), None)

    def function(self, function_id: str) -> Function:
        return self.functions.get(function_id) or refuse(Status.NOT_FOUND, f"Function '{function_id}' not found.")

    def call(self, call_id: str) -> Call:
        return self.calls.get(call_id) or refuse(Status.NOT_FOUND, f"FunctionCall '{call_id}' not found.")

    def container(self, task_id: str) -> Container:
        return self.containers.get(task_id) or refuse(Status.NOT_FOUND, f"Task '{task_id}' not found.")

    def calling_container(self) -> Container:
        """The container that asks; only containers may."""
        return self.containers.get(CALLER.get()) or refuse(
            Status.FAILED_PRECONDITION, "This can only be done inside a container."
        )

    def volume(self, volume_id: str) -> Volume:
        return self.volumes.get(volume_id) or refuse(Status.NOT_FOUND, f"Volume '{volume_id}' not found.")

    def pending(self, function_id: str) -> list[Input]:
        """Inputs that may run now, oldest first."""
        now = time.time()
        return [
            found
            for found in self.inputs.values()
            if found.function_id == function_id and found.state == PENDING and found.not_before <= now
        ]

    def alive(self, function_id: str) -> list[Container]:
        return [found for found in self.containers.values() if found.function_id == function_id and found.is_alive]

    def log(self, container: Container, source: int, text: str) -> None:
        """Remember a line of a container, or about it."""
        self.log_count += 1
        doing = container.input
        line = LogLine(
            self.log_count,
            time.time_ns(),
            source,
            text,
            container.app_id,
            container.function_id,
            container.task_id,
            doing.call_id if doing else "",
            doing.input_id if doing else "",
        )
        self.logs.append(line)
        self.bell.ring()
