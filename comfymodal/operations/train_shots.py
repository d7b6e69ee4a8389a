"""Pictures for a page: scaled down, as JPEG in a `data:` URI. Needs Pillow, which is only on the operator's side."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.operations.train_report_results import Shot
from comfymodal.training.images import Broken, quiet_pillow, read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 82
_PAPER = (255, 255, 255)


def shot_of(path: Path, edge: int) -> Shot:
    """The picture with its longer edge at most `edge` pixels; of one that moves its first frame."""
    with quiet_pillow():
        # Decoded whole first: what is cut would be half a picture, and half of it grey.
        if isinstance(read_picture(path), Broken):
            return Shot(path.name, None)
        from PIL import Image as pillow

        with pillow.open(path) as image:
            small = _flat(image)
            small.thumbnail((edge, edge))
            data = io.BytesIO()
            small.save(data, "JPEG", quality=QUALITY, optimize=True)
    text = base64.b64encode(data.getvalue()).decode("ascii")
    return Shot(path.name, f"data:image/jpeg;base64,{text}", *small.size)


def _flat(image: Image) -> Image:
    """In RGB, what shines through on white."""
    from PIL import Image as pillow

    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    paper = pillow.new("RGB", layered.size, _PAPER)
    paper.paste(layered, mask=layered.getchannel("A"))
    return paper
