"""Keep what a finished prompt left: each file whole, hashed and attributed, under the run's folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from comfymodal.comfyui.client import ComfyClient
from comfymodal.comfyui.outputs import FileReference, copy_file, safe_name
from comfymodal.errors import ComfymodalError, TransferError
from comfymodal.jobs.contract import Engine
from comfymodal.jobs.manifest import OUTPUTS_FOLDER

Patiently = Callable[[Callable[[], Awaitable[tuple[int, str]]]], Awaitable[tuple[int, str]]]
"""Ask again while the server may only have lost its network for a moment."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where files come from and where they go; `folder` is the run's."""

    engine: Engine
    client: ComfyClient
    folder: Path
    patiently: Patiently

    async def keep(
        self, files: Sequence[FileReference], *, prompt: int, graph: Mapping[str, Any], with_temporary: bool
    ) -> tuple[list[dict[str, Any]], ComfymodalError | None]:
        """Bring every file; return the outputs, and the error that ended it early. Raises `OSError` (a full disk)."""
        outputs: list[dict[str, Any]] = []
        for number, file in enumerate(files):
            if file.is_temporary and not with_temporary:
                continue
            # Named by place in the job: a second attempt writes the same file, and no server chooses a folder.
            name = f"{prompt:05d}-{safe_name(file.node_id)[:12]}-{number:03d}-{safe_name(file.filename)}"
            try:
                size_bytes, sha256 = await self._bring(file, self.folder / OUTPUTS_FOLDER / name)
            except TransferError as exc:
                return outputs, exc
            outputs.append(_output(file, graph, f"{OUTPUTS_FOLDER}/{name}", size_bytes, sha256))
        return outputs, None

    async def _bring(self, file: FileReference, path: Path) -> tuple[int, str]:
        # Reading a file takes the server 2 ms less than serving it, and the next prompt is waiting for the server.
        folder = self.engine.folder_of(file.type)
        if folder is not None:
            # In a thread: a long video must not keep the WebSocket waiting.
            copied = await asyncio.to_thread(copy_file, file, folder, path)
            if copied is not None:
                return copied
        return await self.patiently(partial(self.client.download, file.to_query(), path))


def _output(
    file: FileReference, graph: Mapping[str, Any], kept_as: str, size_bytes: int, sha256: str
) -> dict[str, Any]:
    return {
        "node_id": file.node_id,
        "title": title_of(graph, file.node_id),
        "class_type": str(graph.get(file.node_id, {}).get("class_type", "")),
        "kind": file.kind,
        "file": kept_as,
        "name": safe_name(file.filename),
        "size_bytes": size_bytes,
        "sha256": sha256,
        "is_temporary": file.is_temporary,
    }


def title_of(graph: Mapping[str, Any], node_id: str) -> str:
    """A node's title, else its class, else its id; graphs of other hands may have anything there."""
    node = graph.get(node_id) or {}
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return str(title or node.get("class_type") or node_id)
