"""What Modal's containers run. Plain functions and one class with markers only: `app.build_app` decorates them on the
operator's side, so no container rebuilds an object graph and no setting is baked in (facts: modal 1.6.4, measured).

Imported in a bare container: the standard library and `modal` are all there is.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import modal
import modal.exception
import modal.experimental

from comfymodal.comfyui.ask import post_json
from comfymodal.comfyui.child import ChildEngine, HeldChild, hold_child, start_child
from comfymodal.comfyui.server import Launch, renew_lists
from comfymodal.errors import ComfymodalError, EngineDiedError
from comfymodal.jobs import render
from comfymodal.jobs.contract import Engine
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.bucket_files import list_mounts
from comfymodal.targets.modal.keep_warm import keep_warm
from comfymodal.targets.modal.names import ENV_MOUNTS, ENV_OF_ROLE, ENV_SETTINGS
from comfymodal.targets.modal.nodes import inspect
from comfymodal.targets.modal.place import ModalPlace, Mount, container_facts, process_began

__all__ = ["RenderBox", "SnapshotRenderBox", "inspect", "keep_warm", "list_mounts"]


class Box:
    """One ComfyUI on one GPU; takes one job at a time. What the two decorated classes below have in common."""

    def _boot(self) -> None:
        self._began = process_began()
        self._container_id = os.environ.get("MODAL_TASK_ID", "")
        self._runs = 0
        self._engine: ChildEngine | None = None
        # Kept, not raised: Modal would start containers that die, one after the other, at the price of a GPU.
        self._boot_error: ComfymodalError | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="comfymodal-"))
        self._held: HeldChild | None = None
        self._seen_in_mounts: set[str] = set()
        if read_settings(os.environ)["snapshot"] == "cpu":
            # ComfyUI chooses its device when it starts, and there is no GPU yet.
            self._held = hold_child(launch_from(os.environ), self._folder)
        else:
            self._start_engine()

    def _start_engine(self) -> None:
        try:
            self._engine = start_child(launch_from(os.environ), self._folder, self._held)
        except ComfymodalError as exc:
            self._boot_error = exc

    def _wake(self) -> None:
        """In each container, restored or not: who am I, and does the engine answer."""
        if (container_id := os.environ.get("MODAL_TASK_ID", "")) != self._container_id:
            self._container_id, self._began = container_id, time.time()
            self._check_restored()
        if self._held is not None:
            self._start_engine()
        self._enter_s = time.time() - self._began

    def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one job to its end; return its outcome. Raises only what Modal is to try again elsewhere."""
        settings = read_settings(os.environ)
        run_id = str(job["run_id"])
        board = Board(settings["board"], None)
        before = board.read(run_id)
        container = self._describe(before)
        place = ModalPlace(
            run_id,
            mounts={role: Mount(path, settings["volumes"][role]) for role, path in mounts_from(os.environ).items()},
            board=board,
            before=before,
            about={"call_id": modal.current_function_call_id(), "container": container},
            get_engine=self._require_engine,
        )
        if job.get("deadline_s"):
            # One limit for the run, however many containers it takes.
            place.deadline = container["first_started_at"] + float(job["deadline_s"])
        if before is not None:
            place.take_over()
        try:
            self._refresh_models(job, place)
            outcome = render.run(job, place)
        except modal.exception.InputCancellation:
            place.stop()
            place.close(render.run(job, place), container)
            raise
        except BaseException:
            # Modal gives the input to another container: this one's thread must not go on writing about the run.
            place.abandon()
            raise
        outcome = place.close(outcome, container)
        if self._engine is None or self._engine.death() is not None or _is_hung(outcome):
            # No other job shall meet this engine.
            modal.experimental.stop_fetching_inputs()
        return outcome

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.stop()

    def _describe(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        self._runs += 1
        return container_facts(before, began=self._began, enter_s=self._enter_s, is_first=self._runs == 1)

    def _check_restored(self) -> None:
        try:
            self._check_engine()
        except ComfymodalError as exc:
            self._engine, self._boot_error = None, exc

    def _require_engine(self) -> Engine:
        self._check_engine()
        if self._engine is None:
            raise self._boot_error or EngineDiedError("ComfyUI was not started")
        return self._engine

    def _check_engine(self) -> None:
        if self._engine is not None:
            self._engine.require_answer()

    def _refresh_models(self, job: Mapping[str, Any], place: ModalPlace) -> None:
        """See models that came to the volume after this container started, when the job needs one of them."""
        models = job.get("models") or ()
        self._renew_lists(str(model["file"]) for model in models if model.get("mount"))
        # Nothing of a bucket comes by reloading the volume.
        on_volume = [model for model in models if not model.get("mount")]
        if self._engine is None or all(_is_there(place.volumes["models"], model) for model in on_volume):
            return
        place.emit({"type": "phase", "phase": "models"})
        # A model that is loaded keeps its file open, and Modal reloads no volume with open files.
        with contextlib.suppress(ComfymodalError):
            # An engine that is dead is found, and told, by the job: raised here, Modal would pay for it three times.
            post_json(self._engine.url, "/free", {"unload_models": True, "free_memory": True})
        try:
            place.reload("models")
        except (modal.Error, RuntimeError):
            modal.experimental.stop_fetching_inputs()
            raise

    def _renew_lists(self, files: Iterable[str]) -> None:
        """See files of buckets that ComfyUI, when it listed them, may not have found yet; once for each."""
        new = set(files) - self._seen_in_mounts
        renew_lists(self._folder, {file.partition("/")[0] for file in new})
        self._seen_in_mounts |= new


class RenderBox(Box):
    """Without memory snapshots."""

    @modal.enter()
    def boot(self) -> None:
        self._boot()
        self._wake()

    @modal.method()
    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        return self._run(job)

    @modal.exit()
    def stop(self) -> None:
        self._stop()


class SnapshotRenderBox(Box):
    """With memory snapshots: taken after ComfyUI answers. Modal refuses `snap=True` on a class without them."""

    @modal.enter(snap=True)
    def boot(self) -> None:
        self._boot()

    @modal.enter(snap=False)
    def wake(self) -> None:
        self._wake()

    @modal.method()
    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        return self._run(job)

    @modal.exit()
    def stop(self) -> None:
        self._stop()


def launch_from(environ: Mapping[str, str], *, models: Path | None = None, extra: tuple[str, ...] = ()) -> Launch:
    """How ComfyUI is started in this container."""
    settings = read_settings(environ)
    path = Path(environ["COMFYUI_PATH"])
    return Launch(
        name="comfyui",
        argv=(environ["COMFYUI_PYTHON"], str(path / "main.py")),
        arguments=(*settings["arguments"], *extra),
        cwd=str(path),
        # Where there is no GPU, as in tests, ComfyUI must be told.
        probes_device="--cpu" not in (*settings["arguments"], *extra),
        models=str(models or mounts_from(environ)["models"]),
        idle_stop_s=None,
        boot_timeout_s=float(settings["boot_timeout_s"]),
        mounts=() if models else tuple(map(str, buckets_from(environ).values())),
    )


def read_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    found = json.loads(environ[ENV_SETTINGS])
    if not isinstance(found, dict):
        raise RuntimeError(f"{ENV_SETTINGS} is no JSON object")
    return found


def mounts_from(environ: Mapping[str, str]) -> dict[str, Path]:
    return {role: Path(environ[name]) for role, name in ENV_OF_ROLE.items()}


def buckets_from(environ: Mapping[str, str]) -> dict[str, Path]:
    """Where the bucket mounts are, by name."""
    return {name: Path(environ[ENV_MOUNTS], name) for name in read_settings(environ)["mounts"]}


def _is_there(models: Path, model: Mapping[str, Any]) -> bool:
    try:
        return (models / str(model["file"])).stat().st_size == int(model["size_bytes"])
    except OSError:
        return False


def _is_hung(outcome: Mapping[str, Any]) -> bool:
    error: Mapping[str, object] = outcome.get("error") or {}
    return error.get("code") == EngineDiedError.code
