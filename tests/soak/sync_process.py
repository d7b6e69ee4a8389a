"""`python -m tests.soak.sync_process JOB.json`: one sync in a process of its own, for tests to kill."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from comfymodal.jobs import sync
from tests.doubles.storage_place import FolderPlace

if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    print("begin", flush=True)
    sync.run(asked["job"], FolderPlace(Path(asked["root"]), os.environ))
