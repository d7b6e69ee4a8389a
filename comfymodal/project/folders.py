"""Where comfymodal keeps things on this machine. `COMFYMODAL_DATA_DIR` and `COMFYMODAL_STATE_DIR` move them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def data_folder(environ: Mapping[str, str]) -> Path:
    """Large things that can be made again: engines."""
    if named := environ.get("COMFYMODAL_DATA_DIR"):
        return Path(named).absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("comfymodal", appauthor=False))


def state_folder(environ: Mapping[str, str]) -> Path:
    """What must not be lost: ledgers, runs, volumes, and the warm engine's files."""
    if named := environ.get("COMFYMODAL_STATE_DIR"):
        return Path(named).absolute()
    import platformdirs

    return Path(platformdirs.user_state_dir("comfymodal", appauthor=False))


def ledger_file(project: str, state: Path) -> Path:
    """Where the ledger of a project of this name is, or would be made."""
    return state / "projects" / project / "ledger.sqlite"
