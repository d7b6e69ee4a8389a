from __future__ import annotations

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfymodal.errors import InputFileError
from comfymodal.storage.safetensors import MAX_HEADER_BYTES, ModelFacts, read_facts

WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}


def describe(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header


def pack(header: Any, *, data: int | None = None, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if data is None and isinstance(header, dict):
        data = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data or 0)


def facts(content: bytes, name: str = "loras/a.safetensors") -> ModelFacts:
    return read_facts(name, len(content), lambda start, count: content[start : start + count])


LORA = {
    "unet.lora_A.weight": ("BF16", [16, 320]),
    "unet.lora_B.weight": ("BF16", [320, 16]),
    "te.alpha": ("F32", []),
}


def test_tensors_parameters_and_types_are_counted() -> None:
    found = facts(pack(describe(LORA)))

    assert (found.format, found.tensors, found.parameters) == ("safetensors", 3, 2 * 16 * 320 + 1)
    assert found.dtypes == {"BF16": 10240, "F32": 1}


def test_what_a_trainer_wrote_is_read() -> None:
    tags = {"1_anna": {"anna": 20, "smile ": 3}, "2_anna": {"anna": 5, "hat": 4}}
    found = facts(
        pack(
            describe(
                LORA,
                {
                    "ss_base_model_version": "sdxl_base_v1-0",
                    "ss_network_dim": "32",
                    "ss_network_alpha": "16.0",
                    "ss_tag_frequency": json.dumps(tags),
                    "ss_steps": "1500",
                    "ss_resolution": "(1024, 1024)",
                    "ss_output_name": "anna",
                    "sshs_model_hash": "AB" * 32,
                },
            )
        )
    )

    assert (found.base_model, found.rank, found.alpha, found.steps) == ("sdxl_base_v1-0", 32, 16.0, 1500)
    assert (found.title, found.resolution, found.sha256) == ("anna", "(1024, 1024)", "ab" * 32)
    assert found.trigger_words == ("anna", "hat", "smile")


def test_the_model_spec_is_read_first() -> None:
    found = facts(
        pack(
            describe(
                LORA,
                {
                    "modelspec.title": "Anna",
                    "ss_output_name": "other",
                    "modelspec.architecture": "flux-1-dev/lora",
                    "modelspec.trigger_phrase": "a photo of anna",
                    "modelspec.resolution": "1024x1024",
                    "modelspec.hash_sha256": "0x" + "cd" * 32,
                    "ss_tag_frequency": "{}",
                },
            )
        )
    )

    assert (found.title, found.base_model, found.trigger_words) == ("Anna", "flux-1-dev/lora", ("a photo of anna",))
    assert (found.resolution, found.sha256) == ("1024x1024", "cd" * 32)


def test_what_ai_toolkit_writes_is_read() -> None:
    found = facts(pack(describe(LORA, {"training_info": '{"step": 2000, "epoch": 5}', "name": "anna_lora"})))

    assert (found.steps, found.title) == (2000, "anna_lora")


def test_rank_is_taken_from_shapes_where_nobody_wrote_it() -> None:
    keys = {"a.lora_down.weight": ("F16", [8, 4]), "b.lora_down.weight": ("F16", [8, 4]), "c.alpha": ("F16", [])}
    found = facts(pack(describe(keys)))

    assert (found.is_lora, found.rank, found.alpha) == (True, 8, None)


def test_a_checkpoint_is_no_lora() -> None:
    assert facts(pack(describe({"model.weight": ("F16", [2, 2])}))).is_lora is False


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_tag_frequency": "[[[", "ss_network_dim": "NaN", "ss_steps": "many", "sshs_model_hash": "zz"},
        {"ss_tag_frequency": '{"1": ["a"]}', "ss_network_alpha": "1e999", "training_info": "[]"},
        {"ss_tag_frequency": '{"1": {"a": -1, "b": "x", "c": true}}', "modelspec.title": "  "},
        {"not": {"a": "text"}},
    ],
)
def test_odd_metadata_is_no_error(metadata: dict[str, Any]) -> None:
    found = facts(pack(describe({"w": ("F16", [1])}, metadata)))

    assert (found.rank, found.alpha, found.steps, found.sha256, found.title) == (None, None, None, None, None)


def entry(begin: int, end: int, shape: Any = None, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "too few for a header", id="empty"),
        pytest.param(b"\0\0\0", "too few for a header", id="three bytes"),
        pytest.param(struct.pack("<Q", 2**63) + b"{}", "header has 9223372036854775808 bytes", id="2**63"),
        pytest.param(struct.pack("<Q", 100) + b"{}", "and has 10 in all", id="longer than the file"),
        pytest.param(pack(b"{]"), "no JSON", id="bad JSON"),
        pytest.param(pack(b"[" * 100_000), "no JSON", id="deep JSON"),
        pytest.param(pack(b'{"a": 1e99999999999, "a": 2}'), "no JSON", id="a key twice"),
        pytest.param(pack(b"\xff\xfe"), "no JSON", id="no text"),
        pytest.param(pack(b"[]"), "no JSON object", id="a list"),
        pytest.param(pack({"__metadata__": 5}, data=0), "metadata is no mapping", id="metadata"),
        pytest.param(pack(json.dumps({"w": {"dtype": "F16"}}).encode()), "is not described", id="half an entry"),
        pytest.param(pack(json.dumps({"w": 5}).encode()), "is not described", id="a number for an entry"),
        pytest.param(pack({"w": entry(0, 4, [-2])}), "impossible", id="negative shape"),
        pytest.param(pack({"w": entry(0, 4, [1.5])}), "impossible", id="broken shape"),
        pytest.param(pack({"w": entry(0, 4, [2**70])}), "impossible", id="huge shape"),
        pytest.param(pack({"w": entry(0, 4, [1] * 100)}), "impossible", id="too many dimensions"),
        pytest.param(pack({"w": entry(0, 4, [3])}), "size of its shape", id="size"),
        pytest.param(pack({"a": entry(0, 4), "b": entry(2, 6)}), "overlap", id="overlap"),
        pytest.param(pack({"w": entry(0, 8)}, data=3), "5 bytes are missing at its end", id="cut"),
    ],
)
def test_damaged_and_hostile_files_are_one_clear_error(content: bytes, said: str) -> None:
    with pytest.raises(InputFileError, match="no sound safetensors file") as caught:
        facts(content)

    assert said in caught.value.message
    assert caught.value.exit_code == 3


def test_a_header_beyond_the_formats_limit_is_not_read() -> None:
    asked: list[int] = []
    size = MAX_HEADER_BYTES + 100

    def read(start: int, count: int) -> bytes:
        asked.append(count)
        return struct.pack("<Q", MAX_HEADER_BYTES + 1)[start : start + count]

    with pytest.raises(InputFileError):
        read_facts("a.safetensors", size, read)
    assert max(asked) < 100


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "a web page"),
        (b'{"error":"Unauthorized","message":"log in"}', "a web page or a message"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "a Git LFS pointer"),
    ],
)
def test_what_a_download_left_in_its_place_is_told(content: bytes, said: str) -> None:
    with pytest.raises(InputFileError, match=said):
        facts(content)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("checkpoints/a.ckpt", b"PK\x03\x04" + bytes(40), "pickle"),
        ("vae/a.pt", b"\x80\x02", "pickle"),
        ("loras/strange.weights", b"\x80\x02" + bytes(30), "pickle"),
        ("upscale_models/a.onnx", bytes(40), "unknown"),
        ("diffusion_models/a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 291, 20), "gguf"),
    ],
)
def test_other_formats_are_named_and_not_opened(name: str, content: bytes, expected: str) -> None:
    found = facts(content, name)

    assert found.format == expected
    assert found.tensors == (291 if expected == "gguf" else None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_are_more_than_an_error(content: bytes, is_framed: bool) -> None:
    with contextlib.suppress(InputFileError):
        facts(pack(content) if is_framed else content)
