"""Modal as a target: the same jobs in containers, found again by id from any machine."""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import modal

from comfymodal.errors import NotFoundError, NotReadyError, ProjectError, ServiceError, TransferError
from comfymodal.files import read_json, write_json
from comfymodal.jobs.contract import JOB_FILE, MANIFEST_FILE, OUTCOME_FILE, RUNS_FOLDER
from comfymodal.jobs.manifest import parse_results
from comfymodal.targets.base import EngineFacts, KnownNodes, Look, OnEvent, Setup
from comfymodal.targets.modal import calls
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.buckets import MountListing, kept_listing, list_buckets, read_listing
from comfymodal.targets.modal.carry_app import CarryApp
from comfymodal.targets.modal.deploy_words import describe_deploy
from comfymodal.targets.modal.deployment import (
    Deployment,
    deploy,
    inspect_nodes,
    kept_nodes,
    read_deployment,
    read_nodes,
)
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.known_secrets import KnownSecret
from comfymodal.targets.modal.limits import refusals
from comfymodal.targets.modal.names import TRAIN_ROLES, app_kind, app_name, board_name
from comfymodal.targets.modal.nodes import ModelFile, files_by_folder, first_of, models_in, with_models
from comfymodal.targets.modal.plan import fingerprint
from comfymodal.targets.modal.secrets import missing_keys
from comfymodal.targets.modal.session import connect
from comfymodal.targets.modal.storage_setup import create_volume, version_of
from comfymodal.targets.modal.sync_app import sync_app
from comfymodal.targets.modal.train_app import goes_of, train_app
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.spec import ModalSpec

ANNOUNCED_BYTES = 256 * 1024
"""The job of a larger batch is found on the outputs volume, once a container has it."""

LOOK_WAIT_S = 0.5
"""How long a glance may wait for the end of a run: an answer comes at once, and nobody is asked more often."""


@dataclass(slots=True)
class ModalTarget:
    """Fulfils `targets.base.Target`."""

    spec: ModalSpec
    name: str = "modal"
    look_every_s: float = 0.05
    _is_connected: bool = field(default=False, init=False)
    _nodes: Mapping[str, Any] | None = field(default=None, init=False)
    _files: Mapping[str, Mapping[str, ModelFile]] | None = field(default=None, init=False)
    _are_mounts_listed: bool = field(default=False, init=False)
    """By this very command."""

    def connect(self) -> None:
        """Raises `NotReadyError` or `ServiceError`; asks once."""
        if not self._is_connected:
            connect(self.spec.workspace)
            self._is_connected = True

    def needed_setup(self, kind: str = "render") -> Setup | None:
        if app_kind(kind) != "render":
            self.connect()
            return self._carry_app(kind).describe_deploy()
        if refused := refusals(self.spec):
            raise ProjectError(f"Modal would refuse this: {'; '.join(refused)}", hint="correct comfymodal.yaml")
        self.connect()
        found = read_deployment(self.spec, with_note=False)
        if found is not None and found.fingerprint == fingerprint(self.spec):
            return None
        return self._describe_deploy(found)

    def set_up(self, on_event: OnEvent, kind: str = "render") -> None:
        self.connect()
        if app_kind(kind) != "render":
            self._carry_app(kind).deploy(on_event)
            return
        volumes = Volumes(self.spec)
        for role in volumes.missing():
            volumes.create(role)
        deploy(self.spec, on_event)

    def engine_facts(self, on_event: OnEvent) -> EngineFacts:
        self.connect()
        if self._are_mounts_old():
            self._list_mounts(on_event)
        self._nodes = read_nodes(self.spec) or inspect_nodes(self.spec, on_event)
        self._inspect_new_folders(on_event)
        gpus = " or ".join(self.spec.containers.gpus)
        return EngineFacts(str(self._nodes["comfyui_version"]), gpus, f"Modal, {app_name(self.spec.project)}", None)

    def object_info(self, class_types: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        known = self._require_nodes()["object_info"]
        names = self.model_files()
        return {name: with_models(known[name], names) for name in class_types if name in known}

    def known_classes(self) -> Sequence[str]:
        return list(self._require_nodes()["object_info"])

    def model_files(self) -> Mapping[str, Sequence[str]]:
        return {folder: sorted(files) for folder, files in self._model_files().items()}

    def look_again_for_models(self, on_event: OnEvent) -> bool:
        if not self.spec.mounts or self._are_mounts_listed:
            return False
        before = self._model_files()
        self._list_mounts(on_event)
        self._inspect_new_folders(on_event)
        return self._model_files() != before

    @property
    def models_root(self) -> str | None:
        return f"volume {self.spec.volumes['models'].name}:"

    def known_nodes(self, *, may_ask: bool) -> KnownNodes | None:
        nodes = kept_nodes(self.spec)
        if may_ask:
            self.connect()
            nodes = read_nodes(self.spec)
        if nodes is None:
            return None
        self._files = None if may_ask else self._kept_files()
        names = self.model_files()
        return KnownNodes(
            comfyui_version=str(nodes["comfyui_version"]),
            device=" or ".join(self.spec.containers.gpus),
            how=f"Modal, {app_name(self.spec.project)}",
            object_info={name: with_models(entry, names) for name, entry in nodes["object_info"].items()},
            model_files=names,
            models_root=self.models_root,
            fetched_at=time.time() if may_ask else float((read_json(self._files_path) or {}).get("at") or 0),
            freshness="current" if may_ask and not self._are_mounts_old() else "outdated",
        )

    def put_input(self, source: Path, name: str) -> None:
        volumes = Volumes(self.spec)
        if volumes.size_of("inputs", name) != source.stat().st_size:
            volumes.put("inputs", source, name)

    def submit(self, job: Mapping[str, Any]) -> str:
        spawns = {"render": self._spawn_render, "sync": self._spawn_carry, "train": self._spawn_train}
        try:
            call_id = spawns[app_kind(job["kind"])](job)
        except ServiceError:
            # The answer may be lost, not the call: should a container take it, it finds that nobody wants it.
            with contextlib.suppress(modal.Error):
                self._board.ask_to_stop(str(job["run_id"]))
            raise
        # The SDK needs it for the download, 0.2 s to import: while the run has to be waited for anyway.
        threading.Thread(target=importlib.import_module, args=("aiohttp",), daemon=True).start()
        is_small = len(json.dumps(job)) <= ANNOUNCED_BYTES
        with contextlib.suppress(modal.Error):
            # It runs whether anybody else hears of it or not.
            self._board.announce(str(job["run_id"]), {"call_id": call_id, "job": dict(job) if is_small else None})
        return call_id

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        # Another machine's run of long ago: the board forgot its call, the outputs volume has how it ended.
        state = calls.state_of(call_id, wait_s=LOOK_WAIT_S) if call_id else calls.CallState(is_running=False)
        # The board second: of a run that has just ended it then holds the last words.
        try:
            with translated("cannot look at the run"):
                snapshot = {} if state.outage else self._board.read(run_id) or {}
        except ServiceError as exc:
            snapshot, state = (
                {},
                calls.CallState(is_running=state.is_running, outcome=state.outcome, outage=exc.message),
            )
        events = tuple(event for event in snapshot.get("events") or () if event["seq"] > after)
        seq = max(after, int(snapshot.get("seq") or 0))
        if state.outage is not None:
            events = (*events, {"type": "service_silent", "message": state.outage, "seq": seq})
        elif after == 0 and snapshot == {} and state.is_running:
            events = ({"type": "phase", "phase": "waiting", "seq": 0},)
        if state.is_running:
            return Look(seq, events, None, is_alive=True)
        outcome = state.outcome or snapshot.get("outcome")
        if outcome is None or outcome.get("is_abridged"):
            outcome = self._kept_outcome(run_id) or outcome
        return Look(seq, events, outcome or self._ended_without_words(run_id, state), is_alive=False)

    def cancel(self, run_id: str, call_id: str, *, at_once: bool = False) -> None:
        with translated("cannot ask the run to stop"):
            self._board.ask(run_id, "abort" if at_once else "stop")
            is_taken = self._board.read(run_id) is not None
        # One that no container took yet must not start only to be stopped.
        if call_id and not is_taken:
            calls.cancel(call_id)

    def find_call(self, run_id: str) -> str | None:
        with translated("cannot look for the run"):
            found = self._board.read(run_id) or self._board.announced(run_id)
        return str(found["call_id"]) if found.get("call_id") else None

    def job_of(self, run_id: str) -> Mapping[str, Any] | None:
        self.connect()
        with translated("cannot look for the run"):
            job = self._board.announced(run_id).get("job")
        if isinstance(job, Mapping):
            return job
        return Volumes(self.spec).read_json("outputs", f"{RUNS_FOLDER}/{run_id}/{JOB_FILE}")

    def results(self, run_id: str) -> Mapping[int, Mapping[str, Any]]:
        self.connect()
        text = Volumes(self.spec).read("outputs", f"{RUNS_FOLDER}/{run_id}/{MANIFEST_FILE}")
        return parse_results(text or b"")

    def fetch(self, role: str, path: str, destination: Path, on_bytes: Callable[[int], None]) -> None:
        part = destination.with_name(destination.name + ".part")
        try:
            with part.open("ab") as stream:
                on_bytes(stream.tell())
                Volumes(self.spec).fetch(role, path, stream, on_bytes)
            part.replace(destination)
        except FileNotFoundError as exc:
            part.unlink(missing_ok=True)
            raise NotFoundError(f"{path} is gone from the volume {self.spec.volumes[role].name}", path=path) from exc
        except (OSError, ServiceError) as exc:
            reason = exc.message if isinstance(exc, ServiceError) else exc.strerror or str(exc)
            raise TransferError(f"{PurePosixPath(path).name} did not come whole: {reason}") from exc

    def files(self, role: str, folder: str) -> Mapping[str, int]:
        self.connect()
        return dict(Volumes(self.spec).files(role, folder))

    def _spawn_render(self, job: Mapping[str, Any]) -> str:
        needed = models_in([prompt["graph"] for prompt in job["prompts"]], self._object_info(), self._model_files())
        models = [{"file": model.path, "size_bytes": model.size_bytes, "mount": model.mount} for model in needed]
        return calls.spawn(self.spec, {**job, "models": models})

    def _spawn_carry(self, job: Mapping[str, Any]) -> str:
        self.connect()
        secrets = self._secrets_for(job)
        # The run's own folder lies on the outputs volume.
        where = self._where((*(job.get("mounts") or ()), "outputs"))
        return calls.spawn_carry(self.spec, {**job, "modal": where}, secrets=secrets)

    def _spawn_train(self, job: Mapping[str, Any]) -> str:
        self.connect()
        secrets = self._secrets_for(job)
        where = {**self._where((*(job.get("mounts") or ()), *TRAIN_ROLES)), **goes_of(self.spec, job)}
        return calls.spawn_train(self.spec, {**job, "modal": where}, secrets=secrets)

    def _where(self, roles: Sequence[str]) -> dict[str, Any]:
        """What a container must know of this place; volumes that are not there yet are made."""
        volumes = {
            role: {"name": self.spec.volumes[role].name, "version": self._open_volume(role)}
            for role in dict.fromkeys(roles)
        }
        return {"project": self.spec.project, "board": board_name(self.spec.project), "volumes": volumes}

    def _carry_app(self, kind: str) -> CarryApp:
        return train_app(self.spec) if app_kind(kind) == "train" else sync_app(self.spec)

    def _secrets_for(self, job: Mapping[str, Any]) -> list[str]:
        """Those it must have, and of those it may have the ones that are there."""
        found = []
        for name in dict.fromkeys((*(job.get("secrets") or ()), *(job.get("optional_secrets") or ()))):
            if missing_keys(KnownSecret(name, ()), self.spec.environment) is not None:
                found.append(name)
            elif name in (job.get("secrets") or ()):
                raise NotReadyError(
                    f"there is no Modal secret {name}; nothing was started",
                    hint="comfymodal setup makes it from the environment or .env",
                    secret=name,
                )
        return found

    def _open_volume(self, role: str) -> int:
        """The volume's version; one that is not there yet is made."""
        volume, environment = self.spec.volumes[role], self.spec.environment
        if (version := version_of(volume, environment)) is not None:
            return version
        create_volume(volume, environment)
        return version_of(volume, environment) or volume.version

    @property
    def _board(self) -> Board:
        return Board(board_name(self.spec.project), self.spec.environment)

    def _require_nodes(self) -> Mapping[str, Any]:
        if self._nodes is None:
            raise RuntimeError("engine_facts comes first")
        return self._nodes

    def _object_info(self) -> Mapping[str, Any]:
        nodes = self._nodes or read_nodes(self.spec)
        if nodes is None:
            raise NotFoundError("nobody knows the nodes of what is deployed", hint="comfymodal deploy")
        return nodes["object_info"]  # type: ignore[no-any-return]

    def _model_files(self) -> Mapping[str, Mapping[str, ModelFile]]:
        if self._files is None:
            paths = list(Volumes(self.spec).files("models"))
            self._files_path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._files_path, {"at": time.time(), "paths": paths})
            self._files = self._with_mounts(files_by_folder(paths), read_listing(self.spec))
        return self._files

    def _kept_files(self) -> Mapping[str, Mapping[str, ModelFile]]:
        kept = read_json(self._files_path) or {}
        on_volume = files_by_folder((str(path), int(size)) for path, size in kept.get("paths") or ())
        return self._with_mounts(on_volume, kept_listing(self.spec))

    def _with_mounts(
        self, on_volume: Mapping[str, Mapping[str, ModelFile]], listing: MountListing | None
    ) -> Mapping[str, Mapping[str, ModelFile]]:
        return first_of([on_volume, *(listing.by_folder(self.spec) if listing else ())])

    def _list_mounts(self, on_event: OnEvent) -> None:
        list_buckets(self.spec, on_event)
        self._are_mounts_listed, self._files = True, None

    def _are_mounts_old(self) -> bool:
        listing = read_listing(self.spec)
        return bool(self.spec.mounts) and (listing is None or listing.is_old)

    def _inspect_new_folders(self, on_event: OnEvent) -> None:
        if not set(self._model_files()) <= set(self._require_nodes()["folders"]):
            # A folder that is new on the volume: only ComfyUI knows which nodes read it.
            self._nodes = inspect_nodes(self.spec, on_event)

    @property
    def _files_path(self) -> Path:
        return self.spec.state / "modal" / f"models-{self.spec.volumes['models'].name}.json"

    def _kept_outcome(self, run_id: str) -> Mapping[str, Any] | None:
        return Volumes(self.spec).read_json("outputs", f"{RUNS_FOLDER}/{run_id}/{OUTCOME_FILE}")

    def _ended_without_words(self, run_id: str, state: calls.CallState) -> Mapping[str, Any] | None:
        results = self.results(run_id)
        if state.is_cancelled:
            return {"status": "cancelled", "error": None, "ended_at": time.time()}
        if state.error is None:
            return None
        error = state.error
        error.hint = error.hint or f"its log: comfymodal logs {run_id}; once more: comfymodal runs again {run_id}"
        return {"status": "partial" if results else "failed", "error": error.to_dict(), "ended_at": time.time()}

    def _describe_deploy(self, found: Deployment | None) -> Setup:
        known = read_deployment(self.spec) if found is not None and found.fingerprint else None
        missing = [self.spec.volumes[role].name for role in Volumes(self.spec).missing()]
        described = known.described if known is not None else None
        return describe_deploy(self.spec, described, missing, is_first=found is None)
