from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.training.captions import TriggerUse, least_tokens, read_caption, trigger_use

MARKS = ("[trigger]", "[name]")


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("p3r5on on a beach", "there"),
        ("a photo of p3r5on, smiling", "there"),
        ("[trigger] on a beach", "there"),
        ("a photo", "absent"),
        ("", "absent"),
        ("a P3R5ON", "absent"),
        ("xp3r5ons everywhere", "inside"),
        ("xp3r5ons and p3r5on", "there"),
    ],
)
def test_how_a_caption_holds_the_trigger(text: str, use: TriggerUse) -> None:
    assert trigger_use(text, "p3r5on", MARKS) == use


def test_a_trigger_of_signs_and_words_is_found() -> None:
    assert trigger_use("in the style of <ink+>, a cat", "<ink+>", ()) == "there"
    assert trigger_use("an oil painting of ana b in rain", "ana b", ()) == "there"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param("schöne Katze".encode("latin-1"), "byte 4 is not UTF-8", id="latin-1"),
        pytest.param("a cat".encode("utf-16"), "it is UTF-16", id="utf-16"),
    ],
)
def test_other_encodings_have_no_text(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)

    caption = read_caption(path)

    assert (caption.text, caption.fault) == (None, fault)
    assert caption.sha256


@pytest.mark.parametrize("content", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_blanks_and_marks_are_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)

    assert read_caption(path).is_empty


def test_a_byte_order_mark_stays_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a cat".encode("utf-8-sig"))

    caption = read_caption(path)

    assert (caption.text, caption.has_mark, caption.is_empty) == ("\ufeffa cat", True, False)


def test_words_and_signs_are_counted() -> None:
    assert least_tokens("a cat, sitting on a mat.") == 8
    assert least_tokens("") == 0
