"""`comfymodal train --check`, `--dry-run` and `--fix`: everything that can be known before anything is paid for.

Needs no target, no token and no network: the config, the folders it names as far as they are here, and tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import GpuChoice
from comfymodal.errors import CancelledError, OutputFolderError, TrainingConfigError, UsageError
from comfymodal.files import write_text
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.train_datasets import Library, Looked, Places, finding_views, look, problem_view
from comfymodal.operations.train_history import read_step_times
from comfymodal.operations.train_needs import Past, Wanted, gpu_problems, needs_of, wanted_gpu
from comfymodal.operations.train_results import ProblemView, TrainChecked, TrainFixed, TrainPlan, ValueChange
from comfymodal.operations.train_source import Source, parse_source, read_source
from comfymodal.secret_shapes import without_secrets
from comfymodal.training.ai_toolkit.accept import Accepted, Wishes, accept
from comfymodal.training.ai_toolkit.check import check_config, is_native, is_project_file
from comfymodal.training.ai_toolkit.fix import fix_config, to_yaml
from comfymodal.training.ai_toolkit.override import Setting, parse_settings
from comfymodal.training.ai_toolkit.rewrite import Placement, rewrite
from comfymodal.training.ai_toolkit.subject import Subject, subject_of
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.config import MISSING, Change, TrainingConfig, dotted, errors_of
from comfymodal.training.dataset_checks import find_length_faults
from comfymodal.training.dataset_report import DatasetReport, epoch_of, find_mixed_buckets
from comfymodal.training.sweep import Axis, Variant, axes_of, parse_sweep, variants

_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line says. `set_` and `sweep` are arguments as they were typed."""

    config: Path
    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    set_: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    name: str | None = None
    steps: int | None = None
    gpu: str | None = None
    allows_full_finetune: bool = False
    is_dry_run: bool = False
    is_check: bool = False
    """Only looked at: no prices, and no word on what a run changes."""


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """One training as it would be run. `config` is None where something is wrong with it, `gpu` where none is named."""

    accepted: Accepted
    subject: Subject
    looked: Looked
    config: TrainingConfig | None
    gpu: GpuChoice | None
    plan: TrainPlan


@dataclass(frozen=True, slots=True)
class Examined:
    """A config file with the run it is, or those of its sweep; `checked` is what the operator is told."""

    source: Source
    runs: tuple[CheckedRun, ...]
    checked: TrainChecked


def check_training(request: TrainRequest, places: Places, desk: Desk) -> TrainChecked:
    """Report all that is wrong with a config and its datasets, and what each run of it needs; raises as `examine`."""
    return examine(request, places, desk).checked


def examine(request: TrainRequest, places: Places, desk: Desk) -> Examined:
    """Find out all that is wrong with a config and its datasets, and what each run of it needs.

    Raises `TrainingConfigError` for a file that cannot be read or is a project's, `UsageError` for a flag that is none.
    """
    for warning in places.warnings:
        desk.warn(warning)
    source = read_source(request.config, request.cwd)
    library = Library(desk, read_step_times(places.ledger, desk))
    settings = parse_settings(request.set_)
    wishes = Wishes(request.name, request.steps, settings, request.allows_full_finetune, request.environ)
    accepted = accept(source.tree, source.where, wishes)
    found = [
        _check(request, source, places, library, _Run(variant, wishes))
        for variant in _variants(request, accepted, settings)
    ]
    problems = _merged([(run.plan.name, own) for run, own in found])
    checked = TrainChecked(
        config=source.shown,
        form="native" if is_native(source.tree) else "short",
        problems=problems,
        plans=tuple(run.plan for run, _ in found),
        can_fix=_can_fix(source, accepted),
        **_verdict(source.shown, problems),
    )
    return Examined(source, tuple(run for run, _ in found), checked)


def fix_training(request: TrainRequest, desk: Desk) -> TrainFixed:
    """Write a corrected copy beside a native config, `train.fixed.yaml`; the file itself is never changed.

    Asks before it replaces a copy that differs. Raises `UsageError` for a short form: it is as long as its hints.
    """
    if request.set_ or request.sweep or request.name or request.steps is not None:
        raise UsageError("--fix mends the file as it is", hint="without --set, --sweep, --steps and --name")
    source = read_source(request.config, request.cwd)
    if is_project_file(source.tree):
        accept(source.tree, source.where)
    if not is_native(source.tree):
        hint = f"comfymodal train {source.shown} --check names what to write instead"
        raise UsageError("--fix mends configs of ai-toolkit; this is the short form", hint=hint)
    fixed = fix_config(source.tree, default_name=source.path.stem)
    target = source.path.with_name(f"{source.path.stem.removesuffix('.fixed')}.fixed.yaml")
    text = to_yaml(fixed.config)
    is_written = bool(fixed.changes) and not request.is_dry_run
    if is_written:
        _write(target, text, desk)
    result = parse_source(text, target, request.cwd) if fixed.changes else source
    shown = result.shown
    own = check_config(result.tree, result.where, allow_full_finetune=request.allows_full_finetune)
    problems = _merged([("", [problem_view(problem) for problem in own])])
    return TrainFixed(
        config=source.shown,
        written=shown if is_written else None,
        changes=tuple(_change_view(change) for change in fixed.changes),
        notes=fixed.notes,
        problems=problems,
        **_verdict(shown, problems),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    variant: Variant | None
    wishes: Wishes


def _variants(request: TrainRequest, accepted: Accepted, settings: Sequence[Setting]) -> Sequence[Variant | None]:
    """The runs of a sweep, of the flags or else of the file; one that sets nothing where there is none."""
    axes: tuple[Axis, ...] = parse_sweep(request.sweep)
    if not axes and accepted.form:
        axes = axes_of(accepted.form.sweep)
    if not axes:
        return [None]
    if both := {setting.place for setting in settings} & {axis.place for axis in axes}:
        raise UsageError(f"{both.pop()} is given to --set and swept", hint="leave one out")
    return variants(_name_of(accepted) or request.config.stem, axes)


def _check(
    request: TrainRequest, source: Source, places: Places, library: Library, run: _Run
) -> tuple[CheckedRun, list[ProblemView]]:
    wishes = run.wishes
    if run.variant:
        swept = tuple(Setting(place, value) for place, value in run.variant.settings)
        wishes = replace(wishes, name=run.variant.name, settings=(*wishes.settings, *swept))
    accepted = accept(source.tree, source.where, wishes)
    problems = [problem_view(problem) for problem in accepted.problems]
    subject = subject_of(accepted.config or {}, accepted.where or source.where)
    looked = look(subject, accepted.problems, source.path.parent, places, library)
    config = read_values(accepted.config) if accepted.config is not None and accepted.is_sound else None
    problems += [*looked.problems, *_run_problems(subject, config, looked)]
    wanted = wanted_gpu(request.gpu, accepted, config, places)
    if isinstance(wanted, ProblemView):
        problems.append(replace(wanted, place=source.where(("gpu",))))
        wanted = None
    plan = _plan(request, accepted, looked, config, places)
    if config is not None and isinstance(wanted, Wanted):
        table = places.rates if not request.is_check and places.target == "modal" else None
        past = Past(library.steps.of(config, wanted.choice.label), places.timeout_s)
        plan = replace(plan, needs=needs_of(config, wanted, looked.all_reports, past, table=table))
        place = {"--gpu": "flag", "the config": source.where(("gpu",))}.get(wanted.by, wanted.by)
        offloads = subject.model.get("layer_offloading") is True
        assert plan.needs is not None
        problems += gpu_problems(plan.needs, config, place, offloads=offloads)
    plan = _named(plan, run.variant) if run.variant else plan
    return CheckedRun(accepted, subject, looked, config, wanted.choice if wanted else None, plan), problems


def _named(plan: TrainPlan, variant: Variant) -> TrainPlan:
    changes = tuple(
        replace(change, reason="the sweep") if change.reason == "--name" else change for change in plan.changes
    )
    return replace(plan, settings=variant.title, changes=changes)


def _plan(
    request: TrainRequest, accepted: Accepted, looked: Looked, config: TrainingConfig | None, places: Places
) -> TrainPlan:
    reports = looked.all_reports
    per_epoch = epochs = None
    if config is not None and reports:
        epoch = epoch_of(reports, config.gradient_accumulation)
        per_epoch, epochs = epoch.steps or None, round(epoch.count(config.steps), 2) or None
    return TrainPlan(
        name=_name_of(accepted),
        settings="",
        training=config.to_dict() if config else None,
        needs=None,
        steps_per_epoch=per_epoch,
        epochs=epochs,
        datasets=looked.views,
        changes=tuple(_changes(accepted, looked, places)) if request.is_dry_run else (),
    )


def _changes(accepted: Accepted, looked: Looked, places: Places) -> Iterator[ValueChange]:
    """What was put in, then what every run changes."""
    yield from (_change_view(change) for change in accepted.changes)
    if accepted.config is None or not accepted.is_sound:
        return
    # Where files of this machine lie for a run on Modal is settled when they are uploaded.
    is_local = places.target == "local"
    locations = {
        found.use.path: found.at if found.kind == "local" else str(places.volumes[role] / below)
        for found in looked.paths
        for role, _, below in [found.at.partition(":/")]
        if is_local and (found.kind == "local" or (found.kind == "volume" and role in places.volumes))
    }
    placed = rewrite(accepted.config, Placement(_name_of(accepted), locations=locations))
    yield from (_change_view(change) for change in placed.changes)


def _run_problems(subject: Subject, config: TrainingConfig | None, looked: Looked) -> Iterator[ProblemView]:
    """What shows only when all datasets and the length of the run are seen together."""
    reports = looked.all_reports
    if config is None or not reports:
        return
    yield from finding_views(find_mixed_buckets(reports), subject.where(subject.at("datasets")), "datasets")
    steps = subject.where(subject.at("train.steps"))
    pictures = sum(_pictures(report) for report in reports)
    epoch = epoch_of(reports, config.gradient_accumulation)
    yield from finding_views(find_length_faults(epoch, config.steps, pictures, config.batch_size), steps, "train.steps")


def _pictures(report: DatasetReport) -> int:
    return 0 if report.settings.is_regular else len(report.items)


def _name_of(accepted: Accepted) -> str:
    job = (accepted.config or {}).get("config")
    name = job.get("name") if isinstance(job, dict) else None
    return name if isinstance(name, str) else ""


def _merged(found: Sequence[tuple[str, Sequence[ProblemView]]]) -> tuple[ProblemView, ...]:
    """Every problem once, errors first; one that only some runs of a sweep have names them."""
    runs: dict[ProblemView, list[str]] = {}
    for name, problems in found:
        for problem in dict.fromkeys(problems):
            runs.setdefault(problem, []).append(name)
    merged = [
        problem if len(names) == len(found) else replace(problem, runs=tuple(names)) for problem, names in runs.items()
    ]
    return tuple(sorted(merged, key=lambda problem: _ORDER[problem.severity]))


def _verdict(shown: str, problems: Iterable[ProblemView]) -> dict[str, Any]:
    """`error` and `exit_code` of a result; the problems themselves are in it already."""
    numbers = Counter(problem.severity for problem in problems)
    if not numbers["error"]:
        return {"error": None, "exit_code": 0}
    words = [f"{numbers[kind]} {noun}{'s' if numbers[kind] > 1 else ''}" for kind, noun in _NOUNS if numbers[kind]]
    error = TrainingConfigError(f"{shown}: {' and '.join(words)}")
    return {"error": error.to_dict(), "exit_code": error.exit_code}


_NOUNS = (("error", "problem"), ("warning", "warning"))


def _can_fix(source: Source, accepted: Accepted) -> bool:
    if not is_native(source.tree) or not errors_of(accepted.problems):
        return False
    before = errors_of(check_config(source.tree, source.where))
    after = errors_of(check_config(fix_config(source.tree, default_name=source.path.stem).config, source.where))
    return len(after) < len(before)


def _write(target: Path, text: str, desk: Desk) -> None:
    try:
        if target.exists() and target.read_bytes() != text.encode():
            question = Question(f"{target.name} is there already and differs", (str(target),), "Replace it?")
            if not desk.confirm(question):
                raise CancelledError("nothing was written")
        write_text(target, text)
    except OSError as exc:
        raise OutputFolderError(f"cannot write {target}: {(exc.strerror or str(exc)).lower()}") from exc


def _change_view(change: Change) -> ValueChange:
    old, new = (
        None if value is MISSING else without_secrets(json.dumps(value, ensure_ascii=False))
        for value in (change.old, change.new)
    )
    return ValueChange(change.key or dotted(change.path), old, new, change.reason)
