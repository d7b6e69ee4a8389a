"""A training's folder on the training volume, and the part of it that is kept on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError, OutputFolderError
from comfymodal.targets.base import Target
from comfymodal.training.ai_toolkit.layout import LOSS_FILE, SAMPLES_FOLDER, Sample, parse_sample
from comfymodal.training.state import STATE_FILE, Checkpoint, in_order, read_state

ROLE = "training"


@dataclass(slots=True)
class Store:
    """`folder` is on the volume, `cache` here. Everything raises what the target raises, and `OutputFolderError`."""

    target: Target
    folder: str
    cache: Path
    _sizes: Mapping[str, int] | None = field(default=None, init=False)

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file, by its path below the folder; listed once."""
        if self._sizes is None:
            found = self.target.files(ROLE, self.folder)
            self._sizes = {path.removeprefix(f"{self.folder}/"): size for path, size in found.items()}
        return self._sizes

    def samples(self) -> tuple[Sample, ...]:
        """Those on the volume in the order of step and prompt, of a step that was done twice the newer ones. Their
        paths are on the volume, below the folder.
        """
        paths = sorted(Path(path) for path in self.sizes() if path.startswith(f"{SAMPLES_FOLDER}/"))
        # Names begin with the time.
        newest = {(found.step, found.index): found for path in paths if (found := parse_sample(path)) is not None}
        return tuple(newest[key] for key in sorted(newest))

    def here(self, sample: Sample) -> Path:
        """Where a sample lies on this machine, under a name that tells what it is."""
        name = f"step-{sample.step:06d}-{sample.index}{sample.path.suffix}"
        return self.cache / SAMPLES_FOLDER / name

    def bring(self, sample: Sample) -> Path:
        """A sample on this machine, fetched unless it is there."""
        here = self.here(sample)
        size = self.sizes().get(sample.path.as_posix())
        if here.is_file() and here.stat().st_size == size:
            return here
        return self._fetch(sample.path.as_posix(), here)

    def losses(self) -> Path | None:
        """The loss log as it is now; None while there is none."""
        return self._fetch_changing(LOSS_FILE)

    def checkpoints(self, result: Mapping[str, Any]) -> tuple[Checkpoint, ...]:
        """What is kept, oldest first: by the volume, or else by `result` of the run, as `supervise` returns it."""
        path = self._fetch_changing(STATE_FILE)
        found = read_state(path.parent) if path else None
        if found is not None:
            return found
        return in_order(Checkpoint.from_dict(each) for each in result.get("checkpoints") or ())

    def _fetch_changing(self, name: str) -> Path | None:
        """A file that is written over while the run goes on: of an older one nothing can be gone on with."""
        if name not in self.sizes():
            return None
        (self.cache / f".{name}").unlink(missing_ok=True)
        try:
            return self._fetch(name)
        except NotFoundError:
            return None

    def _fetch(self, name: str, path: Path | None = None) -> Path:
        path = path or self.cache / name
        arriving = path.with_name(f".{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.target.fetch(ROLE, f"{self.folder}/{name}", arriving, lambda _: None)
            arriving.replace(path)
        except OSError as exc:
            raise OutputFolderError(f"cannot write {path}: {exc.strerror or exc}", hint="free some space") from exc
        return path
