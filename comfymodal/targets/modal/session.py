"""Reaching Modal: is there a token, does the service answer, is it the right workspace. Fast, in that order."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import modal
from modal.config import config

from comfymodal.errors import NotReadyError, ServiceError
from comfymodal.targets.modal.errors import translated

PREFLIGHT_TIMEOUT_S = 3.0
"""The SDK tries for 57 s before it says that nobody answers (facts/modal.md section 0)."""


def connect(workspace: str | None) -> modal.Client:
    """Return a client that works. Raises `NotReadyError` (no token, wrong workspace) or `ServiceError` (no answer)."""
    require_token()
    require_service()
    with translated("cannot log in to Modal"):
        client = modal.Client.from_env()
        if workspace is not None:
            _require_workspace(workspace)
    return client


def require_token() -> None:
    """Raises `NotReadyError` without asking anybody."""
    if not (config.get("token_id") and config.get("token_secret")):
        raise NotReadyError("there is no Modal token on this machine", hint="modal token new, then: comfymodal setup")


def require_service() -> None:
    """Open a connection to the first address that takes one. Raises `ServiceError` after three seconds."""
    addresses = [address.strip() for address in str(config.get("server_url")).split(",")]
    failures = []
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme == "unix":
            return
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), PREFLIGHT_TIMEOUT_S).close()
        except OSError as exc:
            failures.append(f"{parts.hostname}: {exc.strerror or exc}")
        else:
            return
    raise ServiceError(
        f"Modal does not answer ({'; '.join(failures)})", hint="is the network up? the same command may work later"
    )


def workspace_name() -> str:
    """The workspace the token belongs to."""
    with translated("cannot ask for the workspace"):
        workspace = modal.Workspace.from_context()
        workspace.hydrate()
        return str(workspace.name)


def _require_workspace(wanted: str) -> None:
    found = workspace_name()
    if found != wanted:
        raise NotReadyError(
            f"this token belongs to the workspace {found}; the project wants {wanted} (modal.workspace)",
            hint=f"choose the profile of {wanted}: modal profile activate, or MODAL_PROFILE",
        )
