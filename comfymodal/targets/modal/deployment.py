"""What is deployed, how it was made, and what its ComfyUI knows.

The app's tag says which fingerprint is live; a note on the outputs volume says what that was, for everybody's eyes, and
the nodes beside it are kept on this machine once fetched.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import modal.exception

from comfymodal import __version__
from comfymodal.errors import CancelledError, NotReadyError
from comfymodal.files import read_json, write_json
from comfymodal.targets.base import OnEvent
from comfymodal.targets.modal.app import build_app, function_handle
from comfymodal.targets.modal.buckets import list_buckets, read_listing, require_keys
from comfymodal.targets.modal.build_log import told
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.names import FINGERPRINT_TAG, INSPECT_FUNCTION, app_name, app_tags
from comfymodal.targets.modal.plan import describe, fingerprint, image_fingerprint
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.spec import ModalSpec

FOLDER = "comfymodal"
"""On the outputs volume, beside the runs."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """`fingerprint` None: a deploy began and was not found sound. `described` None: nobody noted what it was."""

    app_id: str
    fingerprint: str | None
    described: Mapping[str, Any] | None
    deployed_at: float | None


def read_deployment(spec: ModalSpec, *, with_note: bool = True) -> Deployment | None:
    """What is live; None when nothing is. Raises `ComfymodalError`."""
    name = app_name(spec.project)
    with translated(f"cannot look up the app {name}"):
        try:
            app = modal.App.lookup(name, environment_name=spec.environment)
        except modal.exception.NotFoundError:
            return None
        tags = app.get_tags()
    note = (Volumes(spec).read_json("outputs", _note_path(spec)) or {}) if with_note else {}
    is_same = note.get("fingerprint") == tags.get(FINGERPRINT_TAG)
    return Deployment(
        app_id=str(app.app_id),
        fingerprint=tags.get(FINGERPRINT_TAG),
        described=note.get("described") if is_same else None,
        deployed_at=note.get("deployed_at") if is_same else None,
    )


def deploy(spec: ModalSpec, on_event: OnEvent, *, is_forced: bool = False) -> Deployment:
    """Build, publish, and boot once on a CPU; only what came up sound gets its fingerprint.

    An image that came up sound before is not booted again, unless `is_forced`.

    Raises `NotReadyError` when the image does not build, ComfyUI does not come up, a custom node cannot be imported,
    or a bucket of the project's mounts cannot be read.
    """
    try:
        return _deploy(spec, on_event, is_forced=is_forced)
    except KeyboardInterrupt:
        raise CancelledError(
            f"interrupted while deploying {app_name(spec.project)}: nothing was started on a GPU",
            hint="what is deployed: comfymodal status; go on: comfymodal deploy",
        ) from None


def _deploy(spec: ModalSpec, on_event: OnEvent, *, is_forced: bool) -> Deployment:
    name = app_name(spec.project)
    require_keys(spec)
    on_event({"type": "phase", "phase": "deploy"})
    with translated(f"cannot deploy {name}"), told(on_event):
        # From here on nothing counts as sound, also if this is interrupted or what comes up is not.
        with contextlib.suppress(modal.exception.NotFoundError):
            modal.App.lookup(name, environment_name=spec.environment).set_tags(app_tags(spec.project))
        app = build_app(spec)
        app.deploy(environment_name=spec.environment)
    on_event({"type": "deployed", "app": name, "app_id": app.app_id})
    if spec.mounts:
        list_buckets(spec, on_event)
    found = (None if is_forced else read_nodes(spec)) or inspect_nodes(spec, on_event)
    note = {
        "fingerprint": fingerprint(spec),
        "described": describe(spec),
        "deployed_at": time.time(),
        "comfymodal": __version__,
        "comfyui_version": found["comfyui_version"],
    }
    Volumes(spec).put("outputs", json.dumps(note).encode(), _note_path(spec))
    with translated(f"cannot tag {name}"):
        app.set_tags({**app_tags(spec.project), FINGERPRINT_TAG: fingerprint(spec)})
    return Deployment(str(app.app_id), note["fingerprint"], note["described"], note["deployed_at"])


def inspect_nodes(spec: ModalSpec, on_event: OnEvent) -> Mapping[str, Any]:
    """Ask the deployed ComfyUI what it knows, on a CPU; keep the answer here and on the outputs volume.

    Raises `NotReadyError` naming each custom node that cannot be imported.
    """
    on_event({"type": "phase", "phase": "inspect"})
    volumes = Volumes(spec)
    listing = read_listing(spec)
    on_volume = {path.partition("/")[0] for path, _ in volumes.files("models") if "/" in path}
    folders = sorted(on_volume | (listing.folders if listing else set()))
    with translated("cannot inspect what was deployed"):
        call = function_handle(spec, INSPECT_FUNCTION).spawn(folders)
        try:
            found: Mapping[str, Any] = call.get()
        except KeyboardInterrupt:
            # Modal ends no call because nobody waits for it.
            call.cancel()
            raise
    if error := found.get("error"):
        raise NotReadyError(
            f"what was deployed does not come up: {error['message']}",
            hint=error.get("hint") or "correct comfyui.* in comfymodal.yaml, then: comfymodal deploy",
        )
    if broken := found["import_errors"]:
        told = "; ".join(f"{item['node']}: {item['reason']}" for item in broken)
        raise NotReadyError(
            f"ComfyUI came up without {len(broken)} custom node(s): {told}",
            hint="pin another version, or add what is missing to comfyui.python_packages; then: comfymodal deploy",
            import_errors=broken,
        )
    volumes.put("outputs", json.dumps(found).encode(), _nodes_path(spec))
    _keep(spec, found)
    on_event({"type": "inspected", "classes": len(found["object_info"]), "seconds": found["seconds"]})
    return found


def kept_nodes(spec: ModalSpec) -> Mapping[str, Any] | None:
    """What the deployment with the project's fingerprint knows, without asking Modal; None when it was never asked."""
    return read_json(_kept_path(spec))


def read_nodes(spec: ModalSpec) -> Mapping[str, Any] | None:
    """The same from this machine or, from another's deploy, from the outputs volume."""
    if (kept := kept_nodes(spec)) is not None:
        return kept
    if (found := Volumes(spec).read_json("outputs", _nodes_path(spec))) is not None:
        _keep(spec, found)
    return found


def _keep(spec: ModalSpec, found: Mapping[str, Any]) -> None:
    path = _kept_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)


def _kept_path(spec: ModalSpec) -> Path:
    return spec.state / "modal" / f"nodes-{image_fingerprint(spec)}.json"


def _note_path(spec: ModalSpec) -> str:
    return f"{FOLDER}/{app_name(spec.project)}/deployment.json"


def _nodes_path(spec: ModalSpec) -> str:
    return f"{FOLDER}/nodes-{image_fingerprint(spec)}.json"
