"""The one place that calls Modal's own command line: for what the SDK offers only there, never its private stubs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from comfymodal.errors import ServiceError

# -P: a file of the operator's working directory called modal.py must not take the package's place.
MODAL = (sys.executable, "-P", "-m", "modal")
TIMEOUT_S = 90.0
"""The SDK tries for up to a minute when the service is away."""

_FRAME = "│╭╮╰╯─ "


def ask_modal(arguments: Sequence[str], *, environment: str | None) -> list[dict[str, Any]]:
    """Run `modal ... --json`; return its rows. Raises `ServiceError` with what it said."""
    argv = [*MODAL, *arguments, "--json", *environment_flag(environment)]
    said = f"modal {' '.join(arguments)}"
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            # Whatever is forced upon terminals (FORCE_COLOR) would end up in the JSON.
            env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "", "TERM": "dumb"},
        )
    except subprocess.TimeoutExpired as exc:
        raise ServiceError(
            f"{said} did not answer within {TIMEOUT_S:.0f} s", hint="is Modal reachable? comfymodal doctor"
        ) from exc
    if done.returncode != 0:
        raise ServiceError(f"{said} failed: {last_words(done.stderr or done.stdout)}", hint="comfymodal doctor")
    return rows_in(done.stdout, said)


def environment_flag(environment: str | None) -> tuple[str, ...]:
    return ("--env", environment) if environment else ()


def rows_in(text: str, said: str) -> list[dict[str, Any]]:
    """The rows of a `--json` answer. Raises `ServiceError` for anything else."""
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise ServiceError(
            f"{said} answered no JSON: {last_words(text)}", hint="comfymodal works with modal 1.6; comfymodal doctor"
        ) from exc
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ServiceError(f"{said} answered no list", hint="comfymodal works with modal 1.6; comfymodal doctor")
    return found


def last_words(text: str) -> str:
    """The last line that says something; errors come in a drawn frame."""
    lines = [line.strip(_FRAME) for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")
