from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.training.weights import DamagedError, count_not_finite, read_weights, require_archive
from tests.doubles.trainer.faults import Faults
from tests.doubles.trainer.files import pack_weights, write_optimizer

NONE = Faults({})


def write(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_sound_file_tells_its_step(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_weights(17, "a"))

    found = read_weights(path)

    assert (found.step, found.tensors, found.not_finite) == (17, 12, ())


def test_tensors_with_an_infinity_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_weights(17, "a", is_infinite=True))

    assert read_weights(path).not_finite == (
        "lora_unet_block_1.lora_down.weight",
        "lora_unet_block_1.lora_up.weight",
    )


@pytest.mark.parametrize("kept", [0, 7, 8, 300, -1])
def test_a_file_that_was_cut_is_damaged(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_weights(17, "a")[:kept])

    with pytest.raises(DamagedError):
        read_weights(path)


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": tensor("F32", [2], 0, 8)}, bytes(9), "too many"),
        ({"a": tensor("F32", [3], 0, 8)}, bytes(8), "size of its shape"),
        ({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 8, 12)}, bytes(12), "where the one before"),
        ({"a": {"dtype": "F32"}}, bytes(4), "not described"),
        ({"__metadata__": {}}, b"", "no tensors"),
        (b"[]", b"", "no JSON object"),
        (b"{", b"", "no JSON"),
    ],
)
def test_what_does_not_fit_together_is_damaged(tmp_path: Path, header: Any, data: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        read_weights(write(tmp_path / "a.safetensors", header, data))


@given(st.lists(st.floats(width=32), max_size=40))
def test_every_float_is_judged_as_it_is(values: list[float]) -> None:
    expected = sum(not math.isfinite(value) for value in values)

    assert count_not_finite(struct.pack(f"<{len(values)}f", *values), "F32") == expected
    assert count_not_finite(struct.pack(f"<{len(values)}d", *values), "F64") == expected
    # The upper half of a float32 is a bfloat16.
    halves = b"".join(struct.pack("<f", value)[2:] for value in values if math.isfinite(value) or math.isinf(value))
    assert count_not_finite(halves, "BF16") == sum(math.isinf(value) for value in values)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_half_there_is_is_judged_as_it_is(dtype: str) -> None:
    def is_finite(bits: int) -> bool:
        if dtype == "F16":
            return math.isfinite(struct.unpack("<e", struct.pack("<H", bits))[0])
        return math.isfinite(struct.unpack("<f", struct.pack("<I", bits << 16))[0])

    for first in range(0, 65536, 4096):
        bits = range(first, first + 4096)
        expected = sum(not is_finite(each) for each in bits)
        assert count_not_finite(struct.pack("<4096H", *bits), dtype) == expected


def test_one_bad_number_in_a_large_tensor_is_found(tmp_path: Path) -> None:
    count = 3 * 2**19 + 5
    data = bytearray(random.Random(6).randbytes(2 * count))
    for at in range(1, len(data), 2):
        data[at] &= 0x3B
    struct.pack_into("<e", data, 2 * (count - 1), math.nan)

    path = write(tmp_path / "a.safetensors", {"a": tensor("F16", [count], 0, 2 * count)}, bytes(data))

    assert read_weights(path).not_finite == ("a",)


def test_an_optimizer_that_was_cut_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"
    write_optimizer(path, 5, NONE)
    require_archive(path)
    whole = path.read_bytes()

    for kept in (0, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(DamagedError):
            require_archive(path)


def test_an_optimizer_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"
    write_optimizer(path, 5, NONE)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)

    with pytest.raises(DamagedError, match="damaged"):
        require_archive(path)
