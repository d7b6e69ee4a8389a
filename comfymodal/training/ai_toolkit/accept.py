"""From a parsed file and the flags beside it to a checked ai-toolkit config: the way of `train` up to `--check`. Pure.

Reads a native config or a short form, puts in variables and overrides, checks the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfymodal.errors import TrainingConfigError, UsageError
from comfymodal.training.ai_toolkit.check import check_config, is_native, is_project_file
from comfymodal.training.ai_toolkit.expand import expand
from comfymodal.training.ai_toolkit.override import Setting, apply_settings, typed
from comfymodal.training.ai_toolkit.rewrite import substitute
from comfymodal.training.ai_toolkit.schema import Kind
from comfymodal.training.ai_toolkit.subject import key_of, subject_of
from comfymodal.training.config import Change, Config, Draft, KeyPath, Problem, Where, dotted, errors_of
from comfymodal.training.short_form import ShortForm, read_short_form

_NO_CHANGE: tuple[Change, ...] = ()

_SHORT_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("model", "weights", "dataset", "trigger"), "text"),
    **dict.fromkeys(("steps", "rank", "batch", "save_every", "keep", "sample_every", "sample_size", "seed"), "whole"),
    **dict.fromkeys(("lr", "alpha", "caption_dropout"), "number"),
    "resolution": "wholes",
    "prompts": "texts",
}
"""Keys of the short form that `--set` takes as they stand there. Set before the recipe adds what follows from them:
`rank` takes alpha along, `network.linear` does not.
"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says about a config."""

    name: str | None = None
    steps: int | None = None
    settings: tuple[Setting, ...] = ()
    allows_full_finetune: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    """For `${VAR}` in the file."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A native config with everything put in, and all that is wrong with it. None when it cannot be made out."""

    config: Config | None
    problems: tuple[Problem, ...]
    changes: tuple[Change, ...] = ()
    """By variables, by the file's own `overrides`, by flags: in this order."""
    form: ShortForm | None = None
    """What it was expanded from."""
    where: Where | None = None
    """Places of the full config: in the file, or the flag that said it. None where `config` is."""

    @property
    def is_sound(self) -> bool:
        return self.config is not None and not errors_of(self.problems)


def accept(tree: Any, where: Where, wishes: Wishes | None = None) -> Accepted:
    """Take parsed YAML or JSON as a training config.

    Raises TrainingConfigError for a project file, and UsageError for a setting whose place or value is none.
    """
    wishes = wishes or Wishes()
    if is_project_file(tree):
        message = f"{where(()).partition(':')[0]} is a project file, not a training config"
        hint = "comfymodal train -c PROJECT.yaml TRAIN.yaml; configs/lora-flux has a training config to start from"
        raise TrainingConfigError(message, hint=hint)
    replaced, problems = substitute(tree, wishes.environ, where) if isinstance(tree, dict) else (None, [])
    tree, changes = (replaced.config, replaced.changes) if replaced else (tree, _NO_CHANGE)
    if is_native(tree):
        return _finish(tree, where, wishes, Accepted(None, tuple(problems), changes), where(()))
    short, wishes = _short_settings(tree, wishes)
    if short is not None:
        tree, where, changes = short.config, _placed(where, short.changes, "--set"), (*changes, *short.changes)
    read = read_short_form(tree, where)
    before = Accepted(None, (*problems, *read.problems), changes, read.form)
    if read.form is None:
        return before
    expanded = expand(read.form)
    return _finish(expanded.config, expanded.where(where), wishes, before, where(("overrides",)))


def _short_settings(tree: Any, wishes: Wishes) -> tuple[Draft | None, Wishes]:
    """Put the settings that are keys of the short form into it, and keep the others for the full config."""
    if not isinstance(tree, dict):
        return None, wishes
    draft = Draft.of(tree, dotted)
    for setting in wishes.settings:
        if kind := _SHORT_KINDS.get(setting.place):
            try:
                value = typed(kind, setting.value) if setting.is_text else setting.value
            except ValueError as exc:
                raise UsageError(f"--set {setting.place}: {exc}", hint=f"--set {setting.place}=...") from exc
            draft.set((setting.place,), value, f"--set {setting.place}")
    others = tuple(setting for setting in wishes.settings if setting.place not in _SHORT_KINDS)
    return draft, replace(wishes, settings=others)


def _finish(config: Config, where: Where, wishes: Wishes, before: Accepted, own_place: str) -> Accepted:
    changes = list(before.changes)
    own = before.form.overrides if before.form else {}
    if subject_of(config, where).process:
        for settings, place in ((_own(own), own_place), (wishes.settings, "--set")):
            changed = apply_settings(config, settings)
            config, where = changed.config, _placed(where, changed.changes, place)
            changes += changed.changes
    flags = _flags(config, wishes)
    where = _placed(where, flags.changes, "flag")
    found = check_config(flags.config, where, allow_full_finetune=wishes.allows_full_finetune)
    # A variable that could not be put in is said once, by who tried; the check passes over what is left of it.
    return Accepted(flags.config, (*before.problems, *found), (*changes, *flags.changes), before.form, where)


def _own(overrides: Mapping[str, Any]) -> Iterable[Setting]:
    return [Setting(place, value, is_text=False) for place, value in overrides.items()]


def _flags(config: Config, wishes: Wishes) -> Draft:
    draft = Draft.of(config, key_of)
    subject = subject_of(config, lambda _: "")
    if wishes.name is not None and isinstance(config.get("config"), dict):
        draft.set(("config", "name"), wishes.name, "--name")
    # A `train` that is no mapping cannot take it; the check says what is wrong with that.
    is_free = isinstance(subject.process.get("train"), (dict, type(None)))
    if wishes.steps is not None and subject.process and is_free:
        draft.set(subject.at("train.steps"), wishes.steps, "--steps")
    return draft


def _placed(where: Where, changes: Iterable[Change], label: str) -> Where:
    """Say of a value that was put in, and of all below it, where it came from."""
    paths = {change.path for change in changes}

    def place(path: KeyPath) -> str:
        is_put_in = any(path[:length] in paths for length in range(1, len(path) + 1))
        return label if is_put_in else where(path)

    return place
