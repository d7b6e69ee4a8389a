"""ai-toolkit as the supervisor sees a trainer."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import TrainingConfigError
from comfymodal.files import write_json
from comfymodal.training.ai_toolkit import layout
from comfymodal.training.ai_toolkit.command import Toolkit, build_argv, build_environ, localized
from comfymodal.training.ai_toolkit.control import ControlDatabase
from comfymodal.training.ai_toolkit.losses import copy_log, read_losses
from comfymodal.training.ai_toolkit.output import OutputReader
from comfymodal.training.trainer import Launch, Reader, Sample, Saved, Wish

_JOB_ID = "comfymodal"


@dataclass(frozen=True, slots=True)
class AiToolkit:
    """Fulfils `training.trainer.Trainer`; `scratch` is a local folder of this attempt alone."""

    toolkit: Toolkit
    config: Mapping[str, Any]
    scratch: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def name(self) -> str:
        return str(self.config["config"]["name"])

    @property
    def folder(self) -> Path:
        return self.scratch / "run" / self.name

    def prepare(self) -> Launch:
        """Raises `TrainingConfigError` for names with which it would not find its own checkpoints, and `OSError`."""
        fault = layout.name_fault(self.name) or layout.place_fault(self.folder, self.name)
        if fault:
            raise TrainingConfigError(f"cannot train under the name {self.name!r}: {fault}", hint="choose another name")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.scratch / "config.json"
        # JSON: a YAML reader would take 1e-4 for text.
        write_json(config, localized(self.config, training_folder=self.scratch / "run", control=self._control.path))
        self._control.path.unlink(missing_ok=True)
        self._control.create()
        return Launch(build_argv(self.toolkit, config), self.toolkit.path, build_environ(self.environ, _JOB_ID))

    def reader(self) -> Reader:
        return OutputReader(self.name)

    def ask(self, wish: Wish) -> bool:
        try:
            if wish == "save":
                self._control.ask_save()
            else:
                self._control.ask_stop()
        except sqlite3.Error:
            return False
        return True

    def saved(self, said: Sequence[str]) -> Saved:
        steps = {found.step for path in said if (found := layout.parse_weights(Path(path).name, self.name))}
        # By the step, not by what was said: of a model in two halves one path may be told for both.
        files = sorted(
            path
            for path in self.folder.iterdir()
            if (found := layout.parse_weights(path.name, self.name)) is not None and found.step in steps
        )
        return Saved(tuple(files), is_final=steps == {None})

    def pulse(self) -> object:
        return self._control.read()

    def samples(self) -> Sequence[Sample]:
        return [Sample(each.path, each.step, each.index) for each in layout.list_samples(self.folder)]

    def losses(self, after: int) -> Sequence[tuple[int, float]]:
        return [(loss.step, loss.value) for loss in read_losses(self.folder / layout.LOSS_FILE, after=after)]

    def take_up(self, folder: Path, step: int) -> None:
        # The trainer drops what lies beyond as well, with its first loss: until then they would be told as new.
        copy_log(folder / layout.LOSS_FILE, self.folder / layout.LOSS_FILE, until=step)

    def keep_logs(self, folder: Path) -> None:
        part = self.scratch / layout.LOSS_FILE
        if copy_log(self.folder / layout.LOSS_FILE, part):
            kept = folder / f".{layout.LOSS_FILE}.part"
            try:
                kept.write_bytes(part.read_bytes())
                os.replace(kept, folder / layout.LOSS_FILE)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    kept.unlink()

    @property
    def _control(self) -> ControlDatabase:
        return ControlDatabase(self.scratch / "control.db", _JOB_ID)
