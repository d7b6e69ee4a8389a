"""What a person reads of `models` and `trash`, as lines of columns; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from comfymodal.operations.models_results import (
    DiskUse,
    ModelAddPlanned,
    ModelInfo,
    ModelsListed,
    ModelsTree,
    ModelsUnused,
    ModelView,
    Tidied,
    TrashListed,
)
from comfymodal.operations.sync_results import ErrandReport
from comfymodal.output.words import bytes_in_words, count, seconds_in_words

Rows = list[tuple[str, ...]]

NO_FOLDER = "(no folder: ComfyUI does not look here)"
_DONE = {
    "trashed": "in the trash",
    "moved": "moved",
    "restored": "restored",
    "deleted": "deleted for good",
    "skipped": "left as it was: stopped",
}
_WOULD = {
    "trash": "would go to the trash",
    "move": "would be moved",
    "restore": "would be restored",
    "empty": "would be deleted for good",
}


def models_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result about models or the trash; None for any other result."""
    titles: tuple[str, ...] = ()
    match result:
        case ModelsListed():
            titles, rows = ("model", "size"), _listed_rows(result.models, result.size_bytes, result.place)
        case ModelsTree():
            rows = _tree_rows(result)
        case DiskUse():
            titles, rows = ("folder", "size", "files"), _use_rows(result)
        case ModelsUnused():
            titles, rows = ("model", "size"), _unused_rows(result)
        case ModelInfo():
            rows = _info_rows(result)
        case ModelAddPlanned():
            rows = _planned_rows(result)
        case Tidied():
            rows = _tidied_rows(result)
        case TrashListed():
            titles, rows = ("path", "size", "stamp", "where"), _trash_rows(result)
        case ErrandReport():
            rows = _errand_rows(result)
        case _:
            return None
    return titles, rows


def _listed_rows(models: Sequence[ModelView], size_bytes: int, place: str) -> Rows:
    rows: Rows = [(model.path, bytes_in_words(model.size_bytes)) for model in models]
    rows.append((f"{count(len(models), 'model')} in {place}", bytes_in_words(size_bytes)))
    return rows


def _tree_rows(tree: ModelsTree) -> Rows:
    by_folder: dict[str, list[ModelView]] = {}
    for model in sorted(tree.models, key=lambda model: (model.folder, model.name)):
        by_folder.setdefault(model.folder, []).append(model)
    rows: Rows = []
    for folder, models in by_folder.items():
        size = sum(model.size_bytes for model in models)
        rows.append((f"{folder or NO_FOLDER}/" if folder else NO_FOLDER, bytes_in_words(size)))
        rows += list(_branches([(model.name.split("/"), model.size_bytes) for model in models], "  "))
    rows.append((f"{count(len(tree.models), 'model')} in {tree.place}", bytes_in_words(tree.size_bytes)))
    return rows


def _branches(files: Sequence[tuple[list[str], int]], indent: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for parts, size in files:
        if len(parts) == 1:
            yield f"{indent}{parts[0]}", bytes_in_words(size)
        elif parts[0] not in seen:
            seen.add(parts[0])
            below = [(rest[1:], each) for rest, each in files if rest[0] == parts[0] and len(rest) > 1]
            yield f"{indent}{parts[0]}/", bytes_in_words(sum(each for _, each in below))
            yield from _branches(below, f"{indent}  ")


def _use_rows(use: DiskUse) -> Rows:
    rows: Rows = [
        (
            each.folder or NO_FOLDER,
            bytes_in_words(each.size_bytes),
            count(each.files, "file") + ("" if each.is_known or not each.folder else ", of a custom node"),
        )
        for each in use.folders
    ]
    if use.unfinished_bytes:
        rows.append(("(half-written)", bytes_in_words(use.unfinished_bytes), "the same models add goes on with it"))
    if use.trash_bytes:
        rows.append(("(trash)", bytes_in_words(use.trash_bytes), "comfymodal trash empty"))
    total = use.size_bytes + use.unfinished_bytes + use.trash_bytes
    rows.append((f"all in {use.place}", bytes_in_words(total), count(use.files, "model")))
    return rows


def _unused_rows(unused: ModelsUnused) -> Rows:
    rows: Rows = [(model.path, bytes_in_words(model.size_bytes)) for model in unused.models]
    since = f" since {unused.since[:10]} ({count(unused.renders, 'render')} on this machine)" if unused.since else ""
    told = f"{count(len(unused.models), 'model')} that no render has named{since}"
    rows.append((told, bytes_in_words(unused.size_bytes)))
    return rows


def _info_rows(info: ModelInfo) -> Rows:
    is_pickle = info.format == "pickle"
    rows = [
        ("file", info.path),
        ("in", info.place),
        ("size", f"{bytes_in_words(info.size_bytes)} ({info.size_bytes} bytes)"),
        ("format", f"{info.format} (not looked into: opening one can run code)" if is_pickle else info.format),
        ("title", info.title or ""),
        ("base model", info.base_model or ""),
        ("LoRA", _lora(info) if info.is_lora else ""),
        ("trigger words", ", ".join(info.trigger_words)),
        ("steps", "" if info.steps is None else str(info.steps)),
        ("resolution", info.resolution or ""),
        ("sha256", f"{info.sha256} (as the file says)" if info.sha256 else ""),
        ("tensors", "" if info.tensors is None else f"{info.tensors}"),
        ("parameters", "" if info.parameters is None else f"{_short_number(info.parameters)} ({_dtypes(info)})"),
    ]
    return [row for row in rows if row[1]]


def _lora(info: ModelInfo) -> str:
    rank = "rank unknown" if info.rank is None else f"rank {info.rank}"
    return rank if info.alpha is None else f"{rank}, alpha {info.alpha:g}"


def _dtypes(info: ModelInfo) -> str:
    total = sum(info.dtypes.values()) or 1
    return ", ".join(f"{name} {number / total:.0%}" for name, number in info.dtypes.items()) or "none"


def _short_number(number: int) -> str:
    for unit, size in (("billion", 10**9), ("million", 10**6), ("thousand", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _planned_rows(plan: ModelAddPlanned) -> Rows:
    size = "size unknown" if plan.size_bytes is None else bytes_in_words(plan.size_bytes)
    check = f"sha256 {plan.sha256}, will be checked" if plan.sha256 else "nothing tells its hash: --sha256 would"
    return [("from", plan.source), ("to", f"{plan.path} in {plan.place}"), ("size", size), ("hash", check)]


def _tidied_rows(tidied: Tidied) -> Rows:
    rows: Rows = []
    for path in tidied.paths:
        to = f" to {path['to']}" if tidied.action == "move" else ""
        if path.get("error"):
            word = str(path["error"]["message"])
        else:
            word = _WOULD[tidied.action] if tidied.is_dry_run else _DONE[path["result"]]
        rows.append((str(path["path"]), bytes_in_words(int(path.get("size_bytes") or 0)), word + to))
    files = f"{count(tidied.files, 'file')} in {tidied.place}" if rows else f"nothing in the trash of {tidied.place}"
    rows.append((files, bytes_in_words(tidied.size_bytes), _next(tidied)))
    return rows


def _next(tidied: Tidied) -> str:
    if tidied.action != "trash" or tidied.is_dry_run or not tidied.files:
        return ""
    return "back: comfymodal trash restore; room: comfymodal trash empty"


def _trash_rows(trash: TrashListed) -> Rows:
    rows: Rows = [(row.path, bytes_in_words(row.size_bytes), row.stamp, row.place) for row in trash.files]
    total = f"{count(len(trash.files), 'file')} in the trash of {trash.place}"
    return [*rows, (total, bytes_in_words(trash.size_bytes))]


def _errand_rows(report: ErrandReport) -> Rows:
    result = report.result
    if not result.get("path"):
        return [(f"run {report.run.id}: {report.run.status}",)]
    check = "checked" if result.get("verified") else "not checked: nothing told what it should be"
    size = bytes_in_words(int(result.get("size_bytes") or 0))
    if result.get("action") == "already_there":
        return [(str(result["path"]), size, "was there already, the same", f"sha256 {result.get('sha256')}")]
    resumed = int(result.get("resumed_from_bytes") or 0)
    before = f", {bytes_in_words(resumed)} were there" if resumed else ""
    took = f"downloaded in {seconds_in_words(float(result.get('seconds') or 0))}{before}"
    return [(str(result["path"]), size, took, f"sha256 {result.get('sha256')}, {check}")]
