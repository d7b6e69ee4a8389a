"""Bring a run's outputs to where the operator wants them, whole and verified, and write the receipt beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from comfymodal import __version__
from comfymodal.costs.rates import money_json
from comfymodal.errors import NotFoundError, OutputFolderError, TransferError
from comfymodal.files import write_json
from comfymodal.jobs.contract import RUNS_FOLDER
from comfymodal.operations.results import OutputFile, OutputText
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import media_type_of, name_outputs
from comfymodal.targets.base import OnEvent, Target
from comfymodal.workflow.check_values import MODEL_EXTENSIONS

RECEIPT_FILE = "receipt.json"


def require_writable(folder: Path) -> None:
    """Prove that files can be written below `folder` without leaving anything there. Raises `OutputFolderError`."""
    import tempfile

    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    hint = "choose another with --out, or render.output_dir"
    if not existing.is_dir():
        raise OutputFolderError(f"cannot write to {folder}: {existing} is a file", hint=hint)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as exc:
        raise OutputFolderError(f"cannot write to {folder}: {exc.strerror or exc} ({existing})", hint=hint) from exc


def collect(run: Run, results: Mapping[int, Mapping[str, Any]], target: Target, on_event: OnEvent) -> list[OutputFile]:
    """Copy every output in the manifest to the run's folder, each under its final name only when its hash is right.

    Files that are there already are left alone. Raises `TransferError`.
    """
    outputs = [{**output, "prompt": index} for index, result in results.items() for output in result["outputs"]]
    folder = Path(run.request["folder"])
    collected = []
    named = name_outputs(outputs, template=run.request["naming"], fields=_fields(run))
    for number, (output, relative) in enumerate(named):
        told = {"type": "fetching", "done": number, "total": len(outputs), "name": output["name"]}
        on_event(told)

        def on_bytes(there: int, told: Mapping[str, Any] = told, size_bytes: int = int(output["size_bytes"])) -> None:
            on_event({**told, "done_bytes": there, "total_bytes": size_bytes})

        path = _fetch(run, output, folder / relative, target, on_bytes)
        collected.append(
            OutputFile(
                prompt=output["prompt"],
                node_id=output["node_id"],
                title=output["title"],
                kind=output["kind"],
                path=str(path),
                media_type=media_type_of(path),
                size_bytes=output["size_bytes"],
                sha256=output["sha256"],
            )
        )
    return collected


def texts_of(results: Mapping[int, Mapping[str, Any]]) -> list[OutputText]:
    return [
        OutputText(index, text["node_id"], text["title"], text["text"])
        for index, result in results.items()
        for text in result["texts"]
    ]


def write_receipt(
    run: Run, outcome: Mapping[str, Any], outputs: list[OutputFile], texts: list[OutputText]
) -> Path | None:
    """Write all that is needed to render the same again and to know what this was. Raises `TransferError`.

    A run that left nothing gets no folder, and so no receipt.
    """
    if not outputs and not texts:
        return None
    folder = Path(run.request["folder"])
    path = folder / (RECEIPT_FILE if run.request["is_own_folder"] else f"receipt-{run.id}.json")
    prompts = run.request["job"]["prompts"]
    receipt = {
        "schema": "comfymodal/receipt/1",
        "comfymodal": __version__,
        "run": {"id": run.id, "kind": run.kind, "target": run.target, "status": outcome["status"]},
        "started_at": outcome.get("started_at"),
        "ended_at": outcome.get("ended_at"),
        "workflow": run.request["workflow"],
        "overrides": run.request["changes"],
        "seeds": _seeds(prompts),
        "engine": outcome.get("engine"),
        "load_s": outcome.get("load_s"),
        "models": sorted({name for prompt in prompts for name in _model_names(prompt["graph"])}),
        "cost": None if run.rate is None else _cost(run.rate, outcome.get("cost_nanodollars")),
        "container": outcome.get("container"),
        "outputs": [
            {
                "file": str(Path(output.path).relative_to(folder)),
                "node_id": output.node_id,
                "title": output.title,
                "kind": output.kind,
                "media_type": output.media_type,
                "size_bytes": output.size_bytes,
                "sha256": output.sha256,
            }
            for output in outputs
        ],
        "texts": [{"node_id": text.node_id, "title": text.title, "text": text.text} for text in texts],
        "prompts": [{"prompt_id": prompt["prompt_id"], "graph": prompt["graph"]} for prompt in prompts],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, receipt, indent=1)
    except OSError as exc:
        raise TransferError(f"cannot write {path}: {exc.strerror or exc}") from exc
    return path


def _cost(rate: Mapping[str, Any], nanodollars: int | None) -> dict[str, Any]:
    return {
        "usd": money_json(nanodollars),
        "gpu": rate["gpu"],
        "usd_per_hour": money_json(int(rate["nanodollars_per_s"]) * 3600),
        "prices_as_of": rate["as_of"],
        "is_estimate": True,
    }


def _fetch(run: Run, output: Mapping[str, Any], wanted: Path, target: Target, on_bytes: Callable[[int], None]) -> Path:
    path, number = wanted, 1
    while path.exists():
        if path.is_file() and path.stat().st_size == output["size_bytes"] and _sha256(path) == output["sha256"]:
            return path
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TransferError(f"cannot create {path.parent}: {exc.strerror or exc}") from exc
    arriving = path.with_name(f".{path.name}.{run.id}")
    try:
        target.fetch("outputs", f"{RUNS_FOLDER}/{run.id}/{output['file']}", arriving, on_bytes)
        if _sha256(arriving) != output["sha256"]:
            raise TransferError(
                f"{path.name} arrived damaged: its sha256 is not the one in the manifest",
                hint=f"fetch it again: comfymodal runs fetch {run.id}",
            )
        arriving.replace(path)
    except NotFoundError as exc:
        raise TransferError(exc.message, hint=f"render it again: comfymodal runs again {run.id}") from exc
    except TransferError as exc:
        exc.hint = exc.hint or f"go on: comfymodal runs fetch {run.id}"
        raise
    finally:
        arriving.unlink(missing_ok=True)
    return path


def _fields(run: Run) -> dict[str, Any]:
    from comfymodal.comfyui.outputs import safe_name

    seeds = _seeds(run.request["job"]["prompts"][:1])
    return {
        "run_id": run.id,
        "seed": next(iter(seeds.values()), 0),
        "workflow": safe_name(Path(run.request["workflow"]["path"]).stem),
    }


def _seeds(prompts: list[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        for node_id, node in prompt["graph"].items():
            for name in ("seed", "noise_seed"):
                value = node.get("inputs", {}).get(name)
                if isinstance(value, int) and not isinstance(value, bool):
                    found[f"{node_id}.{name}" if len(prompts) == 1 else f"{number}:{node_id}.{name}"] = value
    return found


def _model_names(graph: Mapping[str, Any]) -> list[str]:
    values = (value for node in graph.values() for value in node.get("inputs", {}).values())
    return [value for value in values if isinstance(value, str) and value.lower().endswith(MODEL_EXTENSIONS)]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
