"""`comfymodal models`: what lies in the models volume, what it says of itself, and tidying it up."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from comfymodal.errors import CancelledError, NotFoundError, NotReadyError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.ending import exit_code_of
from comfymodal.operations.errand import do_at_once, errand
from comfymodal.operations.models_place import FOLDERS, VolumePlace, require_model, size_words
from comfymodal.operations.models_results import (
    DiskUse,
    FolderUse,
    ModelInfo,
    ModelsListed,
    ModelsTree,
    ModelsUnused,
    ModelView,
    Tidied,
)
from comfymodal.operations.stored import note_stored
from comfymodal.operations.views import iso_time
from comfymodal.runs.ledger import Ledger, Run
from comfymodal.storage.library import Library, Model, in_folder, named_in, note_path
from comfymodal.storage.names import refusal_of
from comfymodal.storage.safetensors import read_facts
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences

_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,11}$")
_ALL = 1_000_000_000


def list_models(folder: str | None, context: Context) -> ModelsListed:
    """Raises `NotFoundError` for a folder that is neither ComfyUI's nor on the volume."""
    place = VolumePlace(context)
    models = _chosen(place.library(), folder)
    return ModelsListed(place.words, _views(models), _bytes(models))


def show_tree(folder: str | None, context: Context) -> ModelsTree:
    listed_models = list_models(folder, context)
    return ModelsTree(listed_models.place, listed_models.models, listed_models.size_bytes)


def disk_use(context: Context) -> DiskUse:
    place = VolumePlace(context)
    library = place.library()
    sizes: dict[str, list[int]] = {}
    for model in library.models:
        sizes.setdefault(model.folder, []).append(model.size_bytes)
    if context.project.target == "modal":
        whole = _bytes(library.models) + library.unfinished_bytes + library.trash_bytes
        note_stored(context.state, context.project.project, "models", whole)
    folders = [FolderUse(name, len(all_), sum(all_), FOLDERS.is_known(name)) for name, all_ in sizes.items()]
    return DiskUse(
        place.words,
        tuple(sorted(folders, key=lambda use: (-use.size_bytes, use.folder))),
        len(library.models),
        _bytes(library.models),
        library.unfinished_bytes,
        library.trash_bytes,
    )


def unused_models(context: Context, desk: Desk) -> ModelsUnused:
    """Models that no render named, of any project on this machine: they may share the volume."""
    place = VolumePlace(context)
    library = place.library()
    renders = list(_renders(context, desk))
    named = named_in(
        prompt["graph"]
        for run in renders
        for prompt in run.request["job"]["prompts"]
        if isinstance(prompt.get("graph"), Mapping)
    )
    unused = tuple(model for model in library.models if not named.names(model))
    since = min((run.created_at for run in renders), default=None)
    if since is None:
        desk.warn("no render is in this machine's ledgers yet: every model counts as unused")
    told = iso_time(since)
    return ModelsUnused(place.words, _views(unused), _bytes(unused), told, len(renders))


def model_info(name: str, context: Context) -> ModelInfo:
    """Read a model's header. Raises `NotFoundError`, `UsageError`, and `InputFileError` for a damaged one."""
    place = VolumePlace(context)
    model = require_model(place.library(), name)
    facts = read_facts(model.path, model.size_bytes, lambda start, count: place.read(model.path, start, count))
    return ModelInfo(
        path=model.path,
        place=place.words,
        size_bytes=model.size_bytes,
        format=facts.format,
        is_lora=facts.is_lora,
        title=facts.title,
        base_model=facts.base_model,
        rank=facts.rank,
        alpha=facts.alpha,
        trigger_words=facts.trigger_words,
        steps=facts.steps,
        resolution=facts.resolution,
        sha256=facts.sha256,
        tensors=facts.tensors,
        parameters=facts.parameters,
        dtypes=facts.dtypes or {},
        metadata=facts.metadata or {},
    )


def remove_models(names: Iterable[str], context: Context, desk: Desk, *, is_dry_run: bool) -> Tidied:
    """Move models to the volume's trash, with the notes of where they come from; asks."""
    place = VolumePlace(context)
    library = place.library()
    models = list({model.path: model for model in (require_model(library, name) for name in names)}.values())
    notes = library.notes_of(models)
    items: list[dict[str, Any]] = []
    for model in models:
        items.append({"path": model.path, "size_bytes": model.size_bytes})
        if note := notes.get(model):
            items.append({"path": note, "size_bytes": library.notes[note]})
    if is_dry_run:
        return planned("trash", place.words, items)
    question = Question(
        summary=f"{_number(models)} of {place.words} would go to its trash",
        details=tuple(model.path for model in models),
        ask="Move them there?" if len(models) > 1 else "Move it there?",
    )
    if not desk.confirm(question):
        raise CancelledError("nothing was moved")
    return tidy("trash", {"role": "models", "items": items}, place.words, context, desk)


def move_model(name: str, to: str, context: Context, desk: Desk, *, is_dry_run: bool) -> Tidied:
    """Give a model another name or folder, and its note with it.

    Raises `UsageError` for one that ComfyUI would not look in, or that is taken.
    """
    place = VolumePlace(context)
    library = place.library()
    model = require_model(library, name)
    target = destination(to, model.path.rpartition("/")[2], library)
    if target == model.path:
        raise UsageError(f"{target} is its name already")
    if any(other.path == target for other in library.models):
        raise UsageError(f"there is a {target} already", hint=f"first: comfymodal models rm {target}")
    items: list[dict[str, Any]] = [{"path": model.path, "to": target, "size_bytes": model.size_bytes}]
    if note := library.notes_of([model]).get(model):
        other = note_path(target)
        if other in library.notes and other != note:
            raise UsageError(f"there is a note {other} already, of another model", hint="choose another name")
        if other != note:
            items.append({"path": note, "to": other, "size_bytes": library.notes[note]})
    if is_dry_run:
        return planned("move", place.words, items)
    return tidy("move", {"role": "models", "items": items}, place.words, context, desk)


def destination(to: str, name: str, library: Library | None = None) -> str:
    """Where `FOLDER`, `FOLDER/below/` or `FOLDER/NAME` leads on the volume. Raises `UsageError`."""
    path = to.replace("\\", "/").removeprefix("models:").strip("/") if to.strip("/") else ""
    is_file = bool(_EXTENSION.search(path)) and not to.endswith("/")
    path = path if is_file else f"{path}/{name}"
    if why := refusal_of(path):
        raise UsageError(f"{to!r} cannot be used: {why}")
    folder, slash, _ = path.partition("/")
    if not slash:
        raise UsageError(f"{to} names no folder", hint=f"ComfyUI's folders: {listed(FOLDERS.names, limit=30)}")
    there = {model.path.partition("/")[0] for model in library.models} if library else set()
    if not FOLDERS.is_known(folder) and folder not in there:
        # A folder of a custom node may have any name (ipadapter); one that is nearly ComfyUI's is a slip (lora).
        near = difflib.get_close_matches(folder.lower(), (*FOLDERS.names, *FOLDERS.older), cutoff=0.85)
        if near:
            raise UsageError(f"ComfyUI has no model folder {folder}", hint=did_you_mean(near), near=near)
    return path


def planned(action: str, place: str, items: list[dict[str, Any]]) -> Tidied:
    paths = tuple({**item, "result": "would"} for item in items)
    return Tidied(action, place, True, len(items), sum(int(item["size_bytes"] or 0) for item in items), paths)


def tidy(action: str, fields: Mapping[str, Any], place: str, context: Context, desk: Desk) -> Tidied:
    """Do it where the volume (or the remote's keys) are. Raises what nothing was done for."""
    role = fields.get("role")
    title = f"{action} {place}"
    run = errand("tidy", title, {"mounts": [role] if role else [], **fields, "action": action}, context)
    outcome = do_at_once(run, context, desk)
    result, error = outcome["result"], outcome.get("error")
    return Tidied(
        action,
        place,
        False,
        int(result["files"]),
        int(result["size_bytes"]),
        tuple(result["paths"]),
        error,
        exit_code_of(str(outcome["status"]), error),
    )


def _chosen(library: Library, folder: str | None) -> tuple[Model, ...]:
    if folder is None:
        return library.models
    found = in_folder(library.models, folder.removeprefix("models:"), FOLDERS)
    top = folder.strip("/").partition("/")[0]
    if found or (FOLDERS.is_known(top) and "/" not in folder.strip("/")):
        return found
    known = {*FOLDERS.names, *FOLDERS.older, *(model.folder for model in library.models)}
    near = near_names(top, sorted(known))
    raise NotFoundError(
        f"there is no model folder {folder}", hint=sentences(did_you_mean(near), "all: comfymodal models du"), near=near
    )


def _renders(context: Context, desk: Desk) -> Iterator[Run]:
    for path in sorted((context.state / "projects").glob("*/ledger.sqlite")):
        try:
            ledger = Ledger(path)
        except NotReadyError as exc:
            desk.warn(f"not all runs are known: {exc.message}")
            continue
        yield from (run for run in ledger.newest(limit=_ALL) if run.kind == "render")
        ledger.close()


def _views(models: Iterable[Model]) -> tuple[ModelView, ...]:
    return tuple(ModelView(model.path, model.folder, model.name, model.size_bytes) for model in models)


def _bytes(models: Iterable[Model]) -> int:
    return sum(model.size_bytes for model in models)


def _number(models: Sequence[Model]) -> str:
    return f"{len(models)} model{'' if len(models) == 1 else 's'} ({size_words(_bytes(models))})"
