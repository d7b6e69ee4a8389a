"""What a project file may say: the models, their defaults, and the words of its JSON Schema. Reads no files."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from comfymodal.project.ends import ROLES
from comfymodal.project.notify_values import Channel, EnvName, check_receiver
from comfymodal.project.problems import Mistake
from comfymodal.project.remotes import check_addresses
from comfymodal.project.rental_values import RENTAL_PRICES, Day, Rerun, SetupHours, Speed, UsdPerHour, UsdPerHourOrNone
from comfymodal.project.sync_values import Bucket, Endpoint, EndText, EntryName, FolderIn, Glob, Region, RemoteName
from comfymodal.project.values import (
    Commit,
    ContainerEnv,
    CustomNodes,
    Duration,
    DurationOrNever,
    EngineVersion,
    Gpu,
    Gpus,
    LocalPath,
    LongTimeout,
    ModalName,
    ModalRegion,
    Naming,
    ProjectName,
    PythonPackages,
    ScaledownWindow,
    Timeout,
    Url,
    Usd,
    VolumeVersion,
    refuse_lookalikes,
    whole,
)

VERSION = 1
"""The only version of the file format this release reads."""

_MOUNTED = ("models", "inputs", "outputs")
"""Volumes that render containers have; the others are only synced."""

ENTRY = "*"
"""Stands for the name of an entry in the dotted names of keys: `remotes.*.bucket`."""

BUDGETS = ("per_run_usd", "daily_usd", "monthly_usd", "total_usd")

AS_WRITTEN = (
    "comfyui.env",
    *(f"costs.{name}" for name in BUDGETS),
    *(f"costs.tags.{ENTRY}.{name}" for name in BUDGETS),
    *(f"costs.rentals.{ENTRY}.{name}" for name in RENTAL_PRICES),
)
"""Keys whose numbers and booleans are text: `CUDA: 12.10` is not 12.1, and dollars are never binary fractions."""

LOCAL_ONLY = frozenset(
    {f"comfyui.{name}" for name in ("url", "path", "python", "discover", "idle_stop")}
    | {f"volumes.{role}.path" for role in ROLES}
)
"""Keys that count on the local target only."""

_CONTAINERS = frozenset(
    {f"volumes.{role}.version" for role in _MOUNTED}
    | {f"mounts.{ENTRY}.{name}" for name in ("remote", "path")}
    | {"modal.region"}
    | {f"comfyui.{name}" for name in ("custom_nodes", "python_packages", "env", "secrets", "gpu", "timeout")}
    | {f"comfyui.{name}" for name in ("scaledown_window", "snapshot")}
    | {f"comfyui.{name}" for name in ("min_containers", "max_containers", "buffer_containers")}
)

MODAL_ONLY = (
    _CONTAINERS
    | {f"volumes.{role}.version" for role in ROLES}
    | {"modal.environment", "modal.workspace", f"remotes.{ENTRY}.secret"}
    | {f"costs.{name}" for name in (*BUDGETS, "tag", "on_exceed", "warn_at")}
    | {f"costs.tags.{ENTRY}.{name}" for name in BUDGETS}
    | {
        f"training.{name}"
        for name in ("gpu", "timeout", "retries", "memory", "secret", "toolkit_commit", "requirements")
    }
)
"""Keys that count on Modal only."""

DEPLOYED = (
    _CONTAINERS
    | {"comfyui.version", "comfyui.args", "comfyui.boot_timeout"}
    | {f"volumes.{role}.name" for role in _MOUNTED}
)
"""Keys that take effect on Modal with the next `deploy`; all others are read by every command."""

# pydantic puts the pattern of the names into the JSON Schema, and leaves it open for all other names.
_NO_OTHER_NAMES: dict[str, Any] = {"additionalProperties": False}


class Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        # Only Project is ever validated; building a validator for every part costs start-up time for nothing.
        defer_build=True,
    )


class Volume(Config):
    path: LocalPath | None = None
    """Folder on this machine that stands for the volume; without it, a folder under the user's state folder."""
    version: VolumeVersion = 2
    """Version of a volume that has to be created; an existing one is kept as it is. Modal calls version 2 beta."""


class ModelsVolume(Volume):
    name: ModalName = "comfy-models"
    """Name of the volume that holds models in ComfyUI's folders (checkpoints, loras, vae ...)."""


class InputsVolume(Volume):
    name: ModalName = "comfy-inputs"
    """Name of the volume that holds the files workflows read."""


class OutputsVolume(Volume):
    name: ModalName = "comfy-outputs"
    """Name of the volume that holds one folder per run."""


class DatasetsVolume(Volume):
    name: ModalName = "comfy-datasets"
    """Name of the volume that holds pictures and captions to train on."""


class TrainingVolume(Volume):
    name: ModalName = "training-data"
    """Name of the volume that holds what trainings write."""


class CacheVolume(Volume):
    name: ModalName = "comfy-cache"
    """Name of the volume that holds what trainings download: whole models of Hugging Face."""


class Volumes(Config):
    models: ModelsVolume = Field(default_factory=ModelsVolume)
    """Where models are kept."""
    inputs: InputsVolume = Field(default_factory=InputsVolume)
    """Where input files are kept."""
    outputs: OutputsVolume = Field(default_factory=OutputsVolume)
    """Where runs and their output files are kept."""
    datasets: DatasetsVolume = Field(default_factory=DatasetsVolume)
    """Where datasets are kept."""
    training: TrainingVolume = Field(default_factory=TrainingVolume)
    """Where trained models and their checkpoints are kept."""
    cache: CacheVolume = Field(default_factory=CacheVolume)
    """Where downloads of trainings are kept."""


class Remote(Config):
    type: Literal["b2", "s3"]
    """How the bucket is spoken to: `b2` is Backblaze's own way, `s3` everybody's, Backblaze included."""
    bucket: Bucket
    """Name of the bucket."""
    prefix: FolderIn = ""
    """Folder of the bucket that counts as its root; without it, the whole bucket."""
    endpoint: Endpoint | None = None
    """Address of the S3 service; without it, Amazon's. Type `b2` needs none."""
    region: Region | None = None
    """Region of the bucket, for type `s3`; an endpoint of Backblaze tells it by itself."""
    secret: ModalName = "b2-credentials"
    """Name of the Modal secret with the keys. On this machine they come from env vars or from `.env`. Modal only."""

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        check_addresses(self.type, self.endpoint, self.region)
        return self


class SyncPair(Config):
    # `from` is a word of Python.
    from_: EndText = Field(alias="from")
    """Where files come from: `REMOTE:folder`, `VOLUME:/folder` or a local folder, relative to the project file."""
    to: EndText
    """Where they go, written the same way."""
    include: tuple[Glob, ...] = ()
    """Only files that one of these patterns fits, for example `*.safetensors`; without any, all files."""
    exclude: tuple[Glob, ...] = ()
    """No files that one of these patterns fits, for example `*.ckpt`."""
    two_way: bool = False
    """Whether changes travel both ways; `from` and `to` then say only which places they are."""


class Mount(Config):
    remote: str
    """Name of a remote of type `s3`, whose files render containers then read without a copy. Modal only."""
    path: FolderIn = ""
    """Folder of the remote; without it, all of it. Modal only."""


class Modal(Config):
    environment: ModalName | None = None
    """Environment of the Modal workspace; without it, the one of Modal's own configuration."""
    workspace: ModalName | None = None
    """Workspace the token must belong to, so that nothing runs on another one's bill; without it, any."""
    region: ModalRegion | None = None
    """Where containers may run only, at a higher price: `us`, `eu` and `ap` cost 1.15 times as much, a narrower region
    like `us-west` 1.75 times (October 2026); without it, anywhere. Modal only."""


class ComfyUI(Config):
    url: Url | None = None
    """Address of a running ComfyUI server to use. Local target only."""
    path: LocalPath | None = None
    """ComfyUI installation to start when no server is running. Local target only."""
    python: LocalPath | None = None
    """Python that starts the installation, usually the one of its virtual environment. Local target only."""
    version: EngineVersion | None = None
    """Version of ComfyUI. On this machine an installed engine (`comfymodal engine status`), by default 0.3.75 when it
    is there, else the newest; on Modal the release the image is built from, by default the newest known."""
    args: tuple[str, ...] = ()
    """Extra arguments for ComfyUI when comfymodal starts it, for example `--lowvram`."""
    discover: bool = True
    """Whether to look for a running server on 127.0.0.1:8188. Local target only."""
    idle_stop: DurationOrNever = Field(default=900.0, json_schema_extra={"default": "15m"})
    """How long a started ComfyUI may be idle before it is stopped, or `never`. Local target only."""
    boot_timeout: Duration = Field(default=600.0, json_schema_extra={"default": "10m"})
    """How long a started ComfyUI may take until it answers."""
    stall_timeout: DurationOrNever = Field(default=900.0, json_schema_extra={"default": "15m"})
    """How long a prompt may show no sign of life before the run is ended, or `never`."""
    custom_nodes: CustomNodes = ()
    """Custom nodes in the image: `id@version` of the Comfy registry, or `https://host/path@COMMIT` with 40 hex digits.
    Modal only."""
    python_packages: PythonPackages = ()
    """Further Python packages in the image: `name==version`, `name @ https://...` or the address of a wheel.
    Modal only."""
    env: ContainerEnv = Field(default={})
    """Env vars of the render containers; no secrets: those are named under `secrets`. Modal only."""
    secrets: tuple[ModalName, ...] = ()
    """Names of the Modal secrets whose keys the render containers get as env vars. Modal only."""
    gpu: Gpus = ("L40S",)
    """GPU of a render container, for example `L40S`, `A100-80GB` or `H100:2`; of a list, the first that is free.
    Modal only."""
    timeout: Timeout = Field(default=3600.0, json_schema_extra={"default": "1h"})
    """How long one run may take on Modal, at most 24h. Modal only."""
    scaledown_window: ScaledownWindow = Field(default=60.0, json_schema_extra={"default": "1m"})
    """How long an idle container is kept, and paid for, in case another run comes: 2s to 1h. Modal only."""
    min_containers: Annotated[int, *whole(0, 100)] = 0
    """Containers that are always kept, and always paid for. Modal only."""
    max_containers: Annotated[int, *whole(1, 100)] = 3
    """Containers that run at once at most; further runs wait. Modal only."""
    buffer_containers: Annotated[int, *whole(0, 100)] = 0
    """Containers that are kept ready, and paid for, beside those at work. Modal only."""
    snapshot: Literal["off", "cpu", "gpu"] = "off"
    """Memory snapshot that containers start from: `gpu` of a ComfyUI that answers (alpha, says Modal), `cpu` of one
    that has imported everything and has no device yet. Modal only."""

    @model_validator(mode="after")
    def _check_containers(self) -> Self:
        kept = self.min_containers + self.buffer_containers
        if self.max_containers < kept:
            raise Mistake(
                f"max_containers ({self.max_containers}) must be at least min_containers + buffer_containers ({kept})",
                at=("max_containers", "min_containers", "buffer_containers"),
            )
        return self


class Render(Config):
    # Validated although it is a default, so that it becomes absolute like a written one.
    output_dir: LocalPath = Field(default=Path("outputs"), validate_default=True)
    """Folder for output files; relative to the project file, or to the current folder without one."""
    naming: Naming = "{stem}{ext}"
    """Name of each output file; `/` makes subfolders and `{index:03}` pads with zeros.
    Fields: {run_id} {prompt} {node_id} {title} {class_type} {index} {stem} {ext} {seed} {workflow}"""


class Training(Config):
    gpu: Gpu | None = None
    """GPU to train on, for example `A100-80GB`; without it, the training config's, else the recipe's. Modal only."""
    timeout: LongTimeout = Field(default=86400.0, json_schema_extra={"default": "24h"})
    """How long one training may take and be paid for in all; what it has not saved by then is saved. Beyond 24h it is
    moved to another container on the way. Modal only."""
    retries: Annotated[int, *whole(0, 10)] = 5
    """How often a training that lost its container or its GPU goes on in another container. Modal only."""
    memory: Annotated[int, *whole(1, 1024)] | None = None
    """GiB of main memory; without it, what the model needs. Modal only."""
    secret: ModalName = "hf-credentials"
    """Name of the Modal secret with `HF_TOKEN`, for models that are gated. On this machine it comes from the
    environment. Modal only."""
    toolkit_commit: Commit = "27a03a91f23eb1b757d5ec2e80ee3e129cfcc350"
    """Commit of ostris/ai-toolkit in the image, 40 hex digits. Modal only."""
    requirements: LocalPath | None = None
    """File with the packages of that commit, one `name==version` a line; without it, ours for the default commit.
    Modal only."""


class Tag(Config):
    per_run_usd: Usd = None
    """The most one run of this tag may cost, in US dollars (`2.50`). Modal only."""
    daily_usd: Usd = None
    """The most the tag's runs of one day (UTC) may cost together. Modal only."""
    monthly_usd: Usd = None
    """The most the tag's runs of one calendar month (UTC) may cost together. Modal only."""
    total_usd: Usd = None
    """The most all of the tag's runs may ever cost together. Modal only."""


class Rental(Config):
    gpu: Gpu
    """GPU of Modal whose work it would do, for example `L40S`."""
    usd_per_hour: UsdPerHour
    """US dollars an hour, for example `0.75`."""
    as_of: Day
    """Day the price was seen, for example `2026-11-20`: it is shown with it, and after 30 days with a warning."""
    speed: Speed = 1.0
    """How fast the rented card is, 1 being as fast as Modal's."""
    setup_hours: SetupHours = 0.0
    """Hours until it can work: its image, the models. They are paid as well."""
    rerun: Rerun = 1.0
    """How much of its time is paid for the same work twice, 1 being none: 1.1 for a tenth that is lost."""
    disk_usd_per_hour: UsdPerHourOrNone = Field(default=Decimal(0), json_schema_extra={"default": 0})
    """US dollars an hour for its disk, where that is paid apart."""


class Costs(Config):
    per_run_usd: Usd = None
    """The most one run may cost, in US dollars (`2.50`); without it, no limit but the timeout. Modal only."""
    daily_usd: Usd = None
    """The most the project's runs of one day (UTC) may cost together. Modal only."""
    monthly_usd: Usd = None
    """The most the project's runs of one calendar month (UTC) may cost together. Modal only."""
    total_usd: Usd = None
    """The most all of the project's runs may ever cost together. Modal only."""
    tag: EntryName | None = None
    """Tag of the runs, for reports and for budgets under `costs.tags`; for one run, `--tag`. Modal only."""
    tags: dict[EntryName, Tag] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """Budgets of the runs of a tag, beside those of the project."""
    on_exceed: Literal["block", "confirm", "warn"] = "block"
    """What becomes of a run that these budgets do not pay for: `block` refuses it, `confirm` asks at a terminal, `warn`
    says so and starts it. `--max-cost` always refuses. Modal only."""
    warn_at: tuple[Annotated[int, *whole(1, 100)], ...] = (80, 100)
    """Percents of the budgets of day, month and total at which there is a warning, once each. Modal only."""
    rentals: dict[EntryName, Rental] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """GPUs that could be rented instead, by names of your own, for `comfymodal costs compare`."""


class Receiver(Config):
    type: Literal["slack", "webhook"]
    """Who is told: `slack` by an incoming webhook or as a bot, `webhook` any server, which gets one JSON document."""
    url_env: EnvName | None = None
    """Name of the env var with the webhook's address, which is a secret; also from `.env` beside the project file."""
    token_env: EnvName | None = None
    """Name of the env var with the bot's token (scopes `chat:write`, for pictures `files:write`); also from `.env`."""
    channel: Channel | None = None
    """Where the bot writes: the channel's id (`C0123456789`), or its name."""
    on: tuple[Literal["finished", "failed", "budget"], ...] = ("finished", "failed", "budget")
    """What is told: runs that `finished` or `failed`, and the parts of a `budget` that are spent."""
    min_seconds: Annotated[int, *whole(0, 1_000_000)] = 0
    """Only runs that took at least so many seconds."""

    @model_validator(mode="after")
    def _check_receiver(self) -> Self:
        check_receiver(self.type, self.url_env, self.token_env, self.channel)
        return self


class Project(Config):
    """A comfymodal project file."""

    version: Annotated[Literal[1], BeforeValidator(refuse_lookalikes)]
    """Version of the file format."""
    project: ProjectName = "default"
    """Name of the project; runs and costs are recorded under it."""
    target: Literal["local", "modal"] = "local"
    """Where jobs run: `local` is this machine, `modal` a GPU that is rented by the second."""
    modal: Modal = Field(default_factory=Modal)
    """Which workspace and environment of Modal is used."""
    volumes: Volumes = Field(default_factory=Volumes)
    """Named places for models, input files, output files, datasets and trainings."""
    remotes: dict[RemoteName, Remote] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """Buckets, by the names that sync pairs and mounts use for them. Their keys are never in this file."""
    sync: dict[EntryName, SyncPair] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """Pairs of places that `comfymodal sync NAME` brings up to date."""
    mounts: dict[EntryName, Mount] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """Buckets that render containers read models from, slower than a volume and without a copy. Modal only."""
    comfyui: ComfyUI = Field(default_factory=ComfyUI)
    """Which ComfyUI renders: a running server, an installation to start, or an image on Modal and its containers."""
    render: Render = Field(default_factory=Render)
    """Where output files go and how they are named."""
    training: Training = Field(default_factory=Training)
    """What trainings run on."""
    costs: Costs = Field(default_factory=Costs)
    """What may be spent."""
    notify: dict[EntryName, Receiver] = Field(default={}, json_schema_extra=_NO_OTHER_NAMES)
    """Who is told when a run ends or a budget is nearly spent. Addresses and tokens are never in this file."""
