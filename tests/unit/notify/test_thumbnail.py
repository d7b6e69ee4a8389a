from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from comfymodal.notify.thumbnail import SIDE, thumbnail


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGBA"), ("a.jpg", "CMYK"), ("a.webp", "RGB"), ("a.gif", "P"), ("a.png", "I;16")]
)
def test_a_picture_becomes_a_small_jpeg(name: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.new(mode, (2000, 1000)).save(path)
    small = thumbnail(path, "a title")
    assert small is not None
    assert (small.name, small.title) == ("a.jpg", "a title")
    with Image.open(io.BytesIO(small.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIDE, SIDE // 2))
    assert len(small.data) < 100_000


def test_what_is_clear_becomes_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    small = thumbnail(path, "")
    assert small is not None
    with Image.open(io.BytesIO(small.data)) as image:
        assert image.getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, None])
def test_what_is_no_picture_gives_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    assert thumbnail(path, "") is None


def test_a_picture_that_was_cut_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((300, 300), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert thumbnail(path, "") is None
