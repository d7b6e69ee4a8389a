"""The frozen values `deploy` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChangeShown:
    """One key that differs from what is deployed, and what its change does."""

    key: str
    old: str
    new: str
    effect: str


@dataclass(frozen=True, slots=True)
class DeployReport:
    """What a deploy would do, or did. Money is US dollars as text; `idle_per_month` is 0 unless containers are kept.

    `status`: `planned` (dry run), `deployed`, or `unchanged`.
    """

    app: str
    status: str
    fingerprint: str
    changes: tuple[ChangeShown, ...]
    volumes_created: tuple[str, ...]
    build_minutes: float
    gpu: str
    per_hour: str
    idle_per_month: str | None
    custom_nodes: int
    comfyui_version: str
    classes: int | None
