"""What a deployment's ComfyUI knows: asked once, on a CPU, right after a deploy.

ComfyUI lists model files in its nodes' inputs. It is started over a folder with one marker file per model folder and
extension, so that each list shows which folders and extensions it reads; the markers are replaced by what is on the
models volume at that moment whenever somebody asks. `inspect` runs in a container, the rest on the operator's side.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.comfyui.ask import get_json
from comfymodal.comfyui.child import start_child
from comfymodal.comfyui.server import LEGACY_MODEL_FOLDERS, MODEL_FOLDERS, read_from
from comfymodal.errors import ComfymodalError

MARKER = "comfymodal-marker"
EXTENSIONS = (
    *(".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf"),
    *(".onnx", ".pkl", ".yaml", ".yml", ".json", ".model", ".engine"),
)
_MARKER = re.compile(re.escape(MARKER) + r"-(?P<folder>.+)(?P<extension>\.[a-z0-9]+)")
_IMPORT_FAILED = re.compile(r"\(IMPORT FAILED\):\s*(?P<path>.+)$|Cannot import (?P<module>.+?) module for custom nodes")


def inspect(folders: Sequence[str]) -> dict[str, Any]:
    """Boot ComfyUI without a GPU; return what it knows, or why it does not come up.

    `{comfyui_version, object_info, folders, import_errors: [{node, reason}], seconds}` or `{error: {...}, seconds}`.
    """
    from comfymodal.targets.modal.containers import launch_from

    began = time.time()
    names = sorted({*MODEL_FOLDERS, *folders})
    with tempfile.TemporaryDirectory(prefix="comfymodal-") as root:
        models = Path(root) / "models"
        mark(models, names)
        launch = launch_from(os.environ, models=models, extra=("--cpu",))
        try:
            engine = start_child(launch, Path(root) / "engine")
        except ComfymodalError as exc:
            return {"error": exc.to_dict(), "seconds": time.time() - began}
        try:
            stats = get_json(engine.url, "/system_stats")
            object_info = get_json(engine.url, "/object_info", timeout_s=120.0)
        except ComfymodalError as exc:
            return {"error": exc.to_dict(), "seconds": time.time() - began}
        finally:
            engine.stop()
        return {
            "comfyui_version": stats["system"]["comfyui_version"],
            "object_info": object_info,
            "folders": names,
            "import_errors": import_errors(read_from(engine.log, 0)),
            "seconds": time.time() - began,
        }


def mark(models: Path, folders: Iterable[str]) -> None:
    """Make a models folder in which every list of files tells where it comes from."""
    for folder in folders:
        (models / folder).mkdir(parents=True, exist_ok=True)
        for extension in EXTENSIONS:
            (models / folder / f"{MARKER}-{folder}{extension}").touch()


def import_errors(log: str) -> list[dict[str, str]]:
    """Custom nodes that ComfyUI could not import, with the last line of each traceback."""
    lines = log.splitlines()
    reasons: dict[str, str] = {}
    for number, line in enumerate(lines):
        found = _IMPORT_FAILED.search(line)
        if found is None:
            continue
        node = os.path.basename(str(found["path"] or found["module"]).strip().rstrip("/"))
        said = line.partition("module for custom nodes:")[2].strip()
        reasons[node] = reasons.get(node) or said or _exception_before(lines[:number])
    return [{"node": node, "reason": reason} for node, reason in reasons.items()]


def with_models(entry: Mapping[str, Any], files: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """An `/object_info` entry with the markers in its lists replaced by the files of those folders."""
    filled = _fill(entry, files)
    return filled if isinstance(filled, dict) else {}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of the models volume, or of a bucket mount by name; `path` is relative to its root."""

    path: str
    size_bytes: int
    mount: str | None = None


def files_by_folder(paths: Iterable[tuple[str, int]], mount: str | None = None) -> dict[str, dict[str, ModelFile]]:
    """Files by name below each model folder; those in a folder with an older name count to the newer one too.

    `paths` are relative to the models volume or to the mount, e.g. `("checkpoints/xl/a.safetensors", 6938040682)`.
    """
    newer = {old: new for new, olds in LEGACY_MODEL_FOLDERS.items() for old in olds}
    found: dict[str, dict[str, ModelFile]] = {}
    for path, size in paths:
        folder, slash, name = path.strip("/").partition("/")
        if slash:
            for owner in {folder, newer.get(folder, folder)}:
                found.setdefault(owner, {})[name] = ModelFile(path, size, mount)
    return found


def first_of(places: Iterable[Mapping[str, Mapping[str, ModelFile]]]) -> dict[str, dict[str, ModelFile]]:
    """Files of several places as ComfyUI finds them: of one name, that of the first place."""
    found: dict[str, dict[str, ModelFile]] = {}
    for place in places:
        for folder, files in place.items():
            found[folder] = {**files, **found.get(folder, {})}
    return found


def models_in(
    graphs: Iterable[Mapping[str, Any]],
    object_info: Mapping[str, Any],
    files: Mapping[str, Mapping[str, ModelFile]],
) -> list[ModelFile]:
    """The model files that these graphs name, each once."""
    found: dict[str, ModelFile] = {}
    for graph in graphs:
        for node in graph.values():
            inputs = (object_info.get(node["class_type"]) or {}).get("input") or {}
            specs = {name: spec for kind in inputs.values() if isinstance(kind, dict) for name, spec in kind.items()}
            for name, value in node["inputs"].items():
                for folder, _ in _marked(specs.get(name)) if isinstance(value, str) else ():
                    if (model := files.get(folder, {}).get(value)) is not None:
                        found[model.path] = model
    return list(found.values())


def _fill(value: Any, files: Mapping[str, Sequence[str]]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, files) for key, item in value.items() if not _is_marker(item)}
    if not isinstance(value, list):
        return value
    marked = {(match["folder"], match["extension"]) for item in value if (match := _match(item))}
    kept = [_fill(item, files) for item in value if not _is_marker(item)]
    names = {name for folder, extension in marked for name in files.get(folder, ()) if name.lower().endswith(extension)}
    return [*kept, *sorted(names)]


def _marked(value: Any) -> set[tuple[str, str]]:
    """Folder and extension of every marker anywhere in an input's description."""
    if isinstance(value, dict):
        return set().union(*(_marked(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_marked(item) for item in value))
    return {(match["folder"], match["extension"])} if (match := _match(value)) else set()


def _match(value: Any) -> re.Match[str] | None:
    return _MARKER.fullmatch(value) if isinstance(value, str) else None


def _is_marker(value: Any) -> bool:
    return _match(value) is not None


def _exception_before(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line):
            return line
    return "see the log"
