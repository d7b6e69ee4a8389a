"""What is known of the nodes of this machine's ComfyUI without starting one: kept answers, and who can be asked."""

from __future__ import annotations

from pathlib import Path

from comfymodal.comfyui.catalog import (
    Catalog,
    catalog_of_engine,
    catalog_of_server,
    fetch_engine_catalog,
    fetch_server_catalog,
    is_current,
    read_catalog,
)
from comfymodal.comfyui.find import DEFAULT_URL, FoundEngine
from comfymodal.comfyui.server import Launch
from comfymodal.comfyui.supervisor import ENGINE_FILE
from comfymodal.comfyui.warm import engine_folder, find_warm
from comfymodal.errors import ServiceError
from comfymodal.files import read_json
from comfymodal.targets.base import Freshness, KnownNodes
from comfymodal.targets.spec import LocalSpec


def nodes_of_server(url: str, spec: LocalSpec, *, how: str, may_ask: bool) -> KnownNodes | None:
    """A server that is not ours is asked each time: nothing here tells whether its files changed."""
    file = catalog_of_server(spec.state, url)
    if may_ask:
        try:
            return _known(fetch_server_catalog(url, file), how, None, "current")
        except ServiceError:
            pass  # what it said last is better than nothing, and told as such
    kept = read_catalog(file)
    return _known(kept, how, None, "unreachable") if kept else None


def nodes_of_engine(launch: Launch, spec: LocalSpec, *, how: str, may_ask: bool) -> KnownNodes | None:
    """An engine of ours is asked only when it runs and what is kept is no longer so."""
    folder = engine_folder(spec.state, launch)
    file = catalog_of_engine(spec.state, folder)
    models = str(spec.volumes["models"])
    kept = read_catalog(file)
    if kept is not None and is_current(kept, launch, folder):
        return _known(kept, how, models, "current")
    warm = find_warm(folder) if may_ask else None
    if warm is not None:
        started_at = _started_at(folder)
        try:
            asked = fetch_engine_catalog(warm.url, launch, folder, file, started_at=started_at)
            return _known(asked, how, models, "current")
        except ServiceError:
            pass  # it hangs or just ended: whoever needs it starts it, and is told why it does not
    return _known(kept, how, models, "outdated") if kept else None


def nodes_without_engine(spec: LocalSpec) -> KnownNodes | None:
    """What somebody's server on the usual port said when it ran, where there is no engine at all."""
    return nodes_of_server(DEFAULT_URL, spec, how=f"it answered on {DEFAULT_URL}", may_ask=False)


def nodes_of(found: FoundEngine, spec: LocalSpec, *, may_ask: bool) -> KnownNodes | None:
    if found.launch is not None:
        return nodes_of_engine(found.launch, spec, how=found.how, may_ask=may_ask)
    return nodes_of_server(str(found.url), spec, how=found.how, may_ask=may_ask)


def _started_at(folder: Path) -> float:
    return float((read_json(folder / ENGINE_FILE) or {}).get("started_at") or 0)


def _known(catalog: Catalog, how: str, models_root: str | None, freshness: Freshness) -> KnownNodes:
    return KnownNodes(
        comfyui_version=catalog.comfyui_version,
        device=catalog.device,
        how=how,
        object_info=catalog.object_info,
        model_files=catalog.models,
        models_root=models_root,
        fetched_at=catalog.fetched_at,
        freshness=freshness,
    )
