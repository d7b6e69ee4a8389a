"""The files the stand-in leaves: real safetensors, an optimizer's state that is a zip, pictures."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zipfile
from array import array
from pathlib import Path

from tests.doubles.trainer.faults import Faults, die

RANK, WIDTH, LAYERS = 4, 32, 6

# The smallest JPEG there is; nobody looks at it.
PICTURE = bytes.fromhex("ffd8ffdb004300" + "01" * 64 + "ffc0000b080001000101011100ffda00080101003f00d2cfffd9")


def pack_weights(step: int, name: str, *, is_infinite: bool = False) -> bytes:
    """A LoRA whose numbers say of which step it is."""
    header: dict[str, object] = {"__metadata__": metadata(step, name)}
    data = bytearray()
    for layer in range(LAYERS):
        for part, shape in (("lora_down", [RANK, WIDTH]), ("lora_up", [WIDTH, RANK])):
            values = array("f", [step + layer / 16] * (RANK * WIDTH))
            if is_infinite and layer == 1:
                values[7] = float("inf")
            begin = len(data)
            data += values.tobytes()
            key = f"lora_unet_block_{layer}.{part}.weight"
            header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def metadata(step: int, name: str) -> dict[str, str]:
    """What the header says beside the tensors."""
    return {
        "format": "pt",
        "name": name,
        "ss_output_name": name,
        "ss_base_model_version": "sd_1.5",
        "training_info": json.dumps({"step": step, "epoch": step // 4}),
    }


def write_weights(path: Path, content: bytes, faults: Faults, step: int) -> None:
    """Renamed into place, as safetensors 0.8 does."""
    if faults.is_at("tear_weights_at", step):
        # As safetensors 0.7 and a kill leave it: cut short, under its final name.
        path.write_bytes(content[: len(content) // 2])
        die()
    part = path.with_name(f".tmp{os.getpid():06x}")
    part.touch(mode=0o600)
    part.write_bytes(content)
    os.replace(part, path)


def pack_optimizer(step: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("optimizer/data.pkl", json.dumps({"step": step}))
        archive.writestr("optimizer/data/0", bytes(4096))
    return packed.getvalue()


def write_optimizer(path: Path, step: int, faults: Faults, content: bytes | None = None) -> None:
    """Over the one before, growing in place, as torch.save does."""
    content = pack_optimizer(step) if content is None else content
    with path.open("wb") as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        if faults.is_at("tear_optimizer_at", step):
            die()
        if faults.is_at("optimizer_full_at", step):
            raise OSError(28, "No space left on device")
        time.sleep(faults.number("slow_save", 0.0))
        stream.write(content[len(content) // 2 :])


def read_optimizer(path: Path) -> int:
    """The step it is of. Raises `zipfile.BadZipFile`."""
    with zipfile.ZipFile(path) as archive:
        return int(json.loads(archive.read("optimizer/data.pkl"))["step"])


def read_step(path: Path) -> int:
    """Of a file of weights; raises `SafetensorError` as the library does."""
    content = path.read_bytes()
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        info = json.loads(header.pop("__metadata__")["training_info"])
        end = max(entry["data_offsets"][1] for entry in header.values())
    except (ValueError, KeyError, struct.error):
        raise SafetensorError("Error while deserializing header: invalid JSON in header") from None
    if 8 + length + end != len(content):
        raise SafetensorError("Error while deserializing header: incomplete metadata, file not fully covered")
    return int(info["step"])


class SafetensorError(Exception):
    pass


def is_picture(path: Path) -> bool:
    """Roughly: the magic numbers of its start and end."""
    content = path.read_bytes()
    ends = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8": b"\xff\xd9", b"RIFF": b""}
    return any(content.startswith(start) and content.endswith(end) for start, end in ends.items())
