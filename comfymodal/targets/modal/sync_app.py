"""The app that moves files: no GPU, no ComfyUI, no volume and no secret until a call asks for them.

Deployed once; a call brings what its job needs along, so that no change of the project file deploys it again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import modal
import modal.exception

from comfymodal.errors import CancelledError
from comfymodal.targets.base import OnEvent, Setup
from comfymodal.targets.modal import carrier
from comfymodal.targets.modal.app import RETRIES
from comfymodal.targets.modal.build_log import told
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.image import sync_image
from comfymodal.targets.modal.names import CARRY_FUNCTION, FINGERPRINT_TAG, MOUNT_ROOT, app_name, app_tags
from comfymodal.targets.modal.plan import sync_fingerprint
from comfymodal.targets.modal.recipe import SYNC_FUNCTION
from comfymodal.targets.spec import ModalSpec

KIND = "sync"


def build_sync_app(spec: ModalSpec) -> modal.App:
    """Describe what is deployed; asks nobody. It gets its fingerprint in the same step in which it goes live."""
    tags = {**app_tags(spec.project, KIND), FINGERPRINT_TAG: sync_fingerprint(spec)}
    app = modal.App(app_name(spec.project, KIND), tags=tags, include_source=False)
    options: dict[str, Any] = dict(SYNC_FUNCTION)
    retries = modal.Retries(max_retries=RETRIES, initial_delay=1.0, backoff_coefficient=2.0)
    app.function(image=sync_image(), name=CARRY_FUNCTION, retries=retries, **options)(carrier.carry)
    return app


def describe_sync_deploy(spec: ModalSpec) -> Setup | None:
    """What `deploy_sync` would do; None when what is live is what it would make. Raises `ComfymodalError`."""
    name = app_name(spec.project, KIND)
    with translated(f"cannot look up the app {name}"):
        try:
            tags = modal.App.lookup(name, environment_name=spec.environment).get_tags()
        except modal.exception.NotFoundError:
            tags = None
    if tags is not None and tags.get(FINGERPRINT_TAG) == sync_fingerprint(spec):
        return None
    return Setup(
        summary=f"files on Modal are moved by an app of their own, which is not deployed yet; deploy {name}"
        if tags is None
        else f"{name} is of another release of comfymodal; deploy it again",
        details=(
            "takes about 1 min, once, on Modal's CPUs; no GPU",
            "idle it costs nothing; while files are moved, 2 cores and 4 GiB",
        ),
        ask="Deploy it?",
        declined_hint="add --yes to agree beforehand",
        forbidden_hint="add --yes to agree to it",
    )


def deploy_sync(spec: ModalSpec, on_event: OnEvent) -> None:
    """Build and publish the app. Raises `ComfymodalError`."""
    name = app_name(spec.project, KIND)
    on_event({"type": "phase", "phase": "deploy"})
    app = build_sync_app(spec)
    try:
        with translated(f"cannot deploy {name}"), told(on_event):
            app.deploy(environment_name=spec.environment)
    except KeyboardInterrupt:
        raise CancelledError(
            f"interrupted while deploying {name}: nothing was moved", hint="run the same command again"
        ) from None
    on_event({"type": "deployed", "app": name, "app_id": app.app_id})


def carry_handle(spec: ModalSpec, roles: Collection[str], secrets: Collection[str]) -> Any:
    """The deployed function in a container with these volumes (by role) and secrets."""
    found = modal.Function.from_name(app_name(spec.project, KIND), CARRY_FUNCTION, environment_name=spec.environment)
    return found.with_options(
        volumes={
            f"{MOUNT_ROOT}/{role}": modal.Volume.from_name(spec.volumes[role].name, environment_name=spec.environment)
            for role in sorted(roles)
        },
        secrets=[modal.Secret.from_name(name, environment_name=spec.environment) for name in sorted(secrets)],
    )
