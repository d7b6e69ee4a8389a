"""Brings here what a training keeps on its volume: weights, and samples while they appear."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import ComfymodalError, NotFoundError, TransferError
from comfymodal.operations.results import OutputFile
from comfymodal.operations.train_store import ROLE, Store
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import media_type_of
from comfymodal.targets.base import OnEvent, Target
from comfymodal.training.ai_toolkit.layout import Sample

CLOSE_PATIENCE_S = 10.0


def checkpoint_at(run: Run, step: int | None) -> Mapping[str, Any]:
    """The kept checkpoint of this step, the newest without one. Raises `NotFoundError`."""
    kept = ((run.result or {}).get("result") or {}).get("checkpoints") or ()
    if not kept:
        raise NotFoundError(f"run {run.id} has kept no checkpoint", hint=f"comfymodal runs show {run.id}")
    found = [each for each in kept if step is None or each["step"] == step]
    if not found:
        steps = ", ".join(str(each["step"]) for each in kept)
        raise NotFoundError(f"run {run.id} has no checkpoint of step {step}", hint=f"kept are {steps}", step=step)
    newest: Mapping[str, Any] = found[-1]
    return newest


def fetch_weights(run: Run, checkpoint: Mapping[str, Any], target: Target, on_event: OnEvent) -> list[OutputFile]:
    """Bring the weights of a checkpoint into the run's folder here, each whole and as it was stored.

    Raises `TransferError`.
    """
    store, title = str(run.request["job"]["folder"]), f"step {checkpoint['step']}"
    fetched = []
    for file in checkpoint["weights"]:
        path = Path(run.request["folder"]) / str(file["name"])
        if not _is_there(path, file):
            told = {"type": "fetching", "name": path.name, "index": 0, "total": len(checkpoint["weights"])}

            def on_bytes(there: int, told: Mapping[str, Any] = told, size: int = file["size_bytes"]) -> None:
                on_event({**told, "done_bytes": there, "total_bytes": size})

            on_event(told)
            _bring(f"{store}/{checkpoint['folder']}/{file['name']}", path, target, on_bytes, run, file)
        fetched.append(_output(path, "lora", title, str(file["sha256"])))
    return fetched


def fetch_samples(run: Run, target: Target, on_event: OnEvent) -> list[OutputFile]:
    """Bring the samples that are not here yet. Raises `TransferError`, `OutputFolderError`."""
    store, outputs = store_of(run, target), list[OutputFile]()
    for sample in store.samples():
        on_event({"type": "fetching", "name": store.here(sample).name})
        here = store.bring(sample)
        outputs.append(_output(here, "sample", f"step {sample.step}, prompt {sample.index}", _sha256(here)))
    return outputs


def store_of(run: Run, target: Target) -> Store:
    """The run's folder on the volume, and what of it is here."""
    return Store(target, str(run.request["job"]["folder"]), Path(run.request["folder"]))


@contextlib.contextmanager
def catching_samples(run: Run, target: Target) -> Iterator[OnEvent]:
    """Bring each sample as soon as it is told of, in a thread; those it does not bring are brought at the end."""
    catcher = _Catcher(run, target)
    catcher.thread.start()
    try:
        yield catcher.hear
    finally:
        catcher.events.put(None)
        catcher.thread.join(CLOSE_PATIENCE_S)


@dataclass(slots=True)
class _Catcher:
    run: Run
    target: Target
    events: queue.SimpleQueue[Mapping[str, Any] | None] = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._work, name="samples", daemon=True)

    def hear(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "sample":
            self.events.put(event)

    def _work(self) -> None:
        while (event := self.events.get()) is not None:
            # Listed anew: it was not there a moment ago.
            store = store_of(self.run, self.target)
            sample = Sample(Path(str(event["path"])), int(event["step"]), int(event["index"]))
            with contextlib.suppress(ComfymodalError):
                store.bring(sample)


def _bring(
    path: str, here: Path, target: Target, on_bytes: Callable[[int], None], run: Run, file: Mapping[str, Any]
) -> None:
    arriving = here.with_name(f".{here.name}.{run.id}")
    again = f"comfymodal runs fetch {run.id}"
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        target.fetch(ROLE, path, arriving, on_bytes)
        if _sha256(arriving) != file["sha256"]:
            raise TransferError(f"{here.name} arrived damaged: its sha256 is not the one that was noted", hint=again)
        arriving.replace(here)
    except NotFoundError as exc:
        raise TransferError(exc.message, hint=f"see what is kept: comfymodal runs show {run.id}") from exc
    except TransferError as exc:
        exc.hint = exc.hint or f"go on: {again}"
        raise
    except OSError as exc:
        raise TransferError(
            f"cannot write {here}: {exc.strerror or exc}", hint=f"free some space, then: {again}"
        ) from exc
    finally:
        arriving.unlink(missing_ok=True)


def _is_there(path: Path, file: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == file["size_bytes"] and _sha256(path) == file["sha256"]


def _output(path: Path, kind: str, title: str, sha256: str) -> OutputFile:
    media_type = "application/octet-stream" if kind == "lora" else media_type_of(path)
    return OutputFile(0, "", title, kind, str(path), media_type, path.stat().st_size, sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
