"""Local files named by an override: find them, read text from them, give an upload its name on the server."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from comfymodal.errors import InputFileError
from comfymodal.workflow.object_info import InputSpec
from comfymodal.workflow.wording import did_you_mean, near_files, sentences

_ANNOTATED = re.compile(r" \[(?:input|output|temp)\]$")
_LARGEST_TEXT_BYTES = 16 * 1024 * 1024
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Upload:
    """A local file one input reads. *name* is its name on the server, the same for the same bytes."""

    node_id: str
    input_name: str
    path: Path
    name: str
    sha256: str
    size_bytes: int


def local_path(text: str) -> Path:
    # The shell leaves the "~" of 6.text=@~/prompt.txt alone.
    return Path(os.path.expanduser(text))


def require_file(path: Path, *, where: str, more: str | None = None) -> None:
    """Raise InputFileError, with near names, when *path* is no file; *more* ends the hint."""
    if os.path.isdir(path):
        raise InputFileError(
            f"{where}: {path} is a directory, not a file", hint=sentences("name a file in it", more), path=str(path)
        )
    # Not isfile(): text may come from a pipe such as <(generate-prompt).
    if not os.path.exists(path):
        near = near_files(path)
        raise InputFileError(
            f"{where}: there is no file {path}",
            hint=sentences(did_you_mean(near), more) or "check the path; it is relative to the current folder",
            path=str(path),
            near=near,
        )


def read_text(path: Path, *, where: str) -> str:
    """Return the file's text without a BOM and without its one last line end. Raises InputFileError."""
    require_file(path, where=where)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_TEXT_BYTES + 1)
        if len(data) > _LARGEST_TEXT_BYTES:
            raise InputFileError(
                f"{where}: {path} is larger than 16 MiB: no text for an input", hint="name a text file", path=str(path)
            )
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InputFileError(
            f"{where}: {path} is not UTF-8 text (byte {exc.start})", hint="save it as UTF-8", path=str(path)
        ) from exc
    except OSError as exc:
        raise _unreadable(path, exc, where=where) from exc
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def find_upload(text: str, spec: InputSpec, *, where: str) -> Path | None:
    """Return the local file that *text* names for an upload input, or None when it is a name on the server.

    Raises InputFileError for a directory, and for what is clearly a local path but does not exist.
    """
    if not text:
        return None
    path = local_path(text)
    if os.path.isfile(path):
        return path
    is_server_name = text in (spec.options or ()) or _ANNOTATED.search(text)
    if not is_server_name and (os.path.isdir(path) or _looks_local(text)):
        require_file(path, where=where, more="a file that is already on the server is named without a folder")
    return None


def describe_upload(path: Path, *, node_id: str, input_name: str, where: str) -> Upload:
    """Hash the file and name it after its content. Raises InputFileError when it cannot be read."""
    if not os.path.isfile(path):
        # It is read again when it is uploaded; a pipe would be empty by then.
        raise InputFileError(f"{where}: {path} is not a regular file", hint="save it to a file first", path=str(path))
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc, where=where) from exc
    suffix = path.suffix.lower()
    # An odd suffix (".png [output]") would be read by ComfyUI as a note about the folder.
    name = f"comfymodal/{sha256[:32]}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
    return Upload(node_id=node_id, input_name=input_name, path=path, name=name, sha256=sha256, size_bytes=size_bytes)


def _looks_local(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith("~") or re.match(r"[A-Za-z]:", text) is not None


def _unreadable(path: Path, exc: OSError | ValueError, *, where: str) -> InputFileError:
    reason = exc.strerror if isinstance(exc, OSError) else exc
    return InputFileError(
        f"{where}: {path} cannot be read: {reason}", hint="check the file and its permissions", path=str(path)
    )
