"""Render a job's prompts on the place's ComfyUI and keep every output under the run's folder.

Restarting a job with the same id is safe: finished prompts are taken from its manifest, queued and
running ones are found again on the server by their prompt ids, the rest is posted.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from comfymodal.comfyui.client import ComfyClient
from comfymodal.errors import ComfymodalError, EngineDiedError, TransferError
from comfymodal.files import write_json, write_text
from comfymodal.jobs.contract import JOB_FILE, LOG_FILE, VERSION, Engine, Place, run_folder
from comfymodal.jobs.follow import Follower
from comfymodal.jobs.manifest import Manifest

INPUTS_SUBFOLDER = "comfymodal"
"""Under the server's input folder, so that uploads never mix with a person's own files."""


def run(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Render every prompt of `job`; return the outcome. Failures are in it; only infrastructure faults raise.

    job: `{version, kind: "render", run_id, prompts: [{prompt_id, graph, extra_data}], inputs: [{name, file,
    sha256, size_bytes}], allow_partial, keep_temporary, collect_only, gpu, stall_s, deadline_s, models, origin}`.
    outcome: `{version, run_id, status, prompts: [...], error, started_at, ended_at, engine, load_s}`; `load_s` are
    seconds in nodes that load models (see `jobs.gauge`), None when none was noted.
    """
    folder = run_folder(place.volumes, str(job["run_id"]))
    started_at = time.time()
    try:
        manifest = Manifest.open(folder, job["prompts"])
        write_json(folder / JOB_FILE, job)
    except OSError as exc:
        return _outcome(job, [], _disk_error(exc, str(job["run_id"])), started_at, {})
    engine_facts: dict[str, Any] = {}
    error: ComfymodalError | None = None
    if not manifest.is_complete:
        error = _render(job, place, manifest, engine_facts)
    return _outcome(job, manifest.prompts, error, started_at, engine_facts)


def _render(
    job: Mapping[str, Any], place: Place, manifest: Manifest, engine_facts: dict[str, Any]
) -> ComfymodalError | None:
    try:
        place.emit({"type": "phase", "phase": "engine"})
        engine = place.engine()
    except ComfymodalError as exc:
        return exc
    log_start = engine.log_position()
    error: ComfymodalError | None = None
    try:
        asyncio.run(_converse(job, place, engine, manifest, engine_facts))
    except OSError as exc:
        error = _disk_error(exc, str(job["run_id"]))
    except ComfymodalError as exc:
        error = _blame_engine(exc, engine, str(job["run_id"]))
    try:
        write_text(manifest.folder / LOG_FILE, engine.log_since(log_start))
        place.commit("outputs")
    except OSError as exc:
        error = error or _disk_error(exc, str(job["run_id"]))
    except ComfymodalError as exc:
        error = error or exc
    return error


async def _converse(
    job: Mapping[str, Any], place: Place, engine: Engine, manifest: Manifest, engine_facts: dict[str, Any]
) -> None:
    # The same id in every attempt: events of a prompt go to the client that posted it.
    client_id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(job["run_id"])))
    async with ComfyClient(engine.url, client_id=client_id) as client:
        engine_facts.update(_facts(await client.system_stats()))
        await _upload_inputs(job, place, client)
        follower = Follower(job=job, place=place, engine=engine, client=client, manifest=manifest, facts=engine_facts)
        await follower.follow()


async def _upload_inputs(job: Mapping[str, Any], place: Place, client: ComfyClient) -> None:
    if not job.get("inputs"):
        return
    place.emit({"type": "phase", "phase": "inputs"})
    await asyncio.to_thread(place.reload, "inputs")
    for item in job["inputs"]:
        source = place.volumes["inputs"] / item["file"]
        if not source.is_file() or source.stat().st_size != item["size_bytes"]:
            raise TransferError(
                f"input {item['file']} has not reached the inputs volume whole", hint="run the same command again"
            )
        await client.upload(source, subfolder=INPUTS_SUBFOLDER, name=item["file"])


def _blame_engine(error: ComfymodalError, engine: Engine, run_id: str) -> ComfymodalError:
    if error.code != "unreachable":
        return error
    said = engine.death() or f"the ComfyUI server at {engine.url} stopped answering ({error.message})"
    return EngineDiedError(said, hint=f"render again: comfymodal runs again {run_id}")


def _facts(stats: Mapping[str, Any]) -> dict[str, Any]:
    system, devices = stats.get("system"), stats.get("devices")
    first = devices[0] if isinstance(devices, list) and devices and isinstance(devices[0], dict) else {}
    known = system if isinstance(system, dict) else {}
    return {
        "comfyui_version": known.get("comfyui_version"),
        "pytorch_version": known.get("pytorch_version"),
        "python_version": str(known.get("python_version") or "").partition(" ")[0],
        "device": first.get("name"),
        "device_type": first.get("type"),
        "vram_total_bytes": first.get("vram_total"),
    }


def _outcome(
    job: Mapping[str, Any],
    prompts: list[dict[str, Any]],
    error: ComfymodalError | None,
    started_at: float,
    engine_facts: Mapping[str, Any],
) -> dict[str, Any]:
    loads = [prompt["load_s"] for prompt in prompts if prompt.get("load_s") is not None]
    problems = [prompt["error"] for prompt in prompts if prompt.get("error")]
    return {
        "version": VERSION,
        "run_id": job["run_id"],
        "status": _status(job, prompts, error),
        "prompts": prompts,
        "error": error.to_dict() if error else (problems[0] if problems else None),
        "engine": dict(engine_facts),
        "load_s": round(sum(loads), 3) if loads else None,
        "started_at": started_at,
        "ended_at": time.time(),
    }


def _status(job: Mapping[str, Any], prompts: list[dict[str, Any]], error: ComfymodalError | None) -> str:
    statuses = [prompt["status"] for prompt in prompts]
    if error is None and len(statuses) == len(job["prompts"]) and set(statuses) == {"succeeded"}:
        # With `allow_partial` a prompt can succeed while some of its outputs were refused.
        return "partial" if any(prompt["error"] for prompt in prompts) else "succeeded"
    # Without an error, a prompt without a result was withdrawn before it started.
    if error is None and ("cancelled" in statuses or len(statuses) < len(job["prompts"])):
        return "cancelled"
    # One prompt either works or fails; only of several can some succeed.
    return "partial" if "succeeded" in statuses else "failed"


def _disk_error(exc: OSError, run_id: str) -> TransferError:
    where = f" {exc.filename}" if exc.filename else ""
    return TransferError(
        f"cannot write{where}: {exc.strerror or exc}",
        hint=f"free some space, then: comfymodal runs fetch {run_id}",
    )
