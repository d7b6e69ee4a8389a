"""What is deployed in one comparable value, and what a change of it costs. Pure: no Modal, nobody is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import comfymodal
from comfymodal.targets.modal.names import MOUNT_ROOT, app_name, app_tags
from comfymodal.targets.modal.recipe import (
    PYTHON,
    SYNC_FUNCTION,
    SYNC_PACKAGES,
    TRAIN_CONTAINERS,
    Step,
    container_env,
    image_steps,
    training_env,
    training_steps,
    travels,
)
from comfymodal.targets.spec import ModalSpec

NEW_CONTAINERS = "new containers"
NOTHING = "nothing runs differently"

_WORDS = {
    "comfyui_version": "version",
    "arguments": "args",
    "gpus": "gpu",
}
"""Fields whose key in the project file is another word; `_s` for seconds is dropped from the rest."""

_IN_IMAGE = ("comfyui.version", "comfyui.custom_nodes", "comfyui.python_packages")
"""In the order of the layers; those before the first are ours."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the project file (or `comfymodal`, for what a release of ours changed) and what its change does."""

    key: str
    old: str
    new: str
    effect: str


def fingerprint(spec: ModalSpec) -> str:
    """16 hex digits over everything that is deployed: equal means that a deploy would change nothing."""
    deployed = {
        "app": app_name(spec.project),
        "tags": app_tags(spec.project),
        "python": PYTHON,
        "steps": [_step_hash(step) for step in image_steps(spec.image)],
        "env": container_env(spec),
        "mounts": {role: [MOUNT_ROOT, volume.name] for role, volume in spec.render_volumes.items()},
        "buckets": [[name, _fields(mount)] for name, mount in spec.mounts.items()],
        "containers": _fields(spec.containers),
        "region": spec.region,
        "sources": sources_hash(),
    }
    return _hash(deployed)


def sync_fingerprint(spec: ModalSpec) -> str:
    """16 hex digits over all that is deployed as the sync app. What a job needs else comes with each call."""
    deployed = {
        "app": app_name(spec.project, "sync"),
        "tags": app_tags(spec.project, "sync"),
        "python": PYTHON,
        "packages": SYNC_PACKAGES,
        "function": SYNC_FUNCTION,
        "region": spec.region,
        "sources": sources_hash("sync"),
    }
    return _hash(deployed)


def train_fingerprint(spec: ModalSpec) -> str:
    """16 hex digits over all that is deployed as the train app. What a job needs else comes with each call."""
    deployed = {
        "app": app_name(spec.project, "train"),
        "tags": app_tags(spec.project, "train"),
        "python": PYTHON,
        "steps": [_step_hash(step) for step in training_steps(spec.training)],
        "env": training_env(),
        "function": TRAIN_CONTAINERS,
        "region": spec.region,
        "sources": sources_hash("train"),
    }
    return _hash(deployed)


def image_fingerprint(spec: ModalSpec) -> str:
    """16 hex digits over what decides which nodes ComfyUI has; whatever shares an image shares the answer."""
    image = spec.image
    deployed = {
        "python": PYTHON,
        "steps": [_step_hash(step) for step in image_steps(image)],
        "env": dict(image.env),
        "arguments": list(image.arguments),
        "sources": sources_hash(),
    }
    return _hash(deployed)


def mounts_fingerprint(spec: ModalSpec) -> str:
    """16 hex digits over which folders of which buckets are mounted: what was listed in others counts for nothing."""
    return _hash({name: [mount.bucket, mount.prefix, mount.endpoint] for name, mount in spec.mounts.items()})


def describe(spec: ModalSpec) -> dict[str, Any]:
    """Plain JSON to keep with a deployment, so that a later `changes` can say what is different.

    `settings` are by project-file key, `steps` are the image's layers in order.
    """
    settings: dict[str, Any] = {}
    for role, volume in spec.render_volumes.items():
        settings[f"volumes.{role}.name"] = volume.name
        settings[f"volumes.{role}.version"] = volume.version
    for name, mount in spec.mounts.items():
        settings[f"mounts.{name}"] = str(mount)
    # Image first: the order in which changes are told is the order of their cost.
    for name, value in {**_fields(spec.image), **_fields(spec.containers)}.items():
        settings[f"comfyui.{_WORDS.get(name, name.removesuffix('_s'))}"] = value
    settings["modal.region"] = spec.region
    steps = [
        {"name": step.name, "key": step.key, "minutes": step.minutes, "hash": _step_hash(step)}
        for step in image_steps(spec.image)
    ]
    described = {"settings": settings, "steps": steps, "sources": sources_hash(), "comfymodal": comfymodal.__version__}
    # As it will be read back: tuples become lists.
    plain: dict[str, Any] = json.loads(json.dumps(described, default=dict))
    return plain


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What is different, dearest first. `before` None: nothing was deployed, so every setting that says something.

    Both are of `describe`; one that an older release kept may lack keys.
    """
    old, new = (before or {}).get("settings", {}), after["settings"]
    changed = [key for key in dict.fromkeys((*new, *old)) if old.get(key) != new.get(key)]
    if before is None:
        changed = [key for key in changed if new[key] and not _is_volume_version(key)]
    found = [
        Change(key, _shown(key, old.get(key)), _shown(key, new.get(key)), _effect(key, before, after))
        for key in changed
    ]
    if before is not None:
        found += _own_changes(before, after, changed)
    return tuple(sorted(found, key=_rank))


@cache
def sources_hash(kind: str = "render") -> str:
    """Of the files of ours that go to the containers of the app of this kind."""
    root = Path(comfymodal.__file__).parent
    found = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    digest = hashlib.sha256()
    for path in found:
        if travels(path, kind):
            content = (root / path).read_bytes()
            digest.update(f"{path.as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def rebuild_minutes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> float:
    """How long the image takes, about: every layer from the first that differs is built anew."""
    return _minutes_from(_first_difference(before, after), after)


def _effect(key: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    if _is_volume_version(key):
        return f"{NOTHING}; it counts when the volume is created"
    if key not in _IN_IMAGE:
        return NEW_CONTAINERS
    if before is None:
        return f"builds the image (about {_minutes_from(0, after):g} min)"
    # From its own layers on; nothing is built when the last one was taken away.
    own = sum(step["key"] not in _IN_IMAGE[_IN_IMAGE.index(key) :] for step in after["steps"])
    minutes = _minutes_from(_first_difference(before, after, since=own), after)
    return _rebuilds(minutes) if minutes else NEW_CONTAINERS


def _own_changes(before: Mapping[str, Any], after: Mapping[str, Any], changed: Collection[str]) -> list[Change]:
    """What is different although the project file is not: how our release builds a layer, and our sources."""
    was, now = str(before.get("comfymodal", "")), str(after["comfymodal"])
    was = f"{was} as deployed" if was == now else was
    old = {step["name"]: step["hash"] for step in before.get("steps", ())}
    found = []
    for index, step in enumerate(after["steps"]):
        if old.get(step["name"], step["hash"]) != step["hash"] and step["key"] not in changed:
            found.append(Change(f"comfymodal: {step['name']}", was, now, _rebuilds(_minutes_from(index, after))))
    if before.get("sources") != after["sources"]:
        found.append(Change("comfymodal", was, now, NEW_CONTAINERS))
    return found


def _first_difference(before: Mapping[str, Any] | None, after: Mapping[str, Any], since: int = 0) -> int:
    """Index of the first layer that is not at its place in `before`; the count of layers when all are."""
    old = [step["hash"] for step in (before or {}).get("steps", ())]
    new = [step["hash"] for step in after["steps"]]
    return next((index for index in range(since, len(new)) if old[index : index + 1] != [new[index]]), len(new))


def _is_volume_version(key: str) -> bool:
    return key.startswith("volumes.") and key.endswith(".version")


def _rebuilds(minutes: float) -> str:
    return f"rebuilds the image from here (about {minutes:g} min)"


def _minutes_from(index: int, after: Mapping[str, Any]) -> float:
    return sum(float(step["minutes"]) for step in after["steps"][index:])


def _rank(change: Change) -> int:
    if "build" in change.effect:
        return 0
    return 1 if change.effect == NEW_CONTAINERS else 2


def _shown(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text}" for name, text in sorted(value.items())) or "none"
    if isinstance(value, list):
        return (" " if key == "comfyui.args" else ", ").join(map(str, value)) or "none"
    if isinstance(value, float):
        return _duration(value)
    return "none" if value is None else str(value)


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _fields(value: Any) -> dict[str, Any]:
    # Not asdict: it copies deeply, which a read-only mapping refuses.
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _step_hash(step: Step) -> str:
    contents = {place: path.read_bytes() for place, path in step.files.items()}
    contents |= {place: text.encode() for place, text in step.texts.items()}
    files = {place: hashlib.sha256(content).hexdigest() for place, content in contents.items()}
    return _hash([step.apt, files, step.commands])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=dict).encode()).hexdigest()[:16]
