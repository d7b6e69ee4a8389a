"""`python -m tests.bench.sync_process ORDER.json OUTCOME.json`: one sync in a process of its own, to be measured."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from comfymodal.jobs import sync
from tests.doubles.storage_place import FolderPlace

if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text())
    outcome = sync.run(order["job"], FolderPlace(Path(order["root"]), os.environ))
    Path(sys.argv[2]).write_text(json.dumps(outcome))
