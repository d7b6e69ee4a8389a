"""What `doctor` asks about this machine's way to Modal: which token, which environment, whose clock."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import modal.config
import modal.exception as me

from comfymodal.errors import NotFoundError, NotReadyError
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.session import require_token

CLOCK_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How far this machine's clock is ahead of Modal's (negative: behind), and who told Modal's time."""

    ahead_s: float
    teller: str


def token_origin(environ: Mapping[str, str]) -> str:
    """Where the token comes from, in words; never the token. Raises `NotReadyError` when there is none."""
    variables = [name for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET") if environ.get(name)]
    if len(variables) == 2:
        require_token()
        return f"from {' and '.join(variables)}"
    path = Path(modal.config.user_config_path)
    profile = environ.get("MODAL_PROFILE") or _active_profile(_profiles(path))
    require_token()
    return " and ".join([*(f"from {name}" for name in variables), f"profile {profile} of {path}"])


def environment_name(wanted: str | None) -> str:
    """The environment everything is looked up in. Raises `NotFoundError` when there is none of that name."""
    try:
        with translated("cannot open the environment"):
            # Without a name: MODAL_ENVIRONMENT, the profile's, else the workspace's default.
            found = modal.Environment.from_name(wanted) if wanted else modal.Environment.from_context()
            found.hydrate()
    except NotFoundError as exc:
        name = wanted or modal.config.config.get("environment")
        raise NotFoundError(
            f"the workspace has no environment {name}",
            hint=f"modal environment create {name}, or correct modal.environment in comfymodal.yaml",
        ) from exc
    return str(found.name or wanted or "main")


def read_clock(environment: str | None) -> ClockReading | None:
    """Compare this machine's clock with Modal's; None when Modal did not tell the time."""
    return _by_http_date(str(modal.config.config.get("server_url")).split(",")[0].strip()) or _by_dict(environment)


def _profiles(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or Modal's client has said already that it is broken
        return {}


def _active_profile(profiles: Mapping[str, Any]) -> str:
    active = [name for name, profile in profiles.items() if isinstance(profile, dict) and profile.get("active")]
    if len(active) != 1 and len(profiles) > 1:
        raise NotReadyError(
            f"of the Modal profiles {', '.join(profiles)} {'none is' if not active else 'more than one is'} active",
            hint=f"modal profile activate {next(iter(profiles))}, or set MODAL_PROFILE",
        )
    return str(active[0] if active else next(iter(profiles), "default"))


def _by_http_date(url: str) -> ClockReading | None:
    """Whatever the address answers, the answer has a date; a resolution of one second is enough."""
    if not url.startswith(("http://", "https://")):
        return None
    before = time.time()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CLOCK_TIMEOUT_S) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as refusal:
        date = refusal.headers["Date"]
    except (OSError, http.client.HTTPException):  # it may speak nothing but gRPC
        return None
    with contextlib.suppress(TypeError, ValueError):
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
        return ClockReading((before + time.time()) / 2 - theirs, "the Date its address answers with")
    return None


def _by_dict(environment: str | None) -> ClockReading | None:
    before = time.time()
    with contextlib.suppress(me.Error), modal.Dict.ephemeral(environment_name=environment) as made:
        theirs = made.info().created_at.timestamp()
        if theirs > 0:
            return ClockReading((before + time.time()) / 2 - theirs, "an object made just now")
    return None
