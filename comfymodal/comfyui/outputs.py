"""What a finished prompt left behind, read from its `/history` entry: files, texts, and how it ended."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

Ending = Literal["succeeded", "failed", "cancelled"]

KIND_BY_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg", ".exr"), "image"),
    **dict.fromkeys((".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"), "video"),
    **dict.fromkeys((".flac", ".mp3", ".opus", ".wav", ".ogg", ".m4a", ".aac"), "audio"),
    **dict.fromkeys((".glb", ".gltf", ".obj", ".ply", ".stl", ".fbx", ".usdz"), "3d"),
    ".latent": "latent",
}

CHUNK_BYTES = 1 << 20

MAX_NAME_BYTES = 180
"""Common file systems allow 255; the rest is for what we put before the name."""

# Control characters of both sets, what Windows forbids, half surrogate pairs, and what turns text around on a terminal.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\:*?\"<>|\ud800-\udfff\u2028-\u202e\u2066-\u2069]+")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])\s*(\..*)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file the server holds, as `/view` wants it. `is_temporary` ones die with the server."""

    node_id: str
    filename: str
    subfolder: str
    type: str

    @property
    def is_temporary(self) -> bool:
        return self.type == "temp"

    @property
    def kind(self) -> str:
        """Decided by extension: ComfyUI reports videos and animations under `images` too."""
        return KIND_BY_SUFFIX.get(PurePosixPath(self.filename.lower()).suffix, "file")

    def to_query(self) -> dict[str, str]:
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


@dataclass(frozen=True, slots=True)
class Text:
    """A text output (PreviewAny and friends): it is no file anywhere."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A `/history` entry, read. `error` has exception_type, exception_message, node_id, node_type, traceback."""

    ending: Ending
    files: tuple[FileReference, ...]
    texts: tuple[Text, ...]
    is_cached: bool
    error: Mapping[str, Any] | None


def read_history(entry: Mapping[str, Any]) -> Finished:
    """Read an entry leniently: a node may have written anything, and an errored prompt still has outputs."""
    outputs = entry.get("outputs")
    found = dict(outputs) if isinstance(outputs, dict) else {}
    ending, error = _ending(entry)
    return Finished(
        ending=ending,
        files=tuple(_files(found)),
        texts=tuple(_texts(found)),
        is_cached=_is_cached(entry, found),
        error=error,
    )


def copy_file(reference: FileReference, folder: Path, destination: Path) -> tuple[int, str] | None:
    """Copy a server's file from its own folder, whole or not at all; return (bytes, sha256).

    None when it is not there, or when its name leads out of the folder. Not linked: a node may write the same
    name again. Raises `OSError` when it cannot be written.
    """
    try:
        source = (folder / reference.subfolder / reference.filename).resolve()
        if not source.is_relative_to(folder.resolve()) or not source.is_file():
            return None
    except (OSError, ValueError):  # a name that no file can have
        return None
    part = destination.with_name(destination.name + ".part")
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
            size = writer.tell()
        part.replace(destination)
    finally:
        part.unlink(missing_ok=True)
    return size, digest.hexdigest()


def safe_name(name: str) -> str:
    """A file name from a server, made harmless: no folder, no control characters, no device names, not too long."""
    base = _UNSAFE.sub("_", PurePosixPath(name.replace("\\", "/")).name).strip(" .")
    if not base or _RESERVED.match(base):
        base = f"_{base}"
    stem, suffix = os.path.splitext(base)
    while len((stem + suffix).encode()) > MAX_NAME_BYTES and stem:
        stem = stem[:-1]
    return (stem + suffix).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _ending(entry: Mapping[str, Any]) -> tuple[Ending, Mapping[str, Any] | None]:
    messages = _messages(entry)
    # status_str is "error" for a failure and for an interruption alike; the message tells them apart.
    if "execution_interrupted" in messages:
        return "cancelled", None
    if "execution_error" in messages:
        return "failed", messages["execution_error"]
    status = entry.get("status")
    if isinstance(status, dict) and status.get("status_str") == "error":
        return "failed", {}
    return "succeeded", None


def _messages(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    status = entry.get("status")
    pairs = status.get("messages") if isinstance(status, dict) else None
    return {
        str(pair[0]): pair[1] if isinstance(pair[1], dict) else {}
        for pair in (pairs if isinstance(pairs, list) else [])
        if isinstance(pair, list) and len(pair) == 2
    }


def _files(outputs: Mapping[str, Any]) -> Iterator[FileReference]:
    # The same file may be listed twice (a node that reports under two keys): keep the first.
    seen: set[tuple[str, str, str, str]] = set()
    for node_id, item in _items(outputs):
        if isinstance(item, dict) and isinstance(item.get("filename"), str) and item["filename"]:
            reference = FileReference(
                node_id, item["filename"], str(item.get("subfolder") or ""), str(item.get("type") or "output")
            )
            identity = (node_id, reference.filename, reference.subfolder, reference.type)
            if identity not in seen:
                seen.add(identity)
                yield reference


def _texts(outputs: Mapping[str, Any]) -> Iterator[Text]:
    for node_id, values in outputs.items():
        for key in ("text", "string"):
            found = values.get(key) if isinstance(values, dict) else None
            for text in found if isinstance(found, list) else [found]:
                if isinstance(text, str):
                    yield Text(str(node_id), text)


def _items(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for node_id, values in outputs.items():
        for listed in values.values() if isinstance(values, dict) else ():
            for item in listed if isinstance(listed, list) else [listed]:
                yield str(node_id), item


def _is_cached(entry: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    cached = _messages(entry).get("execution_cached", {}).get("nodes")
    return bool(outputs) and isinstance(cached, list) and set(outputs) <= {str(node) for node in cached}
