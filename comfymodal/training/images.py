"""What one picture is, found by decoding it whole: a header alone says nothing of a file that was cut.

Needs Pillow, which is only on the operator's side. Nothing here decides whether a trait is a fault.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Trait = Literal["rotated", "animated", "transparent", "no_alpha", "cmyk", "deep_gray", "odd_format"]
"""`rotated` by its EXIF, `transparent` where any pixel is, `no_alpha` without such a channel at all, `deep_gray` for
one channel of more than 8 bits (a conversion to RGB clips it to white)."""

_SAME_EVERYWHERE = frozenset({"JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF"})
"""Formats that every release of Pillow reads. AVIF depends on its age."""
_OPENED = (*sorted(_SAME_EVERYWHERE), "AVIF", "ICO", "PPM")
"""No EPS: to decode one, Pillow has Ghostscript run what is in it."""
_DEEP = ("I", "F")
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
PLUGIN_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError),
    *(AssertionError, AttributeError, struct.error, zlib.error),
)
"""What Pillow's plugins raise for bytes that somebody made up or cut."""
_FLAT = 8
"""A thumbnail whose brightest and darkest of 256 steps lie closer than this looks like any other flat one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that decodes. `width` and `height` in pixels, upright as its EXIF says.

    `look` is 64 bits that stay nearly the same when a picture is scaled or saved again; None for a featureless one.
    """

    width: int
    height: int
    size_bytes: int
    sha256: str
    traits: frozenset[Trait]
    look: int | None


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that does not decode, and why in a few words. `sha256` is empty where it could not be read at all."""

    why: str
    size_bytes: int = 0
    sha256: str = ""


def read_picture(path: Path) -> Picture | Broken:
    """Decode one file whole. Raises nothing for what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Broken(f"it cannot be read ({error.strerror or error})")
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return Broken("it is empty", 0, sha256)
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        with pillow.open(io.BytesIO(data), formats=known_formats()) as image:
            return _picture(image, len(data), sha256)
    except UnidentifiedImageError:
        why = "it is no picture"
    except pillow.DecompressionBombError:
        why = "it has more pixels than Pillow opens"
    except MemoryError:
        why = "it does not fit into memory"
    except PLUGIN_ERRORS as error:
        why = _why(error)
    return Broken(why, len(data), sha256)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (large pictures, odd EXIF) off the screen, in all threads started inside."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def looks_alike(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= ALIKE_BITS


ALIKE_BITS = 3
"""Of 64: what scaling and saving again change."""


@cache
def known_formats() -> tuple[str, ...]:
    """Those of this Pillow: it takes no name that it does not know (MPO passes as JPEG)."""
    from PIL import Image as pillow

    pillow.init()
    return tuple(name for name in _OPENED if name in pillow.OPEN)


def _picture(image: Image, size_bytes: int, sha256: str) -> Picture:
    image.load()
    width, height = image.size
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation in _QUARTER_TURNS:
        width, height = height, width
    traits = frozenset(_traits(image, orientation))
    return Picture(width, height, size_bytes, sha256, traits, _look(image))


def _traits(image: Image, orientation: Any) -> Iterator[Trait]:
    if orientation in range(2, 9):
        yield "rotated"
    # A phone's JPEG (MPO) carries a second picture and does not move.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        yield "animated"
    if image.mode == "CMYK":
        yield "cmyk"
    if image.mode.startswith(_DEEP):
        yield "deep_gray"
    if image.format not in _SAME_EVERYWHERE:
        yield "odd_format"
    if not image.has_transparency_data:
        yield "no_alpha"
    elif _least_alpha(image) < 255:
        yield "transparent"


def _least_alpha(image: Image) -> int:
    with_alpha = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    least = with_alpha.getchannel("A").getextrema()[0]
    return int(least) if isinstance(least, int | float) else 255


def _look(image: Image) -> int | None:
    """Whether each pixel of a 9 by 8 thumbnail is brighter than its right neighbour (a "difference hash")."""
    if image.mode.startswith(_DEEP):
        return None
    from PIL.Image import Resampling

    plain = image if image.mode in ("RGB", "L") else image.convert("RGB")
    small = plain.resize((9, 8), Resampling.BOX, reducing_gap=1.0).convert("L").tobytes()
    if max(small) - min(small) < _FLAT:
        return None
    bits = 0
    for row in range(0, 72, 9):
        for column in range(row, row + 8):
            bits = bits << 1 | (small[column] > small[column + 1])
    return bits


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower():
        return "it was cut: its end is missing"
    return f"it does not decode ({text[:120] or type(error).__name__})"
