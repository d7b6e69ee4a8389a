"""Pictures for a page: scaled down, as JPEG in a `data:` URI. Needs Pillow, which is only on the operator's side."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.operations.train_report_results import Shot
from comfymodal.training.images import PLUGIN_ERRORS, known_formats, quiet_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 82
_PAPER = (255, 255, 255)


def shot_of(path: Path, edge: int) -> Shot:
    """The picture with its longer edge at most `edge` pixels; of one that moves its first frame."""
    from PIL.Image import DecompressionBombError

    data = io.BytesIO()
    try:
        with quiet_pillow():
            size = _write_small(path, edge, data)
    except (DecompressionBombError, MemoryError, *PLUGIN_ERRORS):
        return Shot(path.name, None)
    text = base64.b64encode(data.getvalue()).decode("ascii")
    return Shot(path.name, f"data:image/jpeg;base64,{text}", *size)


def _write_small(path: Path, edge: int, data: io.BytesIO) -> tuple[int, int]:
    from PIL import Image as pillow

    with pillow.open(path, formats=known_formats()) as image:
        # A JPEG is decoded no larger than need be, which takes a fraction of the time.
        image.draft("RGB", (edge, edge))
        small = _flat(image)
    small.thumbnail((edge, edge))
    small.save(data, "JPEG", quality=QUALITY, optimize=True)
    return small.size


def _flat(image: Image) -> Image:
    """In RGB, what shines through on white."""
    from PIL import Image as pillow

    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    paper = pillow.new("RGB", layered.size, _PAPER)
    paper.paste(layered, mask=layered.getchannel("A"))
    return paper
