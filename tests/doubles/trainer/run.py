"""Stands where a checkout of ai-toolkit has its run.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    runpy.run_module("tests.doubles.trainer.main", run_name="__main__")
