"""This machine as a target: a worker process per run, a ComfyUI that stays warm, folders for volumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.comfyui.ask import get_json, get_object_info
from comfymodal.comfyui.find import FoundEngine, find_engine
from comfymodal.comfyui.warm import ensure_warm
from comfymodal.errors import NotFoundError, NotReadyError, OutputFolderError, TransferError
from comfymodal.files import read_json, write_json
from comfymodal.jobs.contract import JOB_FILE, MANIFEST_FILE, OUTCOME_FILE, run_folder
from comfymodal.jobs.manifest import read_results
from comfymodal.processes import ProcessIdentity
from comfymodal.targets.base import EngineFacts, KnownNodes, Look, OnEvent, Setup
from comfymodal.targets.local_call import CALL_FILE, CONTROL_FILE, SNAPSHOT_FILE
from comfymodal.targets.local_setup import describe_install
from comfymodal.targets.local_worker import EarlyWorker, start_worker
from comfymodal.targets.spec import LocalSpec


@dataclass(slots=True)
class LocalTarget:
    """Fulfils `targets.base.Target`."""

    spec: LocalSpec
    environ: Mapping[str, str]
    early_worker: EarlyWorker | None = None
    name: str = "local"
    look_every_s: float = 0.01
    _engine: FoundEngine | None = field(default=None, init=False)
    _url: str | None = field(default=None, init=False)

    def needed_setup(self, kind: str = "render") -> Setup | None:
        if kind == "train":
            from comfymodal.training.ai_toolkit.command import find_toolkit

            # Whoever trains here has it installed with the GPU's own drivers: nothing of ours would fit as well.
            find_toolkit(self.environ)
        if kind != "render":
            return None
        from comfymodal.comfyui.install.engine import plan_install

        self._engine = self._find()
        if self._engine is not None:
            return None
        plan = plan_install(self.spec.engines)
        return describe_install(plan, f"no ComfyUI found on this machine; install ComfyUI {plan.version}")

    def set_up(self, on_event: OnEvent, kind: str = "render") -> None:
        from comfymodal.comfyui.install.engine import install, plan_install

        install(plan_install(self.spec.engines), on_event=on_event)
        self._engine = self._find()

    def engine_facts(self, on_event: OnEvent) -> EngineFacts:
        found = self._engine or self._find()
        if found is None:
            raise NotReadyError("no ComfyUI on this machine", hint="comfymodal engine install")
        self._engine = found
        if found.launch is not None:
            self._url = ensure_warm(found.launch, state=self.spec.state, on_event=on_event).url
        else:
            self._url = found.url
        return _facts(get_json(self._require_url(), "/system_stats"), found.how, self._require_url())

    def object_info(self, class_types: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return get_object_info(self._require_url(), class_types)

    def known_classes(self) -> Sequence[str]:
        return list(get_json(self._require_url(), "/object_info"))

    def model_files(self) -> Mapping[str, Sequence[str]]:
        from comfymodal.comfyui.catalog import fetch_models

        return fetch_models(self._require_url())

    def look_again_for_models(self, on_event: OnEvent) -> bool:
        # ComfyUI has looked this moment.
        return False

    @property
    def models_root(self) -> str | None:
        is_own = self._engine is not None and self._engine.launch is not None
        return str(self.spec.volumes["models"]) if is_own else None

    def known_nodes(self, *, may_ask: bool) -> KnownNodes | None:
        from comfymodal.targets.local_nodes import nodes_of, nodes_of_server, nodes_without_engine

        wish = self.spec.engine
        if wish.url:
            return nodes_of_server(wish.url, self.spec, how="comfyui.url", may_ask=may_ask)
        if (found := self._find()) is not None:
            return nodes_of(found, self.spec, may_ask=may_ask)
        return nodes_without_engine(self.spec) if wish.discover else None

    def put_input(self, source: Path, name: str) -> None:
        stored = self.spec.volumes["inputs"] / name
        try:
            if stored.is_file() and stored.stat().st_size == source.stat().st_size:
                return
            stored.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, stored)
        except OSError as exc:
            raise TransferError(f"cannot copy {source} to {stored}: {exc.strerror or exc}") from exc

    def submit(self, job: Mapping[str, Any]) -> str:
        needs_engine = job["kind"] == "render"
        if needs_engine and self._engine is None:
            raise NotReadyError("no engine was chosen before the job was submitted")
        call = self._call_folder(str(job["run_id"]))
        try:
            call.mkdir(parents=True, exist_ok=True)
            for name in (OUTCOME_FILE, SNAPSHOT_FILE, CONTROL_FILE):
                (call / name).unlink(missing_ok=True)
            write_json(
                call / CALL_FILE,
                {
                    "job": job,
                    "state": str(self.spec.state),
                    "volumes": {role: str(path) for role, path in self.spec.volumes.items()},
                    "engine": asdict(self._engine) if self._engine else None,
                },
            )
            # Keys of remotes reach their job by the environment and in no other way.
            identity = start_worker(call, self.early_worker, None if needs_engine else self.environ)
        except OSError as exc:
            raise OutputFolderError(f"cannot write to {call}: {exc.strerror or exc}") from exc
        return f"{identity.pid}@{identity.created!r}"

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        call = self._call_folder(run_id)
        # Liveness first: a worker that ends between two reads has written its outcome before.
        is_alive = _identity(call_id).is_alive()
        outcome = read_json(call / OUTCOME_FILE)
        snapshot = read_json(call / SNAPSHOT_FILE) or {"seq": 0, "events": []}
        events = tuple(event for event in snapshot["events"] if event["seq"] > after)
        return Look(max(after, int(snapshot["seq"])), events, outcome, is_alive)

    def cancel(self, run_id: str, call_id: str, *, at_once: bool = False) -> None:
        call = self._call_folder(run_id)
        if call.is_dir():
            (call / CONTROL_FILE).write_text("abort" if at_once else "stop")

    def results(self, run_id: str) -> Mapping[int, Mapping[str, Any]]:
        return read_results(run_folder(self.spec.volumes, run_id) / MANIFEST_FILE)

    def find_call(self, run_id: str) -> str | None:
        # The worker is started and noted within milliseconds; one that was killed in between left no trace.
        return None

    def job_of(self, run_id: str) -> Mapping[str, Any] | None:
        return read_json(run_folder(self.spec.volumes, run_id) / JOB_FILE)

    def fetch(self, role: str, path: str, destination: Path, on_bytes: Callable[[int], None]) -> None:
        source = self.spec.volumes[role] / path
        try:
            _copy(source, destination)
            on_bytes(destination.stat().st_size)
        except FileNotFoundError as exc:
            raise NotFoundError(f"{source} is gone", path=path) from exc
        except OSError as exc:
            raise TransferError(f"cannot write {destination}: {exc.strerror or exc}", hint="free some space") from exc

    def files(self, role: str, folder: str) -> Mapping[str, int]:
        root = self.spec.volumes[role]
        found = (Path(base, name) for base, _, names in os.walk(root / folder) for name in names)
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in found if path.is_file()}

    def _find(self) -> FoundEngine | None:
        return find_engine(self.spec.engine, engines=self.spec.engines, environ=self.environ)

    def _call_folder(self, run_id: str) -> Path:
        return self.spec.state / "calls" / run_id

    def _require_url(self) -> str:
        if self._url is None:
            raise RuntimeError("engine_facts comes first")
        return self._url


def _identity(call_id: str) -> ProcessIdentity:
    pid, _, created = call_id.partition("@")
    return ProcessIdentity(int(pid), float(created))


def _copy(source: Path, destination: Path) -> None:
    part = destination.with_name(destination.name + ".part")
    try:
        shutil.copyfile(source, part)
        part.replace(destination)
    finally:
        part.unlink(missing_ok=True)


def _facts(stats: Mapping[str, Any], how: str, url: str) -> EngineFacts:
    system = stats.get("system") or {}
    devices = stats.get("devices") or [{}]
    return EngineFacts(str(system.get("comfyui_version")), str(devices[0].get("name")), how, url)
