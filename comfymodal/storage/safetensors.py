"""What a model file says of itself: the header of a safetensors file, and nothing of its weights.

The header is somebody else's text: sizes and offsets are checked before anything is believed. Pickles are not opened:
loading one can run code.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from comfymodal.errors import InputFileError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_MAX_DIMENSIONS = 64
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
    **{"U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32},
    **{"U64": 64, "I64": 64, "F64": 64, "C64": 64},
}
_PICKLES = (".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")
_SAFETENSORS = (".safetensors", ".sft")
_LORA_DOWN = re.compile(r"(?:lora_down|lora\.down|lora_A)(?:\.[\w-]+)?\.weight$")

Format = Literal["safetensors", "gguf", "pickle", "unknown"]

ReadAt = Callable[[int, int], bytes]
"""`read(start, count)`: those bytes of the file, fewer at its end."""


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known without reading weights; None and empty where the file does not say."""

    format: Format
    tensors: int | None = None
    parameters: int | None = None
    dtypes: Mapping[str, int] | None = None
    """Parameters by type of number."""
    is_lora: bool | None = None
    title: str | None = None
    base_model: str | None = None
    rank: int | None = None
    alpha: float | None = None
    trigger_words: tuple[str, ...] = ()
    steps: int | None = None
    resolution: str | None = None
    sha256: str | None = None
    """As the file claims; of the tensors alone where a trainer wrote it."""
    metadata: Mapping[str, str] | None = None


def read_facts(name: str, size_bytes: int, read: ReadAt) -> ModelFacts:
    """Raises `InputFileError` for a safetensors file that is damaged or none, and what `read` raises."""
    start = read(0, 24)
    extension = f".{name.lower().rpartition('.')[2]}"
    if extension in _SAFETENSORS:
        return _described(read_header(name, size_bytes, read))
    if start.startswith(b"GGUF") and len(start) == 24:
        return ModelFacts("gguf", tensors=int(struct.unpack_from("<Q", start, 8)[0]))
    is_pickle = extension in _PICKLES or start.startswith(b"\x80")
    return ModelFacts("pickle" if is_pickle else "unknown")


def read_header(name: str, size_bytes: int, read: ReadAt) -> Header:
    """Raises `InputFileError`; reads 8 bytes and the header."""
    start = read(0, 8)
    if len(start) < 8:
        raise _damaged(name, f"it has {size_bytes} bytes, too few for a header")
    length = int(struct.unpack("<Q", start)[0])
    if length > MAX_HEADER_BYTES or 8 + length > size_bytes:
        raise _no_header(name, start, length, size_bytes)
    text = read(8, length)
    if len(text) < length:
        raise _damaged(name, "it ends within its header")
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise _damaged(name, "its header is no JSON") from None
    if not isinstance(document, dict):
        raise _damaged(name, "its header is no JSON object")
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(name, "its metadata is no mapping")
    tensors = _tensors(name, document, size_bytes - 8 - length)
    return Header(
        tensors, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )


def _tensors(name: str, document: Mapping[str, Any], data_bytes: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for key, value in document.items():
        tensor, begin, end = _tensor(name, key, value)
        if end > data_bytes:
            raise _damaged(name, f"{end - data_bytes} bytes are missing at its end: it was cut")
        found[key] = tensor
        spans.append((begin, end, key))
    for (_, end, one), (begin, _, other) in itertools.pairwise(sorted(spans)):
        if begin < end:
            raise _damaged(name, f"the tensors {_short(one)} and {_short(other)} overlap")
    return found


def _tensor(name: str, key: str, value: Any) -> tuple[Tensor, int, int]:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _damaged(name, f"the tensor {_short(key)} is not described") from None
    numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
    if not isinstance(dtype, str) or len(numbers) > _MAX_DIMENSIONS or not all(_is_count(each) for each in numbers):
        raise _damaged(name, f"the tensor {_short(key)} has an impossible type, shape or place")
    tensor = Tensor(dtype, tuple(shape))
    bits = _BITS.get(dtype)
    if begin > end or (bits is not None and (tensor.parameters * bits + 7) // 8 != end - begin):
        raise _damaged(name, f"the tensor {_short(key)} does not have the size of its shape")
    return tensor, begin, end


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_header(name: str, start: bytes, length: int, size_bytes: int) -> InputFileError:
    again = "download it again: comfymodal models add"
    if start.startswith((b"version ", b"<", b"{")):
        what = "a Git LFS pointer" if start.startswith(b"version ") else "a web page or a message"
        return InputFileError(f"{name} is no model: it is {what} that a download left in its place", hint=again)
    return _damaged(name, f"it says that its header has {length} bytes, and has {size_bytes} in all")


def _damaged(name: str, why: str) -> InputFileError:
    return InputFileError(
        f"{name} is no sound safetensors file: {why}", hint="download it again: comfymodal models add", path=name
    )


def _short(key: str) -> str:
    return repr(key if len(key) <= 80 else f"{key[:80]}...")


def _described(header: Header) -> ModelFacts:
    metadata = header.metadata
    dtypes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        dtypes[tensor.dtype] += tensor.parameters
    ranks = Counter(
        tensor.shape[0] for key, tensor in header.tensors.items() if tensor.shape and _LORA_DOWN.search(key)
    )
    return ModelFacts(
        "safetensors",
        tensors=len(header.tensors),
        parameters=sum(dtypes.values()),
        dtypes=dict(dtypes.most_common()),
        is_lora=bool(ranks) or "ss_network_dim" in metadata,
        title=_first(metadata, "modelspec.title", "ss_output_name", "name"),
        base_model=_first(
            metadata, "modelspec.base_model", "ss_base_model_version", "modelspec.architecture", "ss_sd_model_name"
        ),
        rank=_whole(metadata.get("ss_network_dim")) or (ranks.most_common(1)[0][0] if ranks else None),
        alpha=_number(metadata.get("ss_network_alpha")),
        trigger_words=_trigger_words(metadata),
        steps=_steps(metadata),
        resolution=_first(metadata, "modelspec.resolution", "ss_resolution"),
        sha256=_hash(metadata),
        metadata=dict(metadata),
    )


def _first(metadata: Mapping[str, str], *keys: str) -> str | None:
    return next((text for key in keys if (text := metadata.get(key, "").strip()) and text != "None"), None)


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    if phrase := _first(metadata, "modelspec.trigger_phrase"):
        return (phrase,)
    counts: Counter[str] = Counter()
    datasets = _json(metadata.get("ss_tag_frequency"))
    for tags in datasets.values() if isinstance(datasets, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            counts[tag.strip()] += count if _is_count(count) else 0
    return tuple(tag for tag, _ in counts.most_common(10) if tag)


def _steps(metadata: Mapping[str, str]) -> int | None:
    # ai-toolkit writes how far it was into a JSON text of its own.
    info = _json(metadata.get("training_info"))
    step = info.get("step") if isinstance(info, dict) else None
    return _whole(metadata.get("ss_steps")) or (step if _is_count(step) else None)


def _hash(metadata: Mapping[str, str]) -> str | None:
    text = (_first(metadata, "modelspec.hash_sha256", "sshs_model_hash") or "").lower().removeprefix("0x")
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number.is_integer() and number > 0 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
