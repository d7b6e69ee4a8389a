"""What ai-toolkit calls its files, and which names lead it astray; pure.

`<training_folder>/<name>/` holds `<name>_000000250.safetensors` for each save, `<name>.safetensors` at the end,
`optimizer.pt`, `loss_log.db` and `samples/`. At its start it goes on from whatever there begins with the name and is
the newest by ctime: nothing of ours may lie in that folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OPTIMIZER_FILE = "optimizer.pt"
LOSS_FILE = "loss_log.db"
SAMPLES_FOLDER = "samples"

CACHE_FOLDERS = frozenset({"_latent_cache", "_t_e_cache", "_clip_vision_cache"})
"""Made in the dataset's folder, beside hidden files of its own."""

_OWN_NAMES = ("config.yaml", OPTIMIZER_FILE, LOSS_FILE, SAMPLES_FOLDER, "learnable_snr.json", "README.md")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,63}")
_NO_CHECKPOINT = ("_LoRA", "_refiner", "_t2i", "_cn")
"""Anywhere in a checkpoint's full path and not in the run's name they hide the checkpoint from the resume."""

_SAMPLE = re.compile(r"(?P<ms>\d+)__(?P<step>\d{9})_(?P<index>\d+)\.(?P<extension>[a-z0-9]+)")


@dataclass(frozen=True, slots=True)
class WeightsName:
    """`step` is None for the file of the end; `stage` only where a model is trained in two halves (Wan 2.2)."""

    step: int | None
    stage: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    path: Path
    step: int
    index: int
    """Of the prompt, from 0."""


def name_fault(name: str) -> str | None:
    """Why ai-toolkit cannot train under that name; None when it can."""
    if not _NAME.fullmatch(name):
        return "it must have 2 to 64 letters, digits, _ and -, and begin with a letter or digit"
    if taken := next((own for own in _OWN_NAMES if own.startswith(name)), None):
        return f"{taken} begins with it, and ai-toolkit would take that file for a checkpoint"
    return None


def place_fault(folder: Path, name: str) -> str | None:
    """Why a run would not be resumed from under `folder`; None when it would."""
    hidden = next((mark for mark in _NO_CHECKPOINT if mark in str(folder) and mark not in name), None)
    return f"ai-toolkit finds no checkpoint below a path with {hidden} in it" if hidden else None


def parse_weights(file: str, name: str) -> WeightsName | None:
    """What a file of that run's folder holds, by its name; None for other files."""
    pattern = rf"{re.escape(name)}(?:_(?P<step>\d{{9}}))?(?:_(?P<stage>high_noise|low_noise))?\.safetensors"
    found = re.fullmatch(pattern, file)
    return WeightsName(int(found["step"]) if found["step"] else None, found["stage"]) if found else None


def parse_sample(path: Path) -> Sample | None:
    """Which sample a file is, by its name, whether it is there or not; None for other files."""
    match = _SAMPLE.fullmatch(path.name)
    return Sample(path, int(match["step"]), int(match["index"])) if match else None


def list_samples(folder: Path) -> tuple[Sample, ...]:
    """Samples of a run's folder, in the order of step and prompt. They are renamed into place: all are whole."""
    try:
        paths = list((folder / SAMPLES_FOLDER).iterdir())
    except OSError:
        return ()
    found = [sample for path in paths if (sample := parse_sample(path)) is not None]
    return tuple(sorted(found, key=lambda sample: (sample.step, sample.index, sample.path.name)))
