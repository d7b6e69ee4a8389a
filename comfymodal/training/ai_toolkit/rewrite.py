"""What every run changes in a config: where things lie, and what must hold so that nothing is lost. Pure: old -> new.

Nothing the operator chose about the training itself is touched. Each change says why, for `--dry-run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfymodal.training.ai_toolkit.check_keys import is_secret_name
from comfymodal.training.ai_toolkit.expand import default_save_every
from comfymodal.training.ai_toolkit.override import typed
from comfymodal.training.ai_toolkit.schema import Kind, kind_of
from comfymodal.training.ai_toolkit.subject import Subject, key_of, schema_place, subject_of
from comfymodal.training.config import Changed, Config, Draft, KeyPath, Problem, Where, as_list, as_mapping, texts_in

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run trains, and what its files are called there."""

    name: str
    """Of the run: the folder and the files of the trainer. `layout.name_fault` must find none with it."""
    training_folder: str = "/tmp/run"
    """Local disk. The trainer adds the name; what is above it must hold none of `_LoRA`, `_refiner`, `_t2i`, `_cn`."""
    control_db: str = "/tmp/ctl/aitk.db"
    device: str = "cuda"
    locations: Mapping[KeyPath, str] = field(default_factory=dict)
    """What a place that names files says instead; by its path in the config, other places stay."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Goes into the header of every checkpoint, beside what the config has there."""
    pushes_to_hub: bool = False


def rewrite(config: Config, placement: Placement) -> Changed:
    """Change a config without errors to one that is safe to run: one process of a type that can be controlled, all
    paths as they are in the place where it runs, losses logged, saves frequent enough. JSON in, JSON out.
    """
    subject = subject_of(config, lambda _: "")
    draft = Draft.of(config, key_of)
    _name(draft, placement.name)
    _folders(draft, subject, placement)
    for path, text in placement.locations.items():
        _move(draft, path, text)
    _control(draft, subject, placement)
    _defaults(draft, subject)
    for key, value in placement.meta.items():
        draft.set(("meta", key), value, "tells later which run a LoRA came from")
    return Changed(draft.config, tuple(draft.changes))


def relocate(config: Config, placement: Placement) -> Changed:
    """Change only where things lie: for the place that runs a config rewritten elsewhere."""
    draft = Draft.of(config, key_of)
    _folders(draft, subject_of(config, lambda _: ""), placement)
    for path, text in placement.locations.items():
        _move(draft, path, text)
    return Changed(draft.config, tuple(draft.changes))


def substitute(config: Config, environ: Mapping[str, str], where: Where) -> tuple[Changed, list[Problem]]:
    """Put in the values of `${VAR}`, as the trainer would do with the text of the file; here it happens before the
    config leaves this machine. A variable that is not set, or whose value does not fit its place, is a problem; one
    that sounds like a secret stays as it is, for the check to refuse.
    """
    draft, problems = Draft.of(config, key_of), list[Problem]()
    process = subject_of(config, where).process_path
    for path, text in texts_in(config):
        names = _VARIABLE.findall(text)
        if not names or any(is_secret_name(name) for name in names):
            continue
        place = where(path), key_of(path)
        if missing := [name for name in names if name not in environ]:
            message = f"env var {missing[0]} is not set here"
            problems.append(
                Problem("no_variable", path, *place, message, f"export {missing[0]}=..., or write the value")
            )
            continue
        value: Any = _VARIABLE.sub(lambda found: environ[found[1]], text)
        kind = kind_of(schema_place(path[len(process) :])) if path[: len(process)] == process else None
        try:
            value = _read(kind, value) if _VARIABLE.fullmatch(text) else value
        except ValueError as exc:
            problems.append(Problem("bad_value", path, *place, f"${{{names[0]}}} {exc}"))
            continue
        draft.set(path, value, f"value of {', '.join(names)} on this machine")
    return Changed(draft.config, tuple(draft.changes)), problems


def _read(kind: Kind | None, text: str) -> Any:
    """Type the value of a variable that stands alone; where no key says how, what looks like a number is one."""
    if kind is not None:
        return typed(kind, text)
    try:
        return typed("number", text)
    except ValueError:
        return text


def _name(draft: Draft, name: str) -> None:
    draft.set(("config", "name"), name, "the name of the run")
    for path, text in list(texts_in(draft.config)):
        if "[name]" in text and path != ("config", "name"):
            draft.set(path, text.replace("[name]", name), "the name of the run")


def _folders(draft: Draft, subject: Subject, placement: Placement) -> None:
    folder, reason = placement.training_folder, "trains on a local disk; complete checkpoints go to the training volume"
    draft.set(subject.at("training_folder"), folder, reason)
    if draft.get(subject.at("log_dir")):
        draft.set(subject.at("log_dir"), f"{folder}/tb", "beside the run")
    if draft.get(("config", "training_folder")):
        draft.remove(("config", "training_folder"), "the process says it")
    draft.set(subject.at("sqlite_db_path"), placement.control_db, "status, save-now and stop pass through this file")
    draft.set(subject.at("device"), placement.device, "the device of the place it runs in")


def _move(draft: Draft, path: KeyPath, text: str) -> None:
    old = draft.get(path)
    # A recovery adapter is named behind the kind of quantization: `uint3|owner/name/file.safetensors`.
    if path[-1:] == ("qtype",) and isinstance(old, str):
        text = f"{old.partition('|')[0]}|{text}"
    draft.set(path, text, "where it is when the run starts")


def _control(draft: Draft, subject: Subject, placement: Placement) -> None:
    draft.set(subject.at("type"), "diffusion_trainer", "the same trainer, with status and stop")
    draft.set(subject.at("logging.use_ui_logger"), True, "keeps every loss")
    draft.set(subject.at("logging.log_every"), 1, "keeps every loss")
    if not isinstance(draft.get(subject.at("performance_log_every")), int):
        draft.set(subject.at("performance_log_every"), 10, "tells the speed")
    if not placement.pushes_to_hub and draft.get(subject.at("save.push_to_hub")):
        draft.set(
            subject.at("save.push_to_hub"), False, "without a token it would wait for a login; --hf-push allows it"
        )


def _defaults(draft: Draft, subject: Subject) -> None:
    steps = subject.whole("train.steps") or 1
    if not draft.has(subject.at("save.save_every")):
        draft.set(subject.at("save.save_every"), default_save_every(steps), "the trainer's own is 1000")
    draft.default(subject.at("save.max_step_saves_to_keep"), 4, "the trainer's own is 5")
    draft.default(subject.at("train.dtype"), "bf16", "the trainer's own is fp32")
    _negative_prompts(draft, subject)


def _negative_prompts(draft: Draft, subject: Subject) -> None:
    sample = as_mapping(subject.process.get("sample"))
    if not (sample.get("prompts") or sample.get("samples")):
        return
    items = [
        ("samples", index) for index, item in enumerate(as_list(sample.get("samples"))) if "neg" in as_mapping(item)
    ]
    for where in [(), *items]:
        at = (*subject.at("sample"), *where, "neg")
        if not isinstance(draft.get(at), str):
            draft.set(at, "", "the trainer's own is none, of which its tokenizer dies at the first sample")
