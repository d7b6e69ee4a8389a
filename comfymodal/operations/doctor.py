"""`comfymodal doctor`: all that renders and syncs need, looked at one by one; what is wrong comes with its remedy.

Every look is taken even when another failed, but for those that could not tell anything then.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.comfyui.find import find_engine
from comfymodal.errors import NotReadyError, UsageError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.desk import Desk
from comfymodal.operations.doctor_live import examine_live
from comfymodal.operations.doctor_notify import live_checks, notify_checks
from comfymodal.operations.doctor_secrets import secret_checks
from comfymodal.operations.doctor_storage import storage_checks
from comfymodal.operations.examine import Check, Finding, Told, examine, first_failure
from comfymodal.operations.setup import set_hint
from comfymodal.operations.setup_results import CheckStatus, DoctorReport
from comfymodal.targets.modal.known_secrets import known_secret, secret_names
from comfymodal.targets.modal_client import INSTALL_HINT, MADE_FOR, require_client
from comfymodal.targets.spec import LocalSpec, ModalSpec, VolumeSpec

if TYPE_CHECKING:
    from comfymodal.project.schema import Project

CLOCK_TOLERANCE_S = 60.0

_MODAL_CHECKS = (
    "modal",
    "token",
    "service",
    "workspace",
    "environment",
    "clock",
    "volumes",
    "secrets",
    "app",
    "train app",
)


@dataclass(frozen=True, slots=True)
class Patient:
    """The project and this machine, opened so that a broken Modal client does not stop the examination."""

    project: Project
    local: LocalSpec
    environ: Mapping[str, str]
    spec: ModalSpec | None
    """None for a project that renders on this machine."""
    folder: Path
    """The project's: its `.env` may hold keys."""


def open_patient(config: Path | None, *, environ: Mapping[str, str], cwd: Path, target: str | None = None) -> Patient:
    """Read the project without touching Modal; `target` is the flag. Raises `ProjectError`."""
    from comfymodal.operations.modal_spec import modal_spec
    from comfymodal.project.load import find_project_file, load_project

    file = find_project_file(config, cwd=cwd)
    project = load_project(file, environ=environ, cwd=cwd, flags={"target": target}).settings
    here: Context = open_context(config, environ=environ, cwd=cwd, flags={"target": "local"})
    spec = modal_spec(project, here.state) if project.target == "modal" else None
    return Patient(project, here.local, environ, spec, here.folder)


def doctor(patient: Patient, desk: Desk, *, is_live: bool) -> DoctorReport:
    """Look at everything.

    With `is_live` also send test messages, and prove in a container what only an account can tell, after asking.
    """
    if is_live and patient.spec is None and not patient.project.notify:
        raise UsageError("--live proves things on Modal, and this project renders on this machine (target: local)")
    desk.event({"type": "phase", "phase": "checking"})
    modal = _not_used() if patient.spec is None else _modal_checks(patient.spec, patient)
    findings = examine([*modal, *_local_checks(patient)])
    storage = examine(storage_checks(patient.project, patient.folder, patient.environ))
    proofs: Told = []
    cost = None
    if is_live and patient.spec is not None:
        # A bucket that does not open is nothing to the container.
        proofs, cost = examine_live(patient.spec, findings, desk)
    notify = (notify_checks, live_checks) if is_live else (notify_checks,)
    told = [check for checks in notify for check in checks(patient.project, patient.folder, patient.environ)]
    findings += storage + examine(told) + proofs
    error = first_failure(findings)
    return DoctorReport(
        target=patient.project.target,
        checks=tuple(row for row, _ in findings),
        is_live=is_live,
        cost=cost,
        error=error.to_dict() if error else None,
        exit_code=error.exit_code if error else 0,
    )


def _not_used() -> list[Check]:
    told = Finding("not used", "this project renders on this machine (target: local)")
    return [Check(name, lambda: told) for name in _MODAL_CHECKS]


def _modal_checks(spec: ModalSpec, patient: Patient) -> list[Check]:
    there = ("modal", "token", "service", "workspace", "environment")
    checks = [
        Check("modal", _look_at_package),
        Check("token", lambda: _look_at_token(patient.environ), ("modal",)),
        Check("service", _look_at_service, ("modal",)),
        Check("workspace", lambda: _look_at_workspace(spec), there[:3]),
        Check("environment", lambda: _look_at_environment(spec), there[:4]),
        Check("clock", lambda: _look_at_clock(spec.environment), ("modal", "service")),
    ]
    for role, volume in spec.render_volumes.items():
        checks.append(Check(f"volume {volume.name}", _looker_at_volume(role, volume, spec), there))
    remotes = {each.secret for each in patient.project.remotes.values()} - set(spec.containers.secrets)
    for name in secret_names(spec.containers.secrets):
        if name not in remotes:
            checks.append(Check(f"secret {name}", _looker_at_secret(name, spec), there))
    checks += secret_checks(patient.project, spec, there)
    checks.append(Check("app", lambda: _look_at_app(spec), there))
    checks.append(Check("train app", lambda: _look_at_train_app(spec), there))
    return checks


def _looker_at_volume(role: str, volume: VolumeSpec, spec: ModalSpec) -> Callable[[], Finding]:
    return lambda: _look_at_volume(role, volume, spec)


def _looker_at_secret(name: str, spec: ModalSpec) -> Callable[[], Finding]:
    return lambda: _look_at_secret(name, spec)


def _local_checks(patient: Patient) -> list[Check]:
    is_modal = patient.spec is not None
    return [
        Check("engine here", lambda: _look_at_engine(patient.local, patient.environ, is_modal=is_modal)),
        Check("output folder", lambda: look_at_folder(patient.project.render.output_dir)),
    ]


def _look_at_package() -> Finding:
    version = require_client()
    if not version.startswith(f"{MADE_FOR}."):
        return Finding("warn", f"version {version}; comfymodal is made for {MADE_FOR}", INSTALL_HINT)
    return Finding("ok", f"version {version}")


def _look_at_token(environ: Mapping[str, str]) -> Finding:
    from comfymodal.targets.modal.checkup import token_origin

    return Finding("ok", token_origin(environ))


def _look_at_service() -> Finding:
    from comfymodal.targets.modal.session import require_service

    began = time.monotonic()
    require_service()
    return Finding("ok", f"takes connections, {(time.monotonic() - began) * 1000:.0f} ms")


def _look_at_workspace(spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.session import connect, workspace_name

    connect(spec.workspace)
    name = workspace_name()
    return Finding("ok", f"{name}, as modal.workspace says" if spec.workspace else name)


def _look_at_environment(spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.checkup import environment_name

    name = environment_name(spec.environment)
    return Finding("ok", f"{name}, as modal.environment says" if spec.environment else f"{name} (the default)")


def _look_at_clock(environment: str | None) -> Finding:
    from comfymodal.targets.modal.checkup import read_clock

    reading = read_clock(environment)
    if reading is None:
        return Finding("skipped", "Modal did not tell the time")
    return judge_clock(reading.ahead_s, reading.teller)


def judge_clock(ahead_s: float, teller: str) -> Finding:
    """A clock that is off makes tokens invalid and times of runs wrong."""
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding("ok", f"within {max(1, round(abs(ahead_s)))} s of Modal's (by {teller})")
    way = "ahead of" if ahead_s > 0 else "behind"
    what = f"this machine's clock is {abs(ahead_s):.0f} s {way} Modal's (by {teller})"
    return Finding("warn", what, "let the system set its clock from the network (NTP)")


def _look_at_volume(role: str, volume: VolumeSpec, spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.storage_setup import look_at_volume

    look = look_at_volume(volume, spec.environment)
    if look is None:
        return Finding("fail", "does not exist", "comfymodal setup", NotReadyError.exit_code)
    entries = "1 entry" if look.entries == 1 else f"{look.entries} entries"
    other = "" if look.version == volume.version else f" (volumes.{role}.version says {volume.version}; it is kept)"
    return Finding("ok", f"version {look.version}{other}, {entries} at the top")


def _look_at_secret(name: str, spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.secrets import missing_keys

    secret, is_needed = known_secret(name), name in spec.containers.secrets
    missing = missing_keys(secret, spec.environment)
    if missing is None:
        if is_needed:
            return Finding("fail", "does not exist", set_hint(secret), NotReadyError.exit_code)
        return Finding("not used", "does not exist, and this project does not need it")
    if missing:
        hint = f"add {' and '.join(missing)} at https://modal.com/secrets"
        status: CheckStatus = "fail" if is_needed else "warn"
        return Finding(status, f"lacks {', '.join(missing)}", hint, NotReadyError.exit_code)
    return Finding("ok", f"has {', '.join(secret.keys)}" if secret.keys else "exists")


def _look_at_app(spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.deployment import read_deployment
    from comfymodal.targets.modal.plan import fingerprint

    found = read_deployment(spec, with_note=False)
    if found is None:
        return Finding("warn", "nothing is deployed yet", "comfymodal deploy")
    if found.fingerprint is None:
        return Finding("warn", "a deploy began and was not found sound", "comfymodal deploy")
    if found.fingerprint != fingerprint(spec):
        return Finding("warn", "what is deployed differs from the project file", "comfymodal deploy")
    return Finding("ok", f"deployed as the project file says ({found.fingerprint})")


def _look_at_train_app(spec: ModalSpec) -> Finding:
    from comfymodal.targets.modal.train_app import train_app

    app = train_app(spec)
    live = app.live_fingerprint()
    if live is None:
        return Finding("not used", "not deployed; the first training offers to")
    if live != app.fingerprint:
        return Finding("warn", f"{app.name} is not as this project has it; the next training offers to deploy it again")
    return Finding("ok", f"deployed as the project file says ({live})")


def _look_at_engine(local: LocalSpec, environ: Mapping[str, str], *, is_modal: bool) -> Finding:
    try:
        found = find_engine(local.engine, engines=local.engines, environ=environ)
    except NotReadyError as error:
        if not is_modal:
            raise
        return Finding("warn", error.message, error.hint)
    if found is None:
        if is_modal:
            return Finding("not used", "no ComfyUI on this machine; Modal renders")
        return Finding("warn", "no ComfyUI on this machine yet", "comfymodal engine install")
    name = found.url or (found.launch.name if found.launch else "")
    return Finding("ok", f"{name} ({found.how})")


def look_at_folder(folder: Path) -> Finding:
    """Whether output files can be written; the folder itself need not be there yet, and is not made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    hint = "correct render.output_dir in comfymodal.yaml, or use --out DIR"
    if not there.is_dir():
        return Finding("fail", f"{there} is a file, so {folder} cannot be a folder", hint, NotReadyError.exit_code)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".comfymodal-"):
            pass
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        return Finding("fail", f"cannot write to {there}: {reason}", hint, NotReadyError.exit_code)
    return Finding("ok", f"{folder} can be written to" if there == folder else f"{folder} will be made in {there}")
