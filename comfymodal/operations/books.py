"""A project and its ledger, without its target: what is known here is told also where Modal cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.costs.rates import RateTable
from comfymodal.project.folders import ledger_file, state_folder
from comfymodal.runs.ledger import Ledger

if TYPE_CHECKING:
    from comfymodal.project.schema import Project


@dataclass(frozen=True, slots=True)
class Books:
    """Opening them imports no client of Modal's, which takes longer than most reports."""

    project: Project
    ledger: Ledger
    state: Path
    warnings: tuple[str, ...]

    @property
    def rates(self) -> RateTable:
        """What prices now on Modal, see `modal_spec.price_table`; asks nobody."""
        from comfymodal.operations.modal_spec import price_table

        return price_table(self.project, self.state)


def open_books(config: Path | None, *, environ: Mapping[str, str], cwd: Path) -> Books:
    """Read the project file, if there is one, and open its ledger. Raises `ProjectError` and `NotReadyError`."""
    from comfymodal.project.load import find_project_file, load_project

    loaded = load_project(find_project_file(config, cwd=cwd), environ=environ, flags={}, cwd=cwd)
    state = state_folder(environ)
    ledger = Ledger(ledger_file(loaded.settings.project, state))
    return Books(loaded.settings, ledger, state, tuple(loaded.warnings))
