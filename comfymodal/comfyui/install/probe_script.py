"""Say which of the named modules fail to import and what torch can compute on, as one line of JSON.

Runs in the engine's own Python (`boot.py [--shim NAME]... probe_script.py MODULE...`): nothing of ours may be imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def main(modules: list[str]) -> None:
    """Print `{"device": ..., "torch": ..., "failures": {module: "ErrorType: text"}}` as the last line."""
    # This folder's file names must not answer for other people's imports.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    failures: dict[str, str] = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as exc:  # noqa: BLE001 - whatever a foreign module raises is the answer
            failures[module] = f"{type(exc).__name__}: {exc}"
    torch = sys.modules.get("torch")
    found = {"device": _device(torch), "torch": getattr(torch, "__version__", ""), "failures": failures}
    sys.stdout.write(json.dumps(found) + "\n")


def _device(torch: Any) -> str:
    if torch is None:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    # Older builds have no torch.xpu at all.
    return "xpu" if hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu"


if __name__ == "__main__":
    main(sys.argv[1:])
