"""All that an engine says about its nodes and model files, kept so that questions about it need no engine."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from comfymodal.comfyui.ask import get_json, get_lists
from comfymodal.comfyui.fingerprint import engine_signature, files_digest, input_folder
from comfymodal.comfyui.server import Launch
from comfymodal.errors import ServiceError
from comfymodal.files import read_json, write_json

VERSION = 1
IDLE_LOOK_S = 1.0
PATIENCE_S = 10.0
"""A server far away may be gone, and nobody waits a minute to be shown a workflow."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """One engine's `/object_info` and the model files it lists by folder, as they were at `fetched_at`.

    `signature` and `files` tell whether it still says the same (see `is_current`); empty for a server not ours.
    """

    comfyui_version: str
    device: str
    object_info: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Sequence[str]]
    model_folders: Sequence[str]
    fetched_at: float
    signature: str = ""
    files: str | None = None


def catalog_of_engine(state: Path, folder: Path) -> Path:
    """The file that keeps what the engine of this folder said."""
    return state / "object-info" / f"{folder.name}.json"


def catalog_of_server(state: Path, url: str) -> Path:
    """The file that keeps what a server that is not ours said."""
    address = re.sub(r"[^a-z0-9.]+", "-", url.partition("://")[2].lower()).strip("-")[:60]
    return state / "object-info" / f"{address}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.json"


def fetch_server_catalog(url: str, file: Path) -> Catalog:
    """Ask a server that is not ours and keep its answer for when it cannot be reached. Raises `ServiceError`."""
    catalog = _fetch(url, signature="", flat=())
    _keep(catalog, file)
    return catalog


def fetch_engine_catalog(url: str, launch: Launch, folder: Path, file: Path, *, started_at: float) -> Catalog:
    """Ask a running engine of ours and keep its answer. Raises `ServiceError`.

    An engine older than its newest custom node answers for what it started with: that is not kept, since the next
    one will know better.
    """
    signature = engine_signature(launch, folder)
    catalog = _fetch(url, signature=signature.digest, flat=(input_folder(launch, folder),))
    if signature.changed_at <= started_at:
        _keep(catalog, file)
    return catalog


def keep_when_idle(url: str, launch: Launch, folder: Path, *, started_at: float) -> None:
    """Ask an engine that just started as soon as it has nothing to render, so that later questions need none.

    Returns when it was asked, need not be, or no longer answers; for a thread beside the engine.
    """
    file = catalog_of_engine(folder.parent.parent, folder)
    try:
        while True:
            time.sleep(IDLE_LOOK_S)
            if not get_json(url, "/prompt").get("exec_info", {}).get("queue_remaining"):
                kept = read_catalog(file)
                if kept is None or not is_current(kept, launch, folder):
                    fetch_engine_catalog(url, launch, folder, file, started_at=started_at)
                return
    except ServiceError:
        return


def read_catalog(file: Path) -> Catalog | None:
    """What was kept; None when there is nothing, or nothing that this version understands."""
    found = read_json(file)
    if found is None or found.pop("version", None) != VERSION:
        return None
    try:
        catalog = Catalog(**found)
    except TypeError:
        return None
    is_whole = isinstance(catalog.object_info, dict) and isinstance(catalog.models, dict)
    return catalog if is_whole else None


def is_current(catalog: Catalog, launch: Launch, folder: Path) -> bool:
    """Whether this engine, started now, would say the same. Takes a millisecond, and more for thousands of models."""
    if catalog.files is None or catalog.signature != engine_signature(launch, folder).digest:
        return False
    return catalog.files == files_digest(catalog.model_folders, flat=(input_folder(launch, folder),))


def fetch_models(url: str) -> dict[str, list[str]]:
    """Model files by folder (`loras`: [...]); empty for a server too old to tell. Raises `UnreachableError`."""
    names = [name for name in get_lists(url, ["/models"])[0] or () if isinstance(name, str)]
    lists = get_lists(url, [f"/models/{quote(name, safe='')}" for name in names])
    return {
        name: [file for file in files or () if isinstance(file, str)] for name, files in zip(names, lists, strict=True)
    }


def _fetch(url: str, *, signature: str, flat: Sequence[str]) -> Catalog:
    stats = get_json(url, "/system_stats", timeout_s=PATIENCE_S)
    system = stats.get("system") or {}
    devices = stats.get("devices") or [{}]
    folders = _model_folders(url)
    # Before the lists are asked for: a file that comes in between makes the next look ask again.
    files = files_digest(folders, flat=flat) if folders and signature else None
    return Catalog(
        comfyui_version=str(system.get("comfyui_version")),
        device=str(devices[0].get("name")),
        object_info=get_json(url, "/object_info"),
        models=fetch_models(url),
        model_folders=folders,
        fetched_at=time.time(),
        signature=signature,
        files=files,
    )


def _model_folders(url: str) -> list[str]:
    """Every folder on its machine that the server looks for models in, whatever names them."""
    found: dict[str, None] = {}
    for entry in get_lists(url, ["/experiment/models"])[0] or ():
        folders = entry.get("folders") if isinstance(entry, dict) else None
        found.update(
            {str(folder): None for folder in folders if isinstance(folder, str)} if isinstance(folders, list) else {}
        )
    return list(found)


def _keep(catalog: Catalog, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not asdict(): it copies the whole of object_info, piece by piece.
        values = {field.name: getattr(catalog, field.name) for field in fields(catalog)}
        write_json(file, {"version": VERSION, **values})
    except OSError:
        pass  # only a memory: a full disk must not stop a check
