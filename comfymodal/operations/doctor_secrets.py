"""What `doctor` looks at on Modal for remotes: whether each one's secret is there, with keys that containers find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfymodal.errors import NotReadyError, UsageError
from comfymodal.operations.ends import pair_of, remote_of
from comfymodal.operations.examine import Check, Finding
from comfymodal.operations.setup import set_hint
from comfymodal.storage.ends import RemoteEnd, VolumeEnd
from comfymodal.storage.keys import key_names
from comfymodal.storage.rclone.session import region_of
from comfymodal.storage.values import Remote
from comfymodal.targets.modal.known_secrets import MOUNT_KEYS, KnownSecret, known_secret
from comfymodal.targets.spec import ModalSpec

if TYPE_CHECKING:
    from comfymodal.project.schema import Project


@dataclass(frozen=True, slots=True)
class Wanted:
    """A remote's secret, and what of the project needs it on Modal."""

    remote: Remote
    secret: str
    is_synced: bool
    is_mounted: bool


def secret_checks(project: Project, spec: ModalSpec, needs: tuple[str, ...]) -> list[Check]:
    """One look for each remote; `needs` are the checks without which Modal cannot be asked."""
    synced = _synced_there(project)
    checks = []
    for name in project.remotes:
        end = remote_of(project, name)
        is_mounted = any(mount.remote == name for mount in project.mounts.values())
        wanted = Wanted(end.remote, str(end.secret), name in synced, is_mounted)
        checks.append(Check(f"secret {wanted.secret} for {name}", _looker(wanted, spec), needs))
    return checks


def _synced_there(project: Project) -> set[str]:
    """Remotes of pairs that a container carries: those with a volume at the other end."""
    found = set()
    for name in project.sync:
        try:
            pair = pair_of(project, name)
        except UsageError:
            # The storage checks say so.
            continue
        ends = (pair.source, pair.target)
        if any(isinstance(end, VolumeEnd) for end in ends):
            found |= {end.remote.name for end in ends if isinstance(end, RemoteEnd)}
    return found


def _looker(wanted: Wanted, spec: ModalSpec) -> Callable[[], Finding]:
    return lambda: _look(wanted, spec.environment)


def _look(wanted: Wanted, environment: str | None) -> Finding:
    from comfymodal.targets.modal.secrets import missing_keys

    is_needed = wanted.is_synced or wanted.is_mounted
    if missing_keys(KnownSecret(wanted.secret, ()), environment) is None:
        return _fail("does not exist", _hint(wanted.secret), is_needed=is_needed)
    pairs = (MOUNT_KEYS,) if wanted.is_mounted else key_names(wanted.remote)
    for pair in pairs:
        missing = missing_keys(KnownSecret(wanted.secret, pair), environment) or ()
        if not missing:
            return _look_at_region(wanted, f"has {' and '.join(pair)}", environment)
        if len(missing) == 1:
            # Containers stop at the first name of which anything is set.
            return _fail(f"lacks {missing[0]}", _add_hint(missing, wanted.secret), is_needed=is_needed)
    what = f"has no keys for this remote ({' or '.join(' and '.join(pair) for pair in pairs)})"
    return _fail(what, _add_hint(pairs[-1], wanted.secret), is_needed=is_needed)


def _look_at_region(wanted: Wanted, told: str, environment: str | None) -> Finding:
    """Modal finds the region of Amazon's buckets by itself; of others it knows what the secret says."""
    from comfymodal.targets.modal.secrets import missing_keys

    region = wanted.remote.region or region_of(wanted.remote.endpoint)
    if (
        not wanted.is_mounted
        or region is None
        or missing_keys(KnownSecret(wanted.secret, ("AWS_REGION",)), environment) == ()
    ):
        return Finding("ok", told)
    hint = f"add AWS_REGION={region} to {wanted.secret} at https://modal.com/secrets"
    return Finding("warn", f"{told}, but not AWS_REGION: a mount may be tried in the wrong region", hint)


def _fail(what: str, hint: str, *, is_needed: bool) -> Finding:
    return Finding("fail", what, hint, NotReadyError.exit_code) if is_needed else Finding("warn", what, hint)


def _hint(name: str) -> str:
    secret = known_secret(name)
    return (
        set_hint(secret)
        if secret.keys
        else f"modal secret create {name} {' '.join(f'{key}=...' for key in MOUNT_KEYS)}"
    )


def _add_hint(keys: tuple[str, ...], secret: str) -> str:
    return f"add {' and '.join(keys)} to {secret} at https://modal.com/secrets"
