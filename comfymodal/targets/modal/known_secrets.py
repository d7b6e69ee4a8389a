"""Secrets whose contents have a meaning here, by the names the guide's users have. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """A secret whose contents have a meaning here: `keys` must be in it, `more` is taken along where it is set."""

    name: str
    keys: tuple[str, ...]
    more: tuple[str, ...] = ()


MOUNT_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The only names under which Modal looks for the keys of a mounted bucket (SDK 1.6.4, `CloudBucketMount`)."""

KNOWN_SECRETS: Final = (
    KnownSecret("b2-credentials", MOUNT_KEYS),
    KnownSecret("hf-credentials", ("HF_TOKEN",)),
    KnownSecret("civitai-credentials", ("CIVITAI_TOKEN",)),
    KnownSecret("slack-credentials", ("SLACK_BOT_TOKEN",), more=("SLACK_ERROR_CHANNEL",)),
)


def known_secret(name: str) -> KnownSecret:
    """What is known of a secret; of one that the project alone knows, only that it must be there."""
    return next((known for known in KNOWN_SECRETS if known.name == name), KnownSecret(name, ()))


def secret_names(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The known ones and those the project wants, each once."""
    return tuple(dict.fromkeys((*(known.name for known in KNOWN_SECRETS), *wanted)))
