"""`comfymodal setup`: what a project needs on Modal before it can be deployed, made where it is missing.

What is there is kept as it is. Values of secrets pass through here and are never part of what is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfymodal.errors import InputFileError, NotReadyError, ServiceError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.setup_results import SecretRow, SetupDone, VolumeRow
from comfymodal.targets.modal.known_secrets import KnownSecret, known_secret, secret_names
from comfymodal.targets.spec import ModalSpec, VolumeSpec

ENV_FILE = ".env"


@dataclass(frozen=True, slots=True)
class Found:
    """Values for a secret, by key, and which of its keys nobody set."""

    values: Mapping[str, str] = field(repr=False)
    missing: tuple[str, ...]
    source: str


def set_up(folder: Path, context: Context, desk: Desk, *, is_dry_run: bool) -> SetupDone:
    """Create the volumes and secrets that are missing and prove each by reading it back.

    `folder` is the project's: its `.env` may hold values. Raises `NotReadyError`, `NotFoundError` or `ServiceError`
    when Modal cannot be used at all; a secret that nobody set is a row, not an error.
    """
    spec = context.modal_spec()
    local = Values.read(folder, context.environ)
    desk.event({"type": "phase", "phase": "connect"})
    from comfymodal.targets.modal.checkup import environment_name
    from comfymodal.targets.modal.session import connect, workspace_name

    connect(spec.workspace)
    workspace, environment = workspace_name(), environment_name(spec.environment)
    desk.event({"type": "phase", "phase": "volumes"})
    volumes = tuple(_volume(role, spec, is_dry_run=is_dry_run) for role in spec.render_volumes)
    _tell_versions(volumes, spec, desk)
    desk.event({"type": "phase", "phase": "secrets"})
    secrets = _secrets(spec, local, is_dry_run=is_dry_run)
    error = _what_is_missing(secrets)
    return SetupDone(
        workspace=workspace,
        environment=environment,
        volumes=volumes,
        secrets=secrets,
        is_dry_run=is_dry_run,
        next_command=None if error else _next_command((*volumes, *secrets)),
        error=error.to_dict() if error else None,
        exit_code=error.exit_code if error else 0,
    )


@dataclass(frozen=True, slots=True)
class Values:
    """Where values of secrets may come from: the environment, and below it the project's `.env`."""

    environ: Mapping[str, str] = field(repr=False)
    file: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, environ: Mapping[str, str]) -> Values:
        """Raises `InputFileError` for a `.env` that cannot be read."""
        path = folder / ENV_FILE
        if not path.is_file():
            return cls(environ, {})
        from dotenv import dotenv_values

        try:
            found = dotenv_values(path)
        except UnicodeDecodeError as exc:
            raise InputFileError(f"{path} is not UTF-8 text", hint="save it as UTF-8, or export its values") from exc
        except OSError as exc:
            raise InputFileError(f"cannot read {path}: {exc.strerror or exc}") from exc
        return cls(environ, {key: value for key, value in found.items() if value})

    def find(self, secret: KnownSecret) -> Found:
        """The values of a secret's keys; the environment wins over the file."""
        keys = (*secret.keys, *secret.more)
        values = {key: value for key in keys if (value := self.environ.get(key) or self.file.get(key))}
        sources = ("the environment" if self.environ.get(key) else ENV_FILE for key in values)
        missing = tuple(key for key in secret.keys if key not in values)
        return Found(values, missing, " and ".join(dict.fromkeys(sources)))


def _volume(role: str, spec: ModalSpec, *, is_dry_run: bool) -> VolumeRow:
    from comfymodal.targets.modal.storage_setup import create_volume, look_at_volume

    volume = spec.volumes[role]
    look = look_at_volume(volume, spec.environment)
    if look is not None:
        return VolumeRow(role, volume.name, "kept", look.version, look.entries)
    if is_dry_run:
        return VolumeRow(role, volume.name, "would create", volume.version, 0)
    is_ours = create_volume(volume, spec.environment)
    look = look_at_volume(volume, spec.environment)
    if look is None:
        raise ServiceError(
            f"the volume {volume.name} was created, yet Modal does not give it back",
            hint="the same command may work later: comfymodal setup",
        )
    return VolumeRow(role, volume.name, "created" if is_ours else "kept", look.version, look.entries)


def _tell_versions(rows: tuple[VolumeRow, ...], spec: ModalSpec, desk: Desk) -> None:
    if any(row.version == 2 and row.action != "kept" for row in rows):
        desk.warn("Modal still calls version 2 of its volumes beta; volumes.<role>.version: 1 chooses the older one")
    for row in rows:
        wanted: VolumeSpec = spec.volumes[row.role]
        if row.action == "kept" and row.version != wanted.version:
            desk.warn(
                f"the volume {row.name} is one of version {row.version} and is kept as it is; "
                f"volumes.{row.role}.version says {wanted.version}"
            )


def _secrets(spec: ModalSpec, local: Values, *, is_dry_run: bool) -> tuple[SecretRow, ...]:
    needed = (*spec.containers.secrets, *(mount.secret for mount in spec.mounts.values()))
    rows = []
    for name in secret_names(needed):
        secret, more, is_needed = known_secret(name), region_for(name, spec), name in needed
        rows.append(_secret(secret, spec.environment, local, more=more, is_needed=is_needed, is_dry_run=is_dry_run))
    return tuple(rows)


def region_for(secret: str, spec: ModalSpec) -> dict[str, str]:
    """What Modal takes from a mount's secret beside the keys; nothing where the mounts with it disagree."""
    regions = {mount.region for mount in spec.mounts.values() if mount.secret == secret and mount.region}
    return {"AWS_REGION": regions.pop()} if len(regions) == 1 else {}


def _secret(
    secret: KnownSecret,
    environment: str | None,
    local: Values,
    *,
    more: Mapping[str, str],
    is_needed: bool,
    is_dry_run: bool,
) -> SecretRow:
    from comfymodal.targets.modal.secrets import create_secret, missing_keys

    missing = missing_keys(secret, environment)
    if missing is not None:
        if not missing:
            return SecretRow(secret.name, "kept", secret.keys, (), None, is_needed, None)
        hint = _replace_hint(secret, missing)
        return SecretRow(secret.name, "lacks keys", secret.keys, missing, None, is_needed, hint)
    found = local.find(secret)
    if found.missing or not secret.keys:
        return SecretRow(secret.name, "not set", secret.keys, found.missing, None, is_needed, set_hint(secret))
    values = {**found.values, **more}
    if is_dry_run:
        return SecretRow(secret.name, "would create", tuple(values), (), found.source, is_needed, None)
    if create_secret(secret, values, environment):
        return SecretRow(secret.name, "created", tuple(values), (), found.source, is_needed, None)
    # Made by somebody else a moment ago: now it is one that was there.
    return _secret(secret, environment, local, more=more, is_needed=is_needed, is_dry_run=True)


def set_hint(secret: KnownSecret) -> str:
    """How to get a secret that is not there."""
    if not secret.keys:
        return f"modal secret create {secret.name} KEY=VALUE (only you know what is in it)"
    them = "it" if len(secret.keys) == 1 else "them"
    return f"export {' and '.join(secret.keys)}, or write {them} into {ENV_FILE} here; then: comfymodal setup"


def _replace_hint(secret: KnownSecret, missing: tuple[str, ...]) -> str:
    return f"add {' and '.join(missing)} to {secret.name} at https://modal.com/secrets; setup overwrites nothing"


def _next_command(rows: Sequence[VolumeRow | SecretRow]) -> str:
    return "comfymodal setup" if any(row.action == "would create" for row in rows) else "comfymodal deploy"


def _what_is_missing(rows: tuple[SecretRow, ...]) -> NotReadyError | None:
    missing = [row for row in rows if row.is_needed and row.action in ("not set", "lacks keys")]
    if not missing:
        return None
    told = "; ".join(f"{row.name} {_lack(row)}" for row in missing)
    return NotReadyError(
        f"the project needs secrets (comfyui.secrets, mounts) that are not ready: {told}", hint=missing[0].hint
    )


def _lack(row: SecretRow) -> str:
    if row.action == "lacks keys":
        return f"lacks {', '.join(row.missing)}"
    return f"is not set (no {', '.join(row.missing)} here)" if row.missing else "does not exist"
