"""Whether a file of trained weights is whole and finite: standard library only, every number looked at.

A trainer whose loss is NaN goes on and saves; a kill leaves a file cut short. Neither may be gone on from.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_CHUNK_BYTES = 1 << 20

_EXPONENTS = {
    "F64": (64, 0x7FF0000000000000),
    "F32": (32, 0x7F800000),
    "BF16": (16, 0x7F80),
    "F16": (16, 0x7C00),
    "F8_E5M2": (8, 0x7C),
    # Has no infinity; all bits but the sign are its only NaN.
    "F8_E4M3": (8, 0x7F),
}
"""By type of number: its width in bits, and the bits that are all ones in a NaN or an infinity and in nothing else."""

_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "F8_E8M0": 8}
_BITS |= {dtype: bits for dtype, (bits, _) in _EXPONENTS.items()}


class DamagedError(Exception):
    """The file is no whole file of its kind; the message says why, without the file's name."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a sound file says. `step` is None when the trainer did not write it."""

    tensors: int
    step: int | None
    not_finite: tuple[str, ...]
    """Names of tensors that hold NaN or infinities."""


@dataclass(frozen=True, slots=True)
class _Span:
    name: str
    dtype: str
    begin: int
    end: int


def read_weights(path: Path) -> Weights:
    """Read a safetensors file to its end. Raises `DamagedError`, and `OSError` when it cannot be read.

    About two seconds per gigabyte: numbers are looked at a megabyte at a time, see `_count_not_finite`.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        document, data_at = _header(stream, size)
        metadata = document.pop("__metadata__", {})
        spans = sorted(_spans(document), key=lambda span: span.begin)
        _require_whole(spans, size - data_at)
        bad = tuple(span.name for span in spans if _is_not_finite(stream, span, data_at))
    return Weights(len(spans), _step(metadata), bad)


def require_archive(path: Path) -> None:
    """A file torch saved is a zip archive, whose end is written last. Raises `DamagedError` and `OSError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as exc:
        raise DamagedError(f"it is no whole archive ({exc})") from None
    if torn is not None:
        raise DamagedError(f"its part {torn!r} is damaged")


def _header(stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    start = stream.read(8)
    if len(start) < 8:
        raise DamagedError(f"it has {size} bytes, too few for a header")
    length = int(struct.unpack("<Q", start)[0])
    if length > MAX_HEADER_BYTES or 8 + length > size:
        raise DamagedError(f"it says that its header has {length} bytes, and has {size} in all")
    try:
        document = json.loads(stream.read(length))
    except (ValueError, RecursionError):
        raise DamagedError("its header is no JSON") from None
    if not isinstance(document, dict):
        raise DamagedError("its header is no JSON object")
    return document, 8 + length


def _spans(document: dict[str, Any]) -> Iterator[_Span]:
    for name, value in document.items():
        try:
            dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
            count = 1
            for width in shape:
                count *= width
            is_sound = isinstance(dtype, str) and 0 <= begin <= end and all(width >= 0 for width in shape)
        except (TypeError, KeyError, ValueError):
            raise DamagedError(f"the tensor {name[:80]!r} is not described") from None
        bits = _BITS.get(dtype) if isinstance(dtype, str) else None
        if not is_sound or (bits is not None and count * bits != (end - begin) * 8):
            raise DamagedError(f"the tensor {name[:80]!r} does not have the size of its shape")
        yield _Span(name, dtype, begin, end)


def _require_whole(spans: list[_Span], data_bytes: int) -> None:
    at = 0
    for span in spans:
        if span.begin != at:
            raise DamagedError(f"the tensor {span.name[:80]!r} is not where the one before it ends")
        at = span.end
    if at > data_bytes:
        raise DamagedError(f"{at - data_bytes} bytes are missing at its end")
    if at < data_bytes:
        raise DamagedError(f"{data_bytes - at} bytes too many are at its end")
    if not spans:
        raise DamagedError("it holds no tensors")


def _is_not_finite(stream: BinaryIO, span: _Span, data_at: int) -> bool:
    if span.dtype not in _EXPONENTS:
        return False
    stream.seek(data_at + span.begin)
    left = span.end - span.begin
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise DamagedError("it became shorter while it was read")
        if count_not_finite(chunk, span.dtype):
            return True
        left -= len(chunk)
    return False


def count_not_finite(data: bytes, dtype: str) -> int:
    """How many of the numbers in `data` are NaN or infinite.

    All of them at once, as one large integer: the lowest exponent bit is added to each number's exponent. It carries
    into the place of the sign, which was cleared, only where the exponent was all ones; never into the next number.
    """
    bits, exponent = _EXPONENTS[dtype]
    lanes = len(data) * 8 // bits
    exponents = int.from_bytes(data, "little") & _repeated(exponent, bits, lanes)
    carried = exponents + _repeated(exponent & -exponent, bits, lanes)
    return (carried & _repeated(1 << (bits - 1), bits, lanes)).bit_count()


_patterns: dict[tuple[int, int, int], int] = {}


def _repeated(value: int, bits: int, lanes: int) -> int:
    if (found := _patterns.get((value, bits, lanes))) is not None:
        return found
    pattern = int.from_bytes(value.to_bytes(bits // 8, "little") * lanes, "little")
    if lanes * bits == _CHUNK_BYTES * 8:
        # Chunks of full size are nearly all there are; the odd ends would only fill the memory.
        _patterns[value, bits, lanes] = pattern
    return pattern


def _step(metadata: Any) -> int | None:
    if not isinstance(metadata, dict):
        return None
    for key, inner in (("training_info", "step"), ("ss_steps", None)):
        try:
            value = json.loads(metadata[key])
            step = value[inner] if inner else value
        except (KeyError, TypeError, ValueError):
            continue
        if isinstance(step, int) and not isinstance(step, bool):
            return step
    return None
