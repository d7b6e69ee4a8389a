"""Modal secrets by name: whether they are there with their keys, and making one.

A value goes from here to Modal and nowhere else: not into a result, not into an error, not into a log.
"""

from __future__ import annotations

from collections.abc import Mapping

import modal
import modal.exception as me

from comfymodal.errors import ServiceError
from comfymodal.targets.modal.errors import translate, translated
from comfymodal.targets.modal.known_secrets import KnownSecret


def missing_keys(secret: KnownSecret, environment: str | None) -> tuple[str, ...] | None:
    """The keys it lacks, as Modal itself says; None when there is no such secret. Raises `ServiceError`."""
    with translated(f"cannot look up the secret {secret.name}"):
        try:
            modal.Secret.from_name(secret.name, environment_name=environment).hydrate()
        except me.NotFoundError:
            return None
    if _has(secret.name, secret.keys, environment):
        return ()
    return tuple(key for key in secret.keys if not _has(secret.name, (key,), environment))


def create_secret(secret: KnownSecret, values: Mapping[str, str], environment: str | None) -> bool:
    """Make it and read its keys back; False when somebody else made one meanwhile, which is then kept."""
    try:
        modal.Secret.objects.create(secret.name, dict(values), environment_name=environment)
    except me.AlreadyExistsError:
        return False
    except modal.Error as exc:
        error = translate(exc, f"cannot create the secret {secret.name}")
        # Modal may quote what it refuses; without the cause nothing downstream can print it either.
        raise type(error)(_without(values, error.message), hint=error.hint) from None
    if missing_keys(secret, environment) != ():
        raise ServiceError(
            f"the secret {secret.name} was created, yet Modal does not give it back",
            hint="the same command may work later; see https://modal.com/secrets",
        )
    return True


def _has(name: str, keys: tuple[str, ...], environment: str | None) -> bool:
    if not keys:
        return True
    with translated(f"cannot look up the secret {name}"):
        try:
            modal.Secret.from_name(name, environment_name=environment, required_keys=list(keys)).hydrate()
        except (me.NotFoundError, me.InvalidError):
            return False
    return True


def _without(values: Mapping[str, str], text: str) -> str:
    for value in sorted(values.values(), key=len, reverse=True):
        text = text.replace(value, "***")
    return text
