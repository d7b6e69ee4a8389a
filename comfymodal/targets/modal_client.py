"""Importing Modal's client, which may be missing, or refuse to start because of its own configuration file.

Whoever imports `targets.modal` may call this first: what Modal raises and prints then is not made for operators.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
from pathlib import Path

from comfymodal.errors import NotReadyError

MADE_FOR = "1.6"
"""The release everything here was measured with."""

INSTALL_HINT = f'pip install "modal~={MADE_FOR}.0"'


def require_client() -> str:
    """Import it and return its version. Raises `NotReadyError`."""
    try:
        # First, because with a broken file it prints a banner onto the stdout that belongs to our answer.
        _require_profiles(Path(os.environ.get("MODAL_CONFIG_PATH") or os.path.expanduser("~/.modal.toml")))
        importlib.import_module("modal")
    except ImportError as exc:
        raise NotReadyError(f"Modal's client cannot be imported: {exc}", hint=INSTALL_HINT) from exc
    # A Ctrl-C within one of its calls may leave a task whose end nobody asks for, and asyncio then logs a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return importlib.metadata.version("modal")


def _require_profiles(path: Path) -> None:
    """As the client reads them, by the same parser: another one may judge otherwise."""
    if not path.exists():
        return
    import toml

    try:
        profiles = toml.load(path)
    except (ValueError, TypeError, LookupError, OSError) as exc:  # the parser trips over some files
        raise NotReadyError(
            f"Modal's client does not start: {path} cannot be read: {exc}",
            hint="correct that file, or remove it and: modal token new",
        ) from exc
    if not all(isinstance(profile, dict) for profile in profiles.values()):
        raise NotReadyError(
            f"Modal's client does not start: {path} has settings outside of a profile's section",
            hint="put [default] above them, or remove the file and: modal token new",
        )
