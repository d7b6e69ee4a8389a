"""`comfymodal models add`: find out what it is and where it belongs, then have it brought straight to the volume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import ConflictError, InputFileError, NotReadyError, ServiceError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ends import remote_of
from comfymodal.operations.errand import errand, run_errand
from comfymodal.operations.keys import with_keys
from comfymodal.operations.models import destination
from comfymodal.operations.models_place import FOLDERS, VolumePlace
from comfymodal.operations.models_results import ModelAddPlanned
from comfymodal.operations.setup import Values
from comfymodal.operations.sync_results import ErrandReport
from comfymodal.storage.download import LONGEST_NAME_BYTES
from comfymodal.storage.ends import end_to_dict
from comfymodal.storage.keys import key_names
from comfymodal.storage.library import split_folder
from comfymodal.storage.model_source import FORMS, Found, Source, look_up, parse_source
from comfymodal.storage.web import TryAgainError
from comfymodal.workflow.wording import listed

TOKENS = {"huggingface": ("HF_TOKEN", "hf-credentials"), "civitai": ("CIVITAI_TOKEN", "civitai-credentials")}
_SETTINGS = ("HF_TOKEN", "CIVITAI_TOKEN", "HF_ENDPOINT", "CIVITAI_ENDPOINT")


@dataclass(frozen=True, slots=True)
class AddRequest:
    """`to` is `FOLDER` or `FOLDER/NAME`; `sha256` 64 hex digits."""

    source: str
    to: str | None = None
    sha256: str | None = None
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Meant:
    """What is to be brought, as the job takes it: `fields` say from where."""

    label: str
    path: str
    """Of folder and name at its origin."""
    fields: Mapping[str, Any]
    name: str | None
    folder: str | None = None
    size_bytes: int | None = None
    hashes: Mapping[str, str] | None = None
    env_names: tuple[str, ...] = ()


def add_model(request: AddRequest, context: Context, desk: Desk) -> ErrandReport | ModelAddPlanned:
    """Raises `UsageError`, `NotFoundError`, `NotReadyError`, `ConflictError`, `ServiceError` before anything starts."""
    if request.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", request.sha256):
        raise UsageError("--sha256 takes 64 hexadecimal digits")
    place = VolumePlace(context)
    meant = _remote_file(request.source, context) or _web_file(request.source, context, desk)
    path = _path_for(meant, request.to)
    hashes = _hashes(meant, request.sha256)
    _require_other(place, path, meant.size_bytes)
    if request.is_dry_run:
        return ModelAddPlanned(meant.label, path, place.words, meant.size_bytes, hashes.get("sha256"))
    fields = {
        "role": "models",
        "mounts": ["models"],
        "path": path,
        "hashes": hashes,
        "size_bytes": meant.size_bytes,
        **meant.fields,
    }
    context = with_keys(context, meant.env_names)
    return run_errand(errand("download", f"add {path}", fields, context), context, desk)


def _remote_file(text: str, context: Context) -> Meant | None:
    """One file of a remote of the project; None when `text` is something else. Raises `UsageError`."""
    name, colon, path = text.partition(":")
    if not colon or name not in context.project.remotes or name in ("hf", "civitai", "http", "https"):
        return None
    folder, _, file = path.strip("/").rpartition("/")
    if not file or not {".", ".."}.isdisjoint(path.split("/")):
        raise UsageError(f"{text} names no file", hint=f"{name}:folder/file.safetensors; a folder: comfymodal sync")
    end = remote_of(context.project, name, folder)
    pairs = key_names(end.remote)
    return Meant(
        label=text,
        path=path,
        fields={"remote": {"end": end_to_dict(end), "file": file}, "secrets": [end.secret] if end.secret else []},
        name=file,
        env_names=tuple(each for pair in pairs for each in pair),
    )


def _web_file(text: str, context: Context, desk: Desk) -> Meant:
    environ = _environ(context)
    if (prefix := text.partition(":")[0]) and ":" in text and not re.match(r"(?i)(https?|hf|civitai):", text):
        raise UsageError(f"{prefix} is no remote of this project", hint=f"known forms: {FORMS}")
    source = parse_source(text, environ)
    found = _ask(source, environ, context, desk)
    token = TOKENS.get(source.kind)
    return Meant(
        label=source.label,
        path=found.source.path,
        fields={"source": found.source.to_dict(), "optional_secrets": [token[1]] if token else []},
        name=found.name,
        folder=found.folder,
        size_bytes=found.size_bytes,
        hashes=found.hashes,
        env_names=_SETTINGS if token else (),
    )


def _ask(source: Source, environ: Mapping[str, str], context: Context, desk: Desk) -> Found:
    """What its host says. Where that needs a token which only Modal has, the job asks instead."""
    bare = Found(source, source.path.rstrip("/").rpartition("/")[2] or None)
    try:
        return look_up(source, environ)
    except TryAgainError as exc:
        if source.kind == "civitai":
            raise ServiceError(exc.error.message, hint=exc.error.hint) from exc
        desk.warn(f"cannot ask beforehand: {exc.error.message}")
        return bare
    except NotReadyError:
        token = TOKENS.get(source.kind)
        is_known_here = token is None or environ.get(token[0])
        if context.project.target != "modal" or is_known_here or bare.name is None:
            raise
        return bare


def _path_for(meant: Meant, to: str | None) -> str:
    name = meant.name or ""
    if to is not None:
        path = destination(to, name)
    elif (split := split_folder(meant.path, FOLDERS)) is not None:
        below = split[1].rpartition("/")[0]
        path = "/".join(part for part in (split[0], below, name) if part)
    elif meant.folder is not None:
        path = f"{meant.folder}/{name}"
    else:
        raise UsageError(
            f"nothing tells into which folder {name or meant.label} belongs",
            hint=f"say it with --to FOLDER; ComfyUI's: {listed(FOLDERS.names, limit=30)}",
        )
    # Names from elsewhere are checked like typed ones.
    path = destination(path, name)
    file = path.rpartition("/")[2]
    if not name and to is None:
        raise UsageError(f"{meant.label} has no name of a file", hint="give one: --to FOLDER/NAME")
    if "." not in file or file.startswith("."):
        raise UsageError(f"{file} is no name that ComfyUI would list", hint="give one: --to FOLDER/NAME.safetensors")
    if len(file.encode()) > LONGEST_NAME_BYTES:
        raise UsageError(f"the name has more than {LONGEST_NAME_BYTES} bytes", hint="give another: --to FOLDER/NAME")
    return path


def _hashes(meant: Meant, sha256: str | None) -> dict[str, str]:
    known = dict(meant.hashes or {})
    if sha256 is None:
        return known
    if known.get("sha256") not in (None, sha256.lower()):
        raise InputFileError(
            f"{meant.label} has another sha256 than the one given: {known['sha256']}",
            hint="is it the right file? nothing was started",
        )
    return {**known, "sha256": sha256.lower()}


def _require_other(place: VolumePlace, path: str, size_bytes: int | None) -> None:
    """A file of that name and another size can only be another one: that is known without starting anything."""
    if size_bytes is None:
        return
    there = place.size_of(path)
    if there not in (None, size_bytes):
        raise ConflictError(
            f"there is another {path} already ({there} bytes, not {size_bytes})",
            hint=f"choose another name with --to, or: comfymodal models rm {path}",
            path=path,
        )


def _environ(context: Context) -> dict[str, str]:
    """Tokens and addresses of hosts from the environment, and below it from the project's `.env`."""
    values = Values.read(context.folder, context.environ)
    found = {name: value for name in _SETTINGS if (value := values.environ.get(name) or values.file.get(name))}
    return {**context.environ, **found}
