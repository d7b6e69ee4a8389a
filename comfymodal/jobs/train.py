"""Train a LoRA: bring the dataset to the local disk, supervise the trainer, put the result among the models.

A restarted job goes on from the newest whole checkpoint of the run's folder; one that has ended is only published.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from comfymodal.errors import (
    CancelledError,
    ComfymodalError,
    ConflictError,
    PartialError,
    TransferError,
    error_from_dict,
)
from comfymodal.files import read_json, write_json
from comfymodal.jobs.contract import JOB_FILE, VERSION, StoragePlace, run_folder
from comfymodal.jobs.train_publish import Publication, publish
from comfymodal.jobs.train_stage import Staging, plan_staging
from comfymodal.storage.names import inside
from comfymodal.training.ai_toolkit.command import find_toolkit
from comfymodal.training.ai_toolkit.layout import CACHE_FOLDERS
from comfymodal.training.ai_toolkit.rewrite import Placement, relocate
from comfymodal.training.ai_toolkit.trainer import AiToolkit
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.checkpoints import Keep
from comfymodal.training.config import Config, TrainingConfig
from comfymodal.training.state import Checkpoint, read_state
from comfymodal.training.supervisor import Hooks, Spec, supervise
from comfymodal.training.trainer import Launch
from comfymodal.training.watch import Limits

ROLE = "training"

_STATUS = {"succeeded": "succeeded", "stopped": "cancelled", "interrupted": "interrupted", "failed": "failed"}


def run(job: Mapping[str, Any], place: StoragePlace) -> dict[str, Any]:
    """Train, or go on training; return the outcome. Failures are in it. What is raised into this thread is raised
    again once what could be saved is saved.

    job: `{version, kind: "train", run_id, folder, config, locations, publish, keep, limits, device, scratch,
    deadline_s, origin}`. `folder` is the run's on the training volume; jobs with the same one go on with each other.
    `config` is native, checked and rewritten (`ai_toolkit.rewrite`), `locations` what it names, as in `train_stage`
    (with `sha256` of a dataset, for the note). `publish` is `{folder, name, more}` or null; without `folder` and `name`
    it is the run's name under `loras`, and `more` is JSON for the note. `keep` and `limits` hold fields of
    `checkpoints.Keep` and `watch.Limits`, and `scratch` is a folder of a local disk; all three may be left out.

    outcome: `{version, run_id, status, folder, result, published, may_pass, error, started_at, ended_at}`. status:
    succeeded; partial (trained and not published); cancelled (stopped by the operator, saved before if it had steps);
    interrupted (deadline or signal, saved before); failed. `result` is that of `training.supervisor`, null when it did
    not come to that; `may_pass`: the same job again may go well, and goes on. `published` as in `train_publish`.
    """
    outcome = _Outcome(job, time.time())
    try:
        folder = run_folder(place.volumes, str(job["run_id"]))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JOB_FILE, job)
        _train(job, place, outcome)
    except ComfymodalError as exc:
        outcome.error = exc
    except OSError as exc:
        where = f" {exc.filename}" if exc.filename else ""
        outcome.error = TransferError(
            f"cannot write{where}: {exc.strerror or exc}", hint="free some space, then train again: it goes on"
        )
    return outcome.to_dict()


def _train(job: Mapping[str, Any], place: StoragePlace, outcome: _Outcome) -> None:
    toolkit = find_toolkit(place.environ)
    store = inside(place.volumes[ROLE], str(job["folder"]))
    # Of the run's folder alone: variants of a sweep train side by side on one volume.
    with place.lease(str(store)):
        # What the last holder committed.
        place.reload(ROLE)
        values = read_values(dict(job["config"]))
        _require_same_model(store, values)
        store.mkdir(parents=True, exist_ok=True)
        write_json(store / JOB_FILE, job)
        with _scratch(job, store) as scratch:
            staging = plan_staging(job, place, scratch / "data", CACHE_FOLDERS)
            config = _located(job, staging, scratch)

            def make_trainer(folder: Path) -> AiToolkit:
                return _Trainer(toolkit, config, folder, dict(place.environ), staging=staging)

            outcome.result = supervise(_spec(job, values, store, staging, scratch), make_trainer, _hooks(place))
        _publish(job, place, store, outcome)


@dataclass(frozen=True, slots=True)
class _Trainer(AiToolkit):
    """Brings the data when it is known that there is something left to train."""

    staging: Staging = field(kw_only=True)

    def prepare(self) -> Launch:
        self.staging.bring()
        return AiToolkit.prepare(self)


def _spec(job: Mapping[str, Any], values: TrainingConfig, store: Path, staging: Staging, scratch: Path) -> Spec:
    return Spec(
        store,
        scratch,
        values.steps,
        save_every=values.save_every or None,
        keep=Keep(**_known(Keep, job.get("keep"))),
        limits=Limits(**_known(Limits, job.get("limits"))),
        expected_images=_expected_images(staging, values),
    )


def _expected_images(staging: Staging, values: TrainingConfig) -> dict[str, int]:
    """By folder, as the trainer counts: each repeat for itself."""
    found: dict[str, int] = {}
    for each in staging.locations:
        if each.images is None or "datasets" not in each.path:
            continue
        index = int(each.path[each.path.index("datasets") + 1])
        count = each.images * max(1, values.datasets[index].num_repeats)
        found[str(each.at)] = min(count, found.get(str(each.at), count))
    return found


def _hooks(place: StoragePlace) -> Hooks:
    def say(line: str) -> None:
        # Into the log of the container, or of the worker. One that cannot take a line ends no training.
        with contextlib.suppress(OSError, ValueError):
            print(line, flush=True)  # noqa: T201

    return Hooks(
        emit=place.emit,
        commit=lambda: place.commit(ROLE),
        control=place.control,
        is_leaving=lambda: place.is_leaving,
        deadline=place.deadline,
        say=say,
    )


def _located(job: Mapping[str, Any], staging: Staging, scratch: Path) -> Config:
    """The config with all paths as they are here; those of one attempt follow when that begins."""
    placement = Placement(
        name=str(job["config"]["config"]["name"]),
        training_folder=str(scratch),
        device=str(job.get("device") or "cuda"),
        locations=staging.texts,
    )
    return relocate(dict(job["config"]), placement).config


def _require_same_model(store: Path, values: TrainingConfig) -> None:
    """Raises `ConflictError` when the folder's checkpoints do not fit what is to be trained now."""
    before = read_json(store / JOB_FILE)
    if before is None or not read_state(store):
        return
    try:
        old = read_values(before["config"])
    except (KeyError, TypeError, ValueError, AttributeError):
        # Not of ours, or of another release; the checkpoints say for themselves whether they fit.
        return
    for what, was, now in (("architecture", old.arch, values.arch), ("rank", old.rank, values.rank)):
        if was != now:
            raise ConflictError(
                f"the run {values.name} was begun with {what} {was} and cannot go on with {now}",
                hint="give this one another name: --name",
            )


@contextlib.contextmanager
def _scratch(job: Mapping[str, Any], store: Path) -> Iterator[Path]:
    """A new folder of the local disk; those that killed attempts at the same run left are removed."""
    base = Path(job.get("scratch") or tempfile.gettempdir()) / f"comfymodal-train-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:12]
    _sweep(base, key)
    # A new one each time: the trainer of a worker that was killed lives, and writes, until its next line.
    folder = base / f"{key}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        # All of them: what such a trainer wrote while they were removed is there again.
        _sweep(base, key)


def _sweep(base: Path, key: str) -> None:
    for left in base.glob(f"{key}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _publish(job: Mapping[str, Any], place: StoragePlace, store: Path, outcome: _Outcome) -> None:
    result = outcome.result or {}
    if result.get("status") != "succeeded" or job.get("publish") is None:
        return
    try:
        outcome.published = publish(Publication(job, store, Checkpoint.from_dict(result["final"])), place)
    except ComfymodalError as exc:
        outcome.error = PartialError(
            f"trained to its end, and not put among the models: {exc.message}",
            hint=f"{exc.hint}; then train again: nothing is trained twice"
            if exc.hint
            else "train again: nothing is trained twice",
            cause=exc.code,
        )


def _known(kind: type[Any], data: Mapping[str, Any] | None) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in (data or {}).items() if name in names}


@dataclass(slots=True)
class _Outcome:
    """What the job has to say, whenever it ends."""

    job: Mapping[str, Any]
    started_at: float
    result: dict[str, Any] | None = None
    published: list[dict[str, Any]] = field(default_factory=list)
    error: ComfymodalError | None = None

    def to_dict(self) -> dict[str, Any]:
        status, error = self._verdict()
        return {
            "version": VERSION,
            "run_id": self.job["run_id"],
            "status": status,
            "folder": self.job["folder"],
            "result": self.result,
            "published": self.published,
            "may_pass": bool(self.result and self.result["may_pass"]),
            "error": error.to_dict() if error else None,
            "started_at": self.started_at,
            "ended_at": time.time(),
        }

    def _verdict(self) -> tuple[str, ComfymodalError | None]:
        if self.result is None or (self.error is None and self.result["error"]):
            error = self.error or error_from_dict((self.result or {})["error"])
            return ("cancelled" if isinstance(error, CancelledError) else "failed"), error
        if isinstance(self.error, PartialError):
            return "partial", self.error
        return ("failed" if self.error else _STATUS[self.result["status"]]), self.error
