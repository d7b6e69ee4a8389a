"""Tiny wheels that stand in for torch, its companions and what they need: same names, same faults, no weight."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

TORCH = """
from types import SimpleNamespace
class Library:
    defined = []
    def __init__(self, namespace, kind): self.namespace = namespace
    def define(self, schema): Library.defined.append(f"{self.namespace}::{schema.partition('(')[0]}")
library = SimpleNamespace(Library=Library)
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
__version__ = "2.13.0"
"""
TORCHVISION = """
import torch
for name in ("nms", "qnms"):
    if f"torchvision::{name}" not in torch.library.Library.defined:
        raise RuntimeError(f"operator torchvision::{name} does not exist")
"""
TORCHAUDIO = """
from pathlib import Path
for library in (Path(__file__).parent / "lib").glob("*.so"):
    raise OSError("libc10_cuda.so: cannot open shared object file: No such file or directory")
"""
MAIN = "import json, sys, torchvision; print(json.dumps([sys.argv[1:], sys.prefix]))"
"""A main.py that needs the whole environment and ends at once."""


def fill_shelf(shelf: Path) -> None:
    """Put torch, torchvision, torchaudio, requests and tinydep there, with a lock of tinydep."""
    # Enough files for a kill to fall into their installation.
    many = {f"tinydep/part_{number}.py": f"x = {number}\n" for number in range(400)}
    lock = write_wheel(shelf, "tinydep", "1.0", many | {"tinydep/__init__.py": "y = 1\n"})
    (shelf / "tinydep.lock").write_text(lock)
    write_wheel(shelf, "requests", "2.0", {"requests/__init__.py": ""})
    write_wheel(shelf, "torch", "2.13.0", {"torch/__init__.py": TORCH}, requires="tinydep")
    write_wheel(shelf, "torchvision", "0.28.0", {"torchvision/__init__.py": TORCHVISION}, requires="torch==9")
    audio = {"torchaudio/__init__.py": TORCHAUDIO, "torchaudio/lib/_torchaudio.so": "not for this torch"}
    write_wheel(shelf, "torchaudio", "2.11.0", audio)


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], *, requires: str = "") -> str:
    """Write a wheel and return its line for a lock."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = files | {
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
