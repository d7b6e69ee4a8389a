from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from comfymodal.training.images import Broken, Picture, looks_alike, quiet_pillow, read_picture
from tests.unit.training.pictures import deep_gray_png, picture, save


def opened(path: Path) -> Picture:
    found = read_picture(path)
    assert isinstance(found, Picture), found
    return found


def broken(path: Path) -> str:
    found = read_picture(path)
    assert isinstance(found, Broken), found
    return found.why


def test_a_sound_picture_is_measured_and_hashed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(1, (300, 200)))

    found = opened(path)

    assert (found.width, found.height, found.size_bytes) == (300, 200, path.stat().st_size)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.traits == {"no_alpha"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_cut_picture_is_broken_though_its_header_is_whole(tmp_path: Path, suffix: str, kept: float) -> None:
    # Noise: a picture that compresses to nothing would be whole after a third of its bytes.
    path = save(tmp_path / f"a.{suffix}", Image.effect_noise((256, 256), 90).convert("RGB"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])

    assert broken(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"a photo of a cat", "it is no picture", id="text"),
        pytest.param(b"<html><body>404</body></html>", "it is no picture", id="page"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "it is no picture", id="start of a PNG"),
        pytest.param(deep_gray_png(40000, 64).replace(b"IDAT", b"IDAX"), "it ", id="PNG without pixels"),
    ],
)
def test_what_is_no_picture_is_told_so(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)

    assert broken(path).startswith(why)


def test_a_missing_file_is_broken_without_a_hash(tmp_path: Path) -> None:
    found = read_picture(tmp_path / "gone.png")

    assert isinstance(found, Broken)
    assert (found.sha256, found.size_bytes) == ("", 0)


def test_more_pixels_than_pillow_opens_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", picture(1, (64, 64)))
    # A picture of 180 million pixels takes seconds to make.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    assert broken(path) == "it has more pixels than Pillow opens"


def test_large_pictures_are_taken_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", picture(1, (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)

    with quiet_pillow():
        assert opened(path).width == 64


def test_the_camera_s_rotation_swaps_the_edges(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = opened(save(tmp_path / "a.jpg", picture(1, (300, 200)), exif=exif))
    exif[0x0112] = 3
    upside_down = opened(save(tmp_path / "b.jpg", picture(1, (300, 200)), exif=exif))

    assert (turned.width, turned.height) == (200, 300)
    assert (upside_down.width, upside_down.height) == (300, 200)
    assert "rotated" in turned.traits & upside_down.traits


def test_only_what_can_be_seen_through_is_transparent(tmp_path: Path) -> None:
    opaque = picture(1, mode="RGBA")
    holed = opaque.copy()
    holed.putpixel((3, 3), (9, 9, 9, 200))
    indexed = picture(1, mode="P")

    traits = {
        "opaque": opened(save(tmp_path / "opaque.png", opaque)).traits,
        "holed": opened(save(tmp_path / "holed.png", holed)).traits,
        "indexed": opened(save(tmp_path / "indexed.png", indexed, transparency=indexed.getpixel((0, 0)))).traits,
    }

    assert traits == {"opaque": frozenset(), "holed": {"transparent"}, "indexed": {"transparent"}}


def test_moving_and_printing_and_deep_pictures_are_known(tmp_path: Path) -> None:
    frames = [picture(number) for number in range(3)]
    moving = save(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:])
    printed = save(tmp_path / "b.jpg", picture(1).convert("CMYK"))
    deep = tmp_path / "c.png"
    deep.write_bytes(deep_gray_png(40000))

    assert "animated" in opened(moving).traits
    assert "cmyk" in opened(printed).traits
    assert "deep_gray" in opened(deep).traits


def test_a_deep_gray_picture_would_be_learned_white() -> None:
    """What the finding about it claims of the trainer's `convert("RGB")`."""
    image = Image.open(io.BytesIO(deep_gray_png(20000)))

    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_scaled_and_saved_again_a_picture_looks_alike(tmp_path: Path) -> None:
    original = picture(1, (640, 480))
    looks = [
        opened(save(tmp_path / "a.png", original)).look,
        opened(save(tmp_path / "b.jpg", original, quality=40)).look,
        opened(save(tmp_path / "c.png", original.resize((320, 240)))).look,
    ]
    other = opened(save(tmp_path / "d.png", picture(2, (640, 480)))).look

    assert all(look is not None and looks_alike(looks[0] or 0, look) for look in looks)
    assert other is not None
    assert not looks_alike(looks[0] or 0, other)


def test_a_featureless_picture_looks_like_none(tmp_path: Path) -> None:
    assert opened(save(tmp_path / "a.png", Image.new("RGB", (64, 64), (200, 30, 30)))).look is None


def test_no_program_in_a_file_is_run(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n")

    # Pillow would open it: the file passes for a picture, and Ghostscript would run it when it is decoded.
    with Image.open(path) as image:
        assert image.format == "EPS"
    assert broken(path) == "it is no picture"


def test_pillow_is_as_strict_as_the_trainer_has_it() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
