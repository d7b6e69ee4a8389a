"""What lies in the project's bucket mounts: listed by a container on a CPU, because only there they are mounted.

Imported in a bare container: the standard library is all there is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def list_mounts() -> dict[str, Any]:
    """Every file that may be a model: `{files: {mount: [[path, size_bytes], ...]}, seconds}`, or `{error, seconds}`."""
    from comfymodal.targets.modal.containers import buckets_from

    began = time.time()
    files = {}
    for name, folder in buckets_from(os.environ).items():
        try:
            files[name] = [list(found) for found in model_files_in(folder)]
        except OSError as exc:
            return {"error": f"mount {name}: {exc.strerror or exc}", "seconds": time.time() - began}
    return {"files": files, "seconds": time.time() - began}


def model_files_in(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file in a model folder; what is hidden, and what lies beside the folders, is none.

    Raises `OSError` for a folder that cannot be read, also for one deep inside.
    """
    for top in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if top.name.startswith(".") or not top.is_dir():
            continue
        for root, folders, names in os.walk(top.path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(root, name)
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _raise(error: OSError) -> None:
    raise error
