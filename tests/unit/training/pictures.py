"""Pictures for tests, made on the spot: unlike each other unless asked for alike."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

Size = tuple[int, int]


def picture(seed: int = 0, size: Size = (64, 64), mode: str = "RGB") -> Image.Image:
    """A coarse pattern of `seed`, scaled up: its look depends on nothing else."""
    dice = random.Random(seed)
    small = Image.new("RGB", (9, 8))
    small.putdata([(dice.randrange(256), dice.randrange(256), dice.randrange(256)) for _ in range(72)])
    large = small.resize(size, Image.Resampling.NEAREST)
    return large if mode == "RGB" else large.convert(mode)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def add(folder: Path, name: str, caption: str | None = "a photo of p3r5on", *, seed: int | None = None) -> Path:
    """A picture of 512 x 512 with its caption, unlike those of other names."""
    number = zlib.crc32(name.encode()) if seed is None else seed
    path = save(folder / name, picture(number, (512, 512)))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def fill(folder: Path, count: int = 6) -> Path:
    """A sound dataset."""
    for number in range(count):
        add(folder, f"{number:03}.png")
    return folder


def deep_gray_png(value: int, edge: int = 16) -> bytes:
    """A PNG of one channel of 16 bits, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">H", value) * edge) * edge
    header = struct.pack(">IIBBBBB", edge, edge, 16, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
