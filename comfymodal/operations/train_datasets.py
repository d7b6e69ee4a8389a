"""The folders a training config names, looked at before anything is paid for: on this machine, where they are there."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.costs.rates import LIST, RateTable
from comfymodal.operations.desk import Desk
from comfymodal.operations.train_history import StepTimes
from comfymodal.operations.train_results import DatasetView, ProblemView
from comfymodal.project.folders import ledger_file, state_folder
from comfymodal.project.load import find_project_file, load_project
from comfymodal.training.ai_toolkit.archs import ARCHS, arch_of
from comfymodal.training.ai_toolkit.paths import Found, find_path, missing_problem, path_uses
from comfymodal.training.ai_toolkit.reading import rules_for, settings_of
from comfymodal.training.ai_toolkit.subject import Subject, key_of
from comfymodal.training.config import KeyPath, Problem, errors_of
from comfymodal.training.dataset import DatasetSettings, Rules
from comfymodal.training.dataset_checks import Finding, group_findings
from comfymodal.training.dataset_report import DatasetReport, check_dataset

if TYPE_CHECKING:
    from comfymodal.project.schema import Project

_MOUNTS = {role: f"/{role}" for role in ("models", "datasets", "inputs", "outputs", "training")}
"""What absolute paths of configs written for a container begin with."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a project trains, read from its file without opening its target. `volumes` are folders by role, empty where
    the volumes are elsewhere.
    """

    target: str
    volumes: Mapping[str, Path]
    names: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    gpu: str | None = None
    """The project's."""
    timeout_s: float | None = None
    """The project's limit on a training."""
    ledger: Path | None = None
    """Where earlier trainings are noted, if there were any."""
    rates: RateTable = LIST
    """What Modal asks for its containers."""


def read_places(
    config: Path | None, *, environ: Mapping[str, str], cwd: Path, flags: Mapping[str, Any] | None = None
) -> Places:
    """Read the project file, where there is one. Raises `ProjectError`."""
    loaded = load_project(find_project_file(config, cwd=cwd), environ=environ, flags=flags or {}, cwd=cwd)
    return places_of(loaded.settings, state_folder(environ), loaded.warnings)


def places_of(project: Project, state: Path, warnings: tuple[str, ...] = ()) -> Places:
    """The same of a project that was read."""
    from comfymodal.operations.modal_spec import price_table

    volumes = {role: getattr(project.volumes, role) for role in _MOUNTS}
    folders = {role: each.path or state / "volumes" / each.name for role, each in volumes.items()}
    names = {role: each.name for role, each in volumes.items()}
    return Places(
        project.target,
        folders if project.target == "local" else {},
        names,
        warnings,
        project.training.gpu,
        project.training.timeout,
        ledger_file(project.project, state),
        price_table(project, state),
    )


@dataclass(slots=True)
class Library:
    """What was read of datasets: the variants of a sweep mostly share them. Mutable; lives as long as one command."""

    desk: Desk
    steps: StepTimes = field(default_factory=StepTimes)
    reports: dict[tuple[DatasetSettings, str], DatasetReport] = field(default_factory=dict)

    def report(self, settings: DatasetSettings, rules: Rules, arch: str) -> DatasetReport:
        if (settings, arch) not in self.reports:
            self.reports[settings, arch] = check_dataset(settings, rules, self._progress(settings))
        return self.reports[settings, arch]

    def _progress(self, settings: DatasetSettings) -> Any:
        def tell(done: int, total: int) -> None:
            self.desk.event({"type": "reading", "folder": str(settings.folder), "done": done, "total": total})

        return tell


@dataclass(frozen=True, slots=True)
class Looked:
    """The datasets of one config. `reports` has None for one that was not looked at; `paths` are all it names."""

    views: tuple[DatasetView, ...]
    reports: tuple[DatasetReport | None, ...]
    problems: tuple[ProblemView, ...]
    paths: tuple[Found, ...]

    @property
    def all_reports(self) -> tuple[DatasetReport, ...] | None:
        """None when one of them is not known: what is counted over all would be wrong."""
        found = tuple(report for report in self.reports if report is not None)
        return found if len(found) == len(self.reports) else None


def look(subject: Subject, problems: Iterable[Problem], folder: Path, places: Places, library: Library) -> Looked:
    """Find every path of a config, and read its datasets. `folder`: what relative paths are relative to.

    `problems` are those of the config: what they say of a path is not said again, and a dataset whose settings are
    wrong is not read.
    """
    errors = errors_of(problems)
    paths = [find_path(use, local=lambda text: _here(text, folder), mounts=_MOUNTS) for use in path_uses(subject)]
    told = {problem.path for problem in errors}
    views, reports, found = list[DatasetView](), list[DatasetReport | None](), list[ProblemView]()
    found += [
        problem_view(_missing(subject, path, places))
        for path in paths
        if path.use.path not in told and _is_missing(path, places)
    ]
    for index, dataset in subject.datasets:
        at = subject.at(f"datasets[{index}]")
        own = {path.use.path: path for path in paths if path.use.path[: len(at)] == at}
        main = next((own[(*at, key)] for key in ("folder_path", "dataset_path") if (*at, key) in own), None)
        report = _report(subject, dataset, at, main, _Reading(own, errors, places, library))
        reports.append(report)
        views.append(_view(main, report, places))
        if report is not None:
            place = subject.where(main.use.path if main else at)
            found += finding_views(report.findings, place, key_of(at))
    return Looked(tuple(views), tuple(reports), tuple(found), tuple(paths))


@dataclass(frozen=True, slots=True)
class _Reading:
    paths: Mapping[KeyPath, Found]
    errors: list[Problem]
    places: Places
    library: Library


def _report(
    subject: Subject, dataset: Mapping[str, Any], at: KeyPath, main: Found | None, reading: _Reading
) -> DatasetReport | None:
    arch = arch_of(subject.model)
    folder = local_folder(main, reading.places) if main else None
    is_odd = any(_concerns(problem, at, subject) for problem in reading.errors)
    if folder is None or arch is None or arch not in ARCHS or is_odd:
        return None
    moved = copy.deepcopy(dict(dataset))
    for path, found in reading.paths.items():
        beside = local_folder(found, reading.places)
        key, rest = path[len(at)], path[len(at) + 1 :]
        if not str(key).startswith(("control", "mask")):
            continue
        if beside is None:
            # Something it reads together with the pictures cannot be looked at from here.
            return None
        if rest:
            moved[str(key)][rest[0]] = str(beside)
        else:
            moved[str(key)] = str(beside)
    settings = settings_of(moved, folder, subject.process, needs_controls=ARCHS[arch].is_edit)
    return reading.library.report(settings, rules_for(arch), arch)


def _concerns(problem: Problem, at: KeyPath, subject: Subject) -> bool:
    """Whether a problem keeps a dataset's settings from being read."""
    if problem.kind in ("unknown_key", "no_such_path"):
        return False
    shared = [subject.at(place) for place in ("train", "train.batch_size", "trigger_word", "datasets")]
    return problem.path[: len(at)] == at or problem.path in shared


def local_folder(found: Found, places: Places) -> Path | None:
    """Where a path of the config is on this machine; None when it is elsewhere, or nowhere."""
    if found.kind == "local":
        return Path(found.at)
    role, _, below = found.at.partition(":/")
    if found.kind != "volume" or role not in places.volumes or _climbs(found):
        return None
    folder = places.volumes[role] / below
    return folder if folder.exists() else None


def _here(text: str, folder: Path) -> str | None:
    """Relative to the config, then to the working directory."""
    for path in (folder / Path(text).expanduser(), Path(text)):
        try:
            if path.exists():
                return str(path.absolute())
        except (OSError, ValueError):
            continue
    return None


def _is_missing(found: Found, places: Places) -> bool:
    if found.kind == "volume" and not _climbs(found):
        return found.at.partition(":/")[0] in places.volumes and local_folder(found, places) is None
    return found.kind == "missing" or _climbs(found)


def _climbs(found: Found) -> bool:
    """Whether a path on a volume leads out of it."""
    return found.kind == "volume" and ".." in found.at.split("/")


def _missing(subject: Subject, found: Found, places: Places) -> Problem:
    if found.kind == "missing":
        return missing_problem(subject, found)
    if _climbs(found):
        hint = "a path on a volume has no `..` in it"
        return subject.problem("no_such_path", found.use.path, f"{found.at} leads out of the volume", hint)
    role = found.at.partition(":/")[0]
    return subject.problem(
        "no_such_path", found.use.path, f"there is no {found.at}", f"looked in {places.volumes[role]}"
    )


def _view(main: Found | None, report: DatasetReport | None, places: Places) -> DatasetView:
    written = main.use.text if main else ""
    if report is None:
        return DatasetView(written, _place(main, places), is_checked=False)
    return report_view(written, _place(main, places), report)


def report_view(path: str, place: str, report: DatasetReport) -> DatasetView:
    told = report.to_dict()
    counts = {key: told[key] for key in ("pictures", "videos", "captions", "size_bytes", "sha256")}
    return DatasetView(path, place, is_checked=True, tables=tuple(told["tables"]), **counts)


def _place(main: Found | None, places: Places) -> str:
    if main is None or main.kind in ("missing", "repository"):
        return "nowhere"
    if main.kind == "local":
        return "this machine"
    role = main.at.partition(":/")[0]
    name = places.names.get(role, role)
    return f"folder {places.volumes[role]}" if role in places.volumes else f"volume {name}"


def finding_views(findings: Iterable[Finding], place: str, key: str) -> Iterator[ProblemView]:
    """One for each kind: a thousand missing captions are one line."""
    for group in group_findings(findings):
        first = group.findings[0]
        yield ProblemView(group.severity, group.kind, place, key, group.message, first.hint, group.files)


def problem_view(problem: Problem) -> ProblemView:
    severity = "warning" if problem.is_warning else "error"
    return ProblemView(severity, problem.kind, problem.place, problem.key, problem.message, problem.hint)
