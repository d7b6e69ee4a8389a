"""Start a Python script as `python SCRIPT` would: with torchvision's missing operators declared first, or held back.

Runs in the engine's own Python: only the standard library and torch are there, nothing of ours may be imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

TORCHVISION_OPS = "torchvision-ops"

PRELOADED = ("torch", "numpy", "scipy", "PIL.Image", "aiohttp", "av", "safetensors.torch", "einops", "transformers")
"""What ComfyUI imports and takes longest; none of it looks for a GPU when imported."""

# A Library that is garbage collected takes its operators with it.
_libraries: list[Any] = []


def main(argv: Sequence[str]) -> None:
    """Run `[--shim NAME]... SCRIPT [ARGUMENT]...`, or `--hold FILE`: what the JSON list in FILE says, once it is there.

    Raises SystemExit for an unknown shim or no script.
    """
    rest = list(argv)
    if rest[:1] == ["--hold"]:
        rest = _hold(rest[1])
    while rest[:1] == ["--shim"]:
        _apply(rest[1] if len(rest) > 1 else "")
        del rest[:2]
    if not rest:
        raise SystemExit("usage: boot.py [--shim NAME]... SCRIPT [ARGUMENT]...")
    sys.argv[:] = rest
    sys.path[0] = os.path.dirname(os.path.abspath(rest[0]))
    runpy.run_path(rest[0], run_name="__main__")


def _hold(path: str) -> list[str]:
    """Import what takes long, then wait: a memory snapshot taken meanwhile saves everybody that time.

    A snapshot without a GPU must not have asked for one: CUDA remembers that there was none. So nothing of ComfyUI is
    imported here, and PyTorch is told to ask the driver's library instead, which remembers nothing.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in PRELOADED:
        # Which of them there are depends on ComfyUI's version; what is missing ComfyUI says better.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    print(f"held until {path} is there", flush=True)  # noqa: T201
    while not os.path.exists(path):
        time.sleep(0.01)
    with open(path, encoding="utf-8") as stream:
        found: list[str] = json.load(stream)
    return found


def _apply(name: str) -> None:
    if name != TORCHVISION_OPS:
        raise SystemExit(f"boot.py does not know the shim {name!r}")
    sys.meta_path.insert(0, _TorchvisionOps())


class _TorchvisionOps(importlib.abc.MetaPathFinder):
    """Declares nms and qnms just before torchvision is imported.

    A torchvision built for CUDA cannot load its operators beside a CPU torch, and its Python part then fails on
    "operator torchvision::nms does not exist". The schemas are enough: ComfyUI never calls them. Not done at start,
    because ComfyUI sets environment variables (which GPU, which allocator) before it imports torch itself.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision" and not _libraries:
            _declare_operators()
        return None


def _declare_operators() -> None:
    torch: Any = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    main(sys.argv[1:])
