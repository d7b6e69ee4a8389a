from __future__ import annotations

import random
import re
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import pytest

from comfymodal.runs.names import NOT_RENDERS, media_type_of, name_outputs, new_run_id
from comfymodal.storage.filters import compile_glob

FIELDS = {"run_id": "261121-093012-k7f3", "prompt": 0, "seed": 42, "workflow": "portrait"}


def output(name: str = "img_00001_.png", **more: Any) -> dict[str, Any]:
    return {"name": name, "node_id": "9", "title": "Save Image", "class_type": "SaveImage", **more}


def named(*outputs: dict[str, Any], template: str = "{stem}{ext}") -> list[str]:
    return [str(path) for _, path in name_outputs(outputs, template=template, fields=FIELDS)]


def test_a_run_id_sorts_by_time() -> None:
    ids = [new_run_id(at) for at in (1795225998.0, 1795225999.0, 1795226000.9, 1795312400.0)]
    assert ids == sorted(ids)
    assert [run_id[:-4] for run_id in ids[:2]] == ["261121-015318-", "261121-015319-"]
    assert all(re.fullmatch(r"\d{6}-\d{6}-[a-z2-9]{4}", run_id) for run_id in ids)


def test_an_id_tells_what_is_no_render() -> None:
    render, other = new_run_id(1795225998.0), new_run_id(1795225998.0, "sync")
    assert re.fullmatch(r"261121-015318-sync-[a-z2-9]{4}", other)
    pattern = compile_glob(f"/runs/{NOT_RENDERS}/**")
    assert pattern.fullmatch(f"runs/{other}/job.json")
    assert not pattern.fullmatch(f"runs/{render}/job.json")


def test_run_ids_of_one_second_differ() -> None:
    assert len({new_run_id(0.0) for _ in range(200)}) > 190


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{stem}{ext}", "img_00001_.png"),
        ("{workflow}-{seed}{ext}", "portrait-42.png"),
        ("{run_id}/{node_id}-{title}{ext}", "261121-093012-k7f3/9-Save Image.png"),
        ("{class_type}_{index:03}{ext}", "SaveImage_000.png"),
        ("{prompt}{ext}", "0.png"),
        ("fixed.png", "fixed.png"),
        ("a{{b}}{ext}", "a{b}.png"),
    ],
)
def test_a_template_is_filled_from_the_output_and_the_run(template: str, name: str) -> None:
    assert named(output(), template=template) == [name]


def test_outputs_are_paired_with_their_names_in_order() -> None:
    first, second = output("a.png"), output("b.png")
    pairs = list(name_outputs([first, second], template="{index}{ext}", fields=FIELDS))
    assert [(pair[0], str(pair[1])) for pair in pairs] == [(first, "0.png"), (second, "1.png")]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        pytest.param(["a.png", "a.png", "a.png"], ["a.png", "a-2.png", "a-3.png"], id="same"),
        pytest.param(["a.png", "A.PNG"], ["a.png", "A-2.PNG"], id="case only"),
        pytest.param(["ä.png", "Ä.png"], ["ä.png", "Ä-2.png"], id="case only, beyond ASCII"),
        pytest.param(["a.png", "a-2.png", "a.png"], ["a.png", "a-2.png", "a-3.png"], id="a number that is taken"),
        pytest.param(["a", "a"], ["a", "a-2"], id="no extension"),
        pytest.param(["a.tar.gz", "a.tar.gz"], ["a.tar.gz", "a.tar-2.gz"], id="two extensions"),
        pytest.param(["a.png", "a.jpg"], ["a.png", "a.jpg"], id="other extension"),
        pytest.param(["receipt.json"], ["receipt-2.json"], id="the receipt's own name"),
    ],
)
def test_no_two_outputs_get_one_name(outputs: list[str], names: list[str]) -> None:
    assert named(*(output(name) for name in outputs)) == names


def test_collisions_are_looked_for_in_each_folder_by_itself() -> None:
    outputs = [output("a.png", title="x"), output("a.png", title="y"), output("a.png", title="X")]
    assert named(*outputs, template="{title}/{stem}{ext}") == ["x/a.png", "y/a.png", "X/a-2.png"]


@pytest.mark.parametrize(
    ("title", "folder"),
    [
        pytest.param("../..", "_", id="up"),
        pytest.param("/etc", "etc", id="absolute"),
        pytest.param("a/b", "b", id="a slash"),
        pytest.param("..\\x", "x", id="backslashes"),
        pytest.param("", "_", id="empty"),
        pytest.param("NUL", "_NUL", id="device"),
        pytest.param("{seed}", "{seed}", id="braces"),
        pytest.param("x" * 1000, "x" * 180, id="long"),
    ],
)
def test_no_field_leads_out_of_its_folder(title: str, folder: str) -> None:
    assert named(output("a.png", title=title), template="{title}/{stem}{ext}") == [f"{folder}/a.png"]


def test_a_name_made_of_long_parts_is_a_name_still() -> None:
    (name,) = named(output("y" * 150 + ".png", title="x" * 150), template="{title}-{stem}{ext}")
    assert len(name.encode()) <= 180
    assert name.endswith(".png")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0\0"))
    + _chunk(b"IEND", b"")
)
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
MP4 = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41\0\0\0\x08free"
WEBM = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm"
FLAC = b"fLaC\0\0\0\x22" + b"\0" * 40


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        pytest.param("a.png", PNG, "image/png", id="png"),
        pytest.param("a.jpg", PNG, "image/png", id="png under a wrong name"),
        pytest.param("a", PNG, "image/png", id="png without extension"),
        pytest.param("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01" + b"\0" * 50, "image/jpeg", id="jpeg"),
        pytest.param("a.webp", WEBP, "image/webp", id="webp"),
        pytest.param("a.gif", b"GIF89a\x01\0\x01\0\0\0\0;", "image/gif", id="gif"),
        pytest.param("a.mp4", MP4, "video/mp4", id="mp4"),
        pytest.param("a.webm", WEBM, "video/webm", id="webm"),
        pytest.param("a.flac", FLAC, "audio/flac", id="flac"),
        pytest.param("a.mp3", b"ID3\x04\0\0\0\0\0\x23" + b"\0" * 50, "audio/mpeg", id="mp3"),
        pytest.param("a.txt", b"hello", "text/plain", id="text"),
        pytest.param("a.json", b'{"a": 1}', "application/json", id="json"),
        pytest.param("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", id="svg"),
        pytest.param("a.latent", b"\x10\0\0\0\0\0\0\0{}", "application/octet-stream", id="latent"),
        pytest.param("a.bin", b"", "application/octet-stream", id="empty"),
        pytest.param("a.png", b"", "image/png", id="empty with extension"),
    ],
)
def test_the_media_type_is_told_by_content_first(name: str, data: bytes, media_type: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert media_type_of(tmp_path / name) == media_type


def test_sound_is_sound_whatever_its_subtype_is_called(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 100)
    assert media_type_of(tmp_path / "a.wav") in ("audio/wav", "audio/x-wav", "audio/vnd.wave")


def test_a_missing_file_is_known_by_its_extension(tmp_path: Path) -> None:
    assert media_type_of(tmp_path / "gone.mp4") == "video/mp4"
    assert media_type_of(tmp_path / "gone") == "application/octet-stream"


def test_any_bytes_have_a_media_type(tmp_path: Path) -> None:
    rng = random.Random(5)
    heads = [b"PK\x03\x04", b"RIFF", b"{", b"<", b"\x1f\x8b", b"\0\0\0\x20ftyp", b"OggS", b"%PDF", b"II*\0", b"glTF"]
    for number in range(150):
        name = f"{number}{rng.choice(['.png', '.glb', '.zip', '.ply', '', '.json', '.tif', '.wav'])}"
        (tmp_path / name).write_bytes(rng.choice([*heads, b""]) + rng.randbytes(rng.randrange(60)))
        assert re.fullmatch(r"[\w.+-]+/[\w.+-]+", media_type_of(tmp_path / name))
