"""Stands where a checkout of ai-toolkit has its run.py."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.doubles.tiny_toolkit.process import LoraProcess
    from tests.doubles.trainer.main import main

    main(sys.argv[1:], LoraProcess)
