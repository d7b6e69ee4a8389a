"""Runs while an image is built: `registry_node.py ID VERSION FOLDER` puts a node of the Comfy registry into FOLDER.

Not the Manager's `install`: up to 4.3 it exits 0 when a node could not be installed, with `--exit-on-fail` too, and it
brings its own packages into ComfyUI's environment. Standard library only; one file, copied into the image alone.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

REGISTRY = "https://api.comfy.org"
TIMEOUT_S = 120.0
TRIES = 4
NOT_FOUND = (400, 404)


def main(argv: list[str]) -> int:
    node_id, version, folder = argv
    try:
        install(node_id, version, Path(folder), registry=os.environ.get("COMFY_REGISTRY_URL", REGISTRY))
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        print(f"cannot install {node_id}@{version} from the Comfy registry: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def install(node_id: str, version: str, folder: Path, *, registry: str) -> None:
    """Download and unpack. Raises OSError or ValueError; `folder` must not exist."""
    quoted = urllib.parse.quote(node_id, safe="")
    query = urllib.parse.urlencode({"version": version})
    found = json.loads(_get(f"{registry}/nodes/{quoted}/install?{query}"))
    if found.get("version") != version:
        raise ValueError(f"the registry answered with version {found.get('version')}")
    # Flagged by the registry's own scan, or banned.
    if found.get("status") in ("NodeVersionStatusFlagged", "NodeVersionStatusBanned", "NodeVersionStatusDeleted"):
        raise ValueError(f"the registry says {found['status']} {found.get('status_reason') or ''}".strip())
    if not found.get("downloadUrl"):
        raise ValueError("the registry names no download")
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(_get(found["downloadUrl"]))) as archive:
        if not archive.namelist():
            raise ValueError("its archive is empty")
        # extractall drops absolute paths and `..`.
        archive.extractall(folder)


def _get(url: str) -> bytes:
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # an https address of the registry
                return bytes(answer.read())
        except urllib.error.HTTPError as exc:
            if exc.code in NOT_FOUND:
                raise ValueError(f"it is not there (HTTP {exc.code})") from exc
            if attempt == TRIES - 1:
                raise
        except OSError:
            if attempt == TRIES - 1:
                raise
        time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
