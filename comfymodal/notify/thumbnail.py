"""A small JPEG of a picture, for a message. Needs Pillow, which is only on the operator's side."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

from comfymodal.notify.message import Picture

SIDE = 512
"""Pixels of the longer side."""

_MOST_BYTES = 64 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
"""No EPS: to decode one, Pillow has Ghostscript run what is in it."""

_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError),
    *(AssertionError, AttributeError, struct.error, zlib.error, MemoryError),
)
"""What Pillow's plugins raise for bytes that somebody made up or cut."""


def thumbnail(path: Path, title: str) -> Picture | None:
    """The first frame, scaled down; None for what is too large or no picture: a message goes without it."""
    from PIL import Image as pillow

    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        with warnings.catch_warnings():
            # Of large pictures and odd EXIF Pillow warns on the operator's screen.
            warnings.simplefilter("ignore")
            with pillow.open(path, formats=_FORMATS) as image:
                image.thumbnail((SIDE, SIDE))
                small = pillow.new("RGB", image.size, "white")
                with_alpha = image.convert("RGBA")
                small.paste(with_alpha, mask=with_alpha.getchannel("A"))
        data = io.BytesIO()
        small.save(data, "JPEG", quality=85)
    except (*_ERRORS, pillow.DecompressionBombError):
        return None
    return Picture(f"{path.stem[:60]}.jpg", title, data.getvalue())
