"""The App of one project, decorated here on the operator's side from what containers import bare."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import modal

from comfymodal.targets.modal import containers
from comfymodal.targets.modal.image import render_image
from comfymodal.targets.modal.names import (
    BUCKETS_ROOT,
    INSPECT_FUNCTION,
    KEEP_WARM_FUNCTION,
    LIST_MOUNTS_FUNCTION,
    MOUNT_ROOT,
    app_name,
    app_tags,
    render_class,
)
from comfymodal.targets.spec import ModalSpec, MountSpec

DAY_S = 24 * 3600
LIST_TIMEOUT_S = 300
STARTUP_MARGIN_S = 60
"""For pulling the image and importing; ComfyUI itself has `comfyui.boot_timeout`."""

RETRIES = 2
"""For what Modal or the machine did: a job's own failure is returned, never raised, and so never tried again."""


def build_app(spec: ModalSpec) -> modal.App:
    """Describe everything that is deployed; asks nobody."""
    app = modal.App(app_name(spec.project), tags=app_tags(spec.project), include_source=False)
    image = render_image(spec)
    buckets = _buckets(spec)
    secrets = [modal.Secret.from_name(name, environment_name=spec.environment) for name in spec.containers.secrets]
    wanted = spec.containers
    render = app.cls(
        image=image,
        gpu=wanted.gpus[0] if len(wanted.gpus) == 1 else list(wanted.gpus),
        volumes={**_volumes(spec), **buckets},
        secrets=secrets,
        timeout=int(wanted.timeout_s),
        startup_timeout=int(wanted.boot_timeout_s) + STARTUP_MARGIN_S,
        scaledown_window=int(wanted.scaledown_window_s),
        min_containers=wanted.min_containers,
        max_containers=wanted.max_containers,
        buffer_containers=wanted.buffer_containers,
        retries=modal.Retries(max_retries=RETRIES, initial_delay=1.0, backoff_coefficient=2.0),
        region=spec.region,
        **_snapshot(wanted.snapshot),
    )
    render(containers.RenderBox if wanted.snapshot == "off" else containers.SnapshotRenderBox)
    # No volume and no secret: these read nothing of the operator's. Each is called once in a while, so none lingers.
    helper: dict[str, Any] = {"image": image, "scaledown_window": 2, "region": spec.region}
    app.function(name=INSPECT_FUNCTION, timeout=int(wanted.boot_timeout_s) + 300, cpu=2.0, **helper)(containers.inspect)
    app.function(name=KEEP_WARM_FUNCTION, timeout=DAY_S, retries=RETRIES, max_containers=1, **helper)(
        containers.keep_warm
    )
    if buckets:
        # Starting at all proves that the keys open the buckets, before a GPU is paid for.
        app.function(name=LIST_MOUNTS_FUNCTION, volumes=buckets, timeout=LIST_TIMEOUT_S, **helper)(
            containers.list_mounts
        )
    return app


def render_handle(spec: ModalSpec, gpu: str | None = None) -> Any:
    """The deployed class, ready to be called; another GPU than the deployed ones opens a pool of its own."""
    name = render_class(spec.containers.snapshot)
    found = modal.Cls.from_name(app_name(spec.project), name, environment_name=spec.environment)
    if gpu is not None and (gpu,) != spec.containers.gpus:
        found = found.with_options(gpu=gpu)
    return found()


def function_handle(spec: ModalSpec, name: str) -> modal.Function[..., Any, Any]:
    return modal.Function.from_name(app_name(spec.project), name, environment_name=spec.environment)


def _volumes(spec: ModalSpec) -> dict[Any, Any]:
    found = {}
    for role, volume in spec.render_volumes.items():
        handle = modal.Volume.from_name(volume.name, environment_name=spec.environment)
        # A workflow, or a custom node, must not be able to damage hundreds of gigabytes of models.
        found[f"{MOUNT_ROOT}/{role}"] = handle.with_mount_options(read_only=True) if role == "models" else handle
    return found


def _buckets(spec: ModalSpec) -> dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount]:
    return {f"{BUCKETS_ROOT}/{name}": _bucket(mount, spec.environment) for name, mount in spec.mounts.items()}


def _bucket(mount: MountSpec, environment: str | None) -> modal.CloudBucketMount:
    return modal.CloudBucketMount(
        mount.bucket,
        bucket_endpoint_url=mount.endpoint,
        key_prefix=f"{mount.prefix}/" if mount.prefix else None,
        secret=modal.Secret.from_name(mount.secret, environment_name=environment),
        read_only=True,
        # As rclone asks, so that a bucket that can be synced can be mounted; names of buckets are not always hosts.
        force_path_style=mount.endpoint is not None,
    )


def _snapshot(kind: str) -> dict[str, Any]:
    if kind == "off":
        return {}
    gpu = {"experimental_options": {"enable_gpu_snapshot": True}} if kind == "gpu" else {}
    return {"enable_memory_snapshot": True, **gpu}
