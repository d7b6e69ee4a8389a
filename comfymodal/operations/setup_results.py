"""What `setup` and `doctor` return. Field names are the keys of `--json`: adding one is free, renaming is not.

No field ever holds the value of a secret or of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """A volume of the project. `version` (1 or 2) is the one it has, or gets; `entries` counts what lies at its top."""

    role: str
    name: str
    action: Literal["created", "kept", "would create"]
    version: int
    entries: int


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret by name. `missing` are keys it lacks; `source` says where the values of a new one came from."""

    name: str
    action: Literal["created", "kept", "would create", "lacks keys", "not set"]
    keys: tuple[str, ...]
    missing: tuple[str, ...]
    source: str | None
    is_needed: bool
    hint: str | None


@dataclass(frozen=True, slots=True)
class SetupDone:
    """`error` is what `--json` shows under `errors`: secrets that the project needs and that are not there."""

    workspace: str
    environment: str
    volumes: tuple[VolumeRow, ...]
    secrets: tuple[SecretRow, ...]
    is_dry_run: bool
    next_command: str | None
    error: Mapping[str, Any] | None
    exit_code: int


CheckStatus = Literal["ok", "warn", "fail", "skipped", "not used"]


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One thing that was looked at. A failed one always has a hint; `seconds` is how long the look took."""

    check: str
    status: CheckStatus
    what: str
    hint: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """`cost` is what `--live` cost at most, in US dollars; `error` is what `--json` shows under `errors`."""

    target: str
    checks: tuple[CheckRow, ...]
    is_live: bool
    cost: str | None
    error: Mapping[str, Any] | None
    exit_code: int
