"""`comfymodal datasets`: look into a folder as the trainer will, and list the datasets volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from comfymodal.errors import ComfymodalError, InputFileError, NotFoundError, TrainingConfigError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.models_place import VolumePlace
from comfymodal.operations.train_datasets import Library, Places, finding_views, report_view
from comfymodal.operations.train_places import FILES, SETS
from comfymodal.operations.train_results import DatasetChecked, DatasetRow, DatasetsListed
from comfymodal.operations.train_source import read_source
from comfymodal.training.ai_toolkit.accept import Wishes, accept
from comfymodal.training.ai_toolkit.archs import ARCHS, arch_of
from comfymodal.training.ai_toolkit.reading import PICTURES, VIDEOS, rules_for, settings_of
from comfymodal.training.ai_toolkit.subject import Subject, subject_of
from comfymodal.training.config import config_error, errors_of, nearest
from comfymodal.training.dataset import DatasetSettings
from comfymodal.training.recipes import RECIPES

CAPTIONS = (".txt", ".caption", ".json")
DEFAULT_MODEL = "flux"


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """`folder` as it was typed. With a training config its settings count, else those of a model's recipe."""

    folder: str
    cwd: Path
    train_config: Path | None = None
    model: str | None = None
    trigger: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Way:
    settings: DatasetSettings
    arch: str
    words: str


def check_folder(request: DatasetRequest, places: Places, desk: Desk) -> DatasetChecked:
    """Read every file of a folder, and tell what a trainer would make of it. Raises `NotFoundError` for none."""
    if request.train_config is not None and (request.model or request.trigger):
        raise UsageError(
            "--for has a config that says the model and the trigger", hint="leave --model and --trigger out"
        )
    for warning in places.warnings:
        desk.warn(warning)
    folder, place = _folder(request, places)
    way = _way_of_config(request, folder) if request.train_config else _way_of_model(request, folder)
    if request.trigger is not None:
        way = replace(way, settings=replace(way.settings, trigger=request.trigger))
    report = Library(desk).report(way.settings, rules_for(way.arch), way.arch)
    problems = tuple(finding_views(report.findings, request.folder, ""))
    wrong = sum(problem.severity == "error" for problem in problems)
    error: ComfymodalError | None = None
    if wrong:
        error = InputFileError(f"{request.folder}: {wrong} problem{'s' if wrong > 1 else ''}")
    return DatasetChecked(
        report_view(request.folder, place, report),
        way.words,
        problems,
        error.to_dict() if error else None,
        error.exit_code if error else 0,
    )


def list_datasets(context: Context) -> DatasetsListed:
    """The folders at the top of the datasets volume; nothing is started."""
    place = VolumePlace(context, "datasets")
    rows: dict[str, list[int]] = {}
    for path, size in place.files():
        if path.startswith(".") or "/." in path:
            continue
        counts = rows.setdefault(_row_of(path), [0, 0, 0, 0])
        suffix = PurePosixPath(path).suffix.lower()
        for index, suffixes in enumerate((PICTURES, VIDEOS, CAPTIONS)):
            counts[index] += suffix in suffixes
        counts[3] += size
    found = tuple(DatasetRow(folder, *counts) for folder, counts in sorted(rows.items()))
    return DatasetsListed(place.words, found, sum(row.size_bytes for row in found))


def _row_of(path: str) -> str:
    """The folder whose row a file counts in: each of those that trainings sent is one of its own."""
    parts = path.split("/")[:-1]
    return "/".join(parts[: 2 if parts[:1] in ([SETS], [FILES]) else 1])


def _folder(request: DatasetRequest, places: Places) -> tuple[Path, str]:
    """Where FOLDER is, and in words. `volume:/people` is the datasets volume where that is a folder of this machine."""
    role, colon, below = request.folder.partition(":/")
    if colon and role in ("volume", "datasets"):
        if "datasets" not in places.volumes:
            name = below.strip("/")
            hint = f"bring it here: comfymodal sync datasets:/{name} ./{name or 'datasets'}"
            raise NotFoundError(f"{request.folder} is on Modal; only folders of this machine are read", hint=hint)
        if ".." in below.split("/"):
            raise UsageError(f"{request.folder} leads out of the volume", hint="volume:/NAME")
        volume = places.volumes["datasets"]
        folder, place = volume / below.strip("/"), f"folder {volume}"
    else:
        folder, place = request.cwd / Path(request.folder).expanduser(), "this machine"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise NotFoundError(f"{request.folder} {what}", hint="the folder with the pictures and their captions")
    return folder, place


def _way_of_model(request: DatasetRequest, folder: Path) -> _Way:
    name = request.model or DEFAULT_MODEL
    if name in RECIPES:
        recipe = RECIPES[name]
        settings = DatasetSettings(folder, recipe.resolutions)
        return _Way(settings, recipe.arch, f"{recipe.title} at {', '.join(map(str, recipe.resolutions))}")
    if name in ARCHS:
        return _Way(DatasetSettings(folder), name, f"{name} at 512")
    near = nearest(name, [*RECIPES, *ARCHS], cutoff=0.6)
    hint = f"did you mean {near}?" if near else f"models: {', '.join(RECIPES)}"
    raise UsageError(f"--model {name} is not known", hint=hint)


def _way_of_config(request: DatasetRequest, folder: Path) -> _Way:
    """The settings of the config's entry for this folder, else of its first. Raises `TrainingConfigError`."""
    assert request.train_config is not None
    source = read_source(request.train_config, request.cwd)
    # The name of the run says nothing about a dataset.
    accepted = accept(source.tree, source.where, Wishes(name="any", environ=request.environ, allows_full_finetune=True))
    if accepted.config is None or not accepted.is_sound:
        if errors_of(accepted.problems):
            raise config_error(accepted.problems)
        raise TrainingConfigError(f"{source.shown} cannot be made out")
    subject = subject_of(accepted.config, source.where)
    arch = arch_of(subject.model) or "sd1"
    dataset = dict(_entry(subject, folder, source.path.parent))
    for key in [key for key in dataset if key.startswith(("control", "mask"))]:
        if isinstance(path := dataset[key], str):
            dataset[key] = str(source.path.parent / path)
    settings = settings_of(dataset, folder, subject.process, needs_controls=ARCHS[arch].is_edit)
    return _Way(settings, arch, f"{source.shown} ({arch})")


def _entry(subject: Subject, folder: Path, base: Path) -> Mapping[str, object]:
    entries = [dataset for _, dataset in subject.datasets]
    for dataset in entries:
        written = dataset.get("folder_path") or dataset.get("dataset_path")
        if isinstance(written, str) and (base / written).resolve() == folder.resolve():
            return dataset
    return entries[0]
