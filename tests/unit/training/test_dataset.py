from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfymodal.training.ai_toolkit.reading import rules_for, settings_of
from comfymodal.training.buckets import Epoch, Sharing
from comfymodal.training.dataset import DatasetSettings, list_folder
from comfymodal.training.dataset_checks import find_length_faults, group_findings
from comfymodal.training.dataset_report import DatasetReport, check_dataset, epoch_of, find_mixed_buckets, mean_area
from tests.unit.training.pictures import add, fill, picture, save

RULES = rules_for("sdxl")


def check(folder: Path, **settings: Any) -> DatasetReport:
    return check_dataset(DatasetSettings(folder, **settings), RULES)


def kinds(report: DatasetReport) -> list[tuple[str, str, str | None]]:
    return [(finding.severity, finding.kind, finding.file) for finding in report.findings]


def test_a_sound_dataset_has_nothing_to_say(tmp_path: Path) -> None:
    report = check(fill(tmp_path), trigger="p3r5on")

    assert report.findings == ()
    assert report.is_usable
    assert (len(report.items), report.captions, len(report.files)) == (6, 6, 12)
    assert report.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_the_trainer_takes_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "B.JPG", "sub/deep/c.webp", "d.jpeg", "_controls/in/e.png"):
        save(tmp_path / name, picture())
    for name in (".f.png", ".thumbs/g.png", "_controls/h.png", "sub/_controls/i.png"):
        save(tmp_path / name, picture())
    for name in ("j.bmp", "k.mp4", "l.txt", "_latent_cache/m.safetensors", ".aitk_size.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    listing = list_folder(tmp_path, RULES, takes_media=False)

    assert listing.pictures == ("B.JPG", "_controls/in/e.png", "a.png", "d.jpeg", "sub/deep/c.webp")
    assert listing.passed_over == (".f.png", "_controls/h.png", "sub/_controls/i.png")
    assert listing.others == (".aitk_size.json", "_latent_cache/m.safetensors", "j.bmp", "k.mp4", "l.txt")
    assert list_folder(tmp_path, RULES, takes_media=True).media == ("k.mp4",)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_not_entered_and_linked_files_are(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside")
    folder = fill(tmp_path / "set", 5)
    (folder / "more").symlink_to(outside)
    (folder / "x.png").symlink_to(outside / "000.png")
    (folder / "gone.png").symlink_to(outside / "nothing.png")

    report = check(folder)

    assert [item.path for item in report.items][-1] == "x.png"
    assert ("warning", "linked_folder", "more") in kinds(report)
    assert ("error", "broken_picture", "gone.png") in kinds(report)


def test_no_folder_and_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "set").mkdir()

    messages = [str(check(tmp_path / name).findings[0]) for name in ("gone", "file", "set")]

    assert messages == [
        f"{tmp_path / 'gone'} does not exist",
        f"{tmp_path / 'file'} is no folder",
        f"nothing to learn in {tmp_path / 'set'}",
    ]
    assert not check(tmp_path / "set").is_usable


def test_pictures_the_trainer_would_drop_without_a_word(tmp_path: Path) -> None:
    """The four of the real trainer's run: it said `Found 5 images` and went on."""
    fill(tmp_path, 5)
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("a cat")
    half = save(tmp_path / "half.png", Image.effect_noise((512, 512), 90)).read_bytes()
    (tmp_path / "half.png").write_bytes(half[: len(half) // 2])

    report = check(tmp_path)

    assert kinds(report) == [("error", "broken_picture", name) for name in ("half.png", "text.jpg", "zero.png")]
    assert len(report.items) == 5
    assert {file.path for file in report.files}.isdisjoint({"half.png", "text.jpg", "zero.png"})


def test_everything_broken_is_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")

    assert ("error", "empty", None) in kinds(check(tmp_path))


def test_formats_and_videos_that_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("a.bmp", "b.HEIC", "c.mp4", "d.gif"):
        (tmp_path / name).write_bytes(b"x")

    assert kinds(check(tmp_path)) == [
        ("warning", "other_format", "a.bmp"),
        ("warning", "other_format", "b.HEIC"),
        ("warning", "other_format", "d.gif"),
        ("warning", "video", "c.mp4"),
    ]


def test_traits_that_change_what_is_learned(tmp_path: Path) -> None:
    fill(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 8
    large = (512, 512)
    save(tmp_path / "cmyk.jpg", picture(11, large).convert("CMYK"))
    save(tmp_path / "turned.jpg", picture(12, large), exif=exif)
    save(tmp_path / "moving.webp", picture(13, large), save_all=True, append_images=[picture(14, large)])
    holed = picture(15, large, "RGBA")
    holed.putalpha(100)
    save(tmp_path / "holed.png", holed)

    report = check(tmp_path, trigger="p3r5on", default_caption="p3r5on")

    assert kinds(report) == [
        ("warning", "animated", "moving.webp"),
        ("warning", "cmyk", "cmyk.jpg"),
        ("warning", "transparent", "holed.png"),
        ("info", "default_caption", None),
        ("info", "rotated", None),
    ]


def test_with_an_alpha_mask_every_picture_needs_one(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    holed = picture(15, (512, 512), "RGBA")
    holed.putalpha(100)
    save(tmp_path / "holed.png", holed)
    (tmp_path / "holed.txt").write_text("x")

    assert kinds(check(tmp_path, alpha_is_mask=True)) == [("error", "no_alpha", f"{n:03}.png") for n in range(5)]


def test_sizes_that_do_not_suit_the_resolution(tmp_path: Path) -> None:
    fill(tmp_path)
    for number, (name, size) in enumerate((("tiny", (8, 8)), ("small", (300, 300)), ("long", (2000, 400)))):
        save(tmp_path / f"{name}.png", picture(50 + number, size))
        (tmp_path / f"{name}.txt").write_text("x")

    report = check(tmp_path, resolutions=(512, 768))

    assert [finding for finding in kinds(report) if finding[0] == "warning"] == [
        ("warning", "long", "long.png"),
        ("warning", "small", "small.png"),
        ("warning", "tiny", "tiny.png"),
    ]
    assert "300 x 300 pixels, fewer than 512 x 512" in next(f for f in report.findings if f.kind == "small").message


def test_the_same_and_similar_pictures(tmp_path: Path) -> None:
    fill(tmp_path)
    shutil.copy(tmp_path / "000.png", tmp_path / "copy.png")
    save(tmp_path / "again.jpg", Image.open(tmp_path / "001.png").resize((600, 600)), quality=60)
    for name in ("copy", "again"):
        (tmp_path / f"{name}.txt").write_text("x")

    report = check(tmp_path)

    assert {(finding.kind, finding.file, finding.message) for finding in report.findings} == {
        ("duplicate", "copy.png", "the same file as 000.png"),
        ("look_alike", "again.jpg", "it looks like 001.png"),
    }


def test_flat_pictures_do_not_all_look_alike(tmp_path: Path) -> None:
    fill(tmp_path)
    for number in range(4):
        save(tmp_path / f"flat{number}.png", Image.new("RGB", (512, 512), (60 * number, 9, 9)))
        (tmp_path / f"flat{number}.txt").write_text("x")

    assert check(tmp_path).findings == ()


def test_captions_that_are_missing_empty_or_elsewhere(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    add(tmp_path, "none.png", None)
    add(tmp_path, "empty.png", " \n")
    add(tmp_path, "upper.png", None).with_suffix(".TXT").write_text("x")
    add(tmp_path, "other.png", None).with_suffix(".caption").write_text("x")
    add(tmp_path, "double.png", None)
    (tmp_path / "double.png.txt").write_text("x")

    report = check(tmp_path)

    hints = {finding.file: finding.hint for finding in report.findings if finding.kind == "no_caption"}
    assert hints == {
        "none.png": "write none.txt, or set default_caption",
        "upper.png": "there is upper.TXT: rename it, or set caption_ext: .TXT",
        "other.png": "there is other.caption: rename it, or set caption_ext: .caption",
        "double.png": "there is double.png.txt: rename it to double.txt",
    }
    assert ("warning", "empty_caption", "empty.txt") in kinds(report)
    assert ("warning", "stray_caption", "double.png.txt") in kinds(report)
    assert report.is_usable


def test_findings_of_one_kind_are_one_line(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.bmp").write_bytes(b"x")
    (tmp_path / "000.txt").write_bytes(b"")

    groups = group_findings(check(tmp_path).findings)

    assert [(group.kind, group.files) for group in groups] == [
        ("empty_caption", ("000.txt",)),
        ("other_format", ("a.bmp", "b.bmp", "c.bmp")),
    ]
    assert groups[1].message == "a.bmp: the trainer does not take this format (and 2 more)"


def test_a_json_dataset_and_captions_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text("{}")

    assert "JSON dataset" in (check(tmp_path / "set.json").findings[0].hint or "")
    folder = fill(tmp_path / "set", 5)
    for number in range(5):
        (folder / f"{number:03}.txt").rename(folder / f"{number:03}")
    assert kinds(check(folder, caption_suffix="")) == []


def test_a_trigger_or_a_default_stands_in_for_missing_captions(tmp_path: Path) -> None:
    for number in range(6):
        add(tmp_path, f"{number}.png", None)

    bare, triggered, defaulted = (
        check(tmp_path),
        check(tmp_path, trigger="p3r5on"),
        check(tmp_path, default_caption=""),
    )

    assert [finding.kind for finding in bare.of("error")] == ["captions_missing"]
    assert triggered.is_usable
    assert triggered.findings[0].message == "it has no caption: trained with 'p3r5on' alone"
    assert [finding.kind for finding in defaulted.findings] == ["default_caption"]
    # A regularization set gets no trigger.
    assert not check(tmp_path, trigger="p3r5on", is_regular=True).is_usable


def test_captions_that_end_or_bend_the_training(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "000.txt").write_bytes("schön".encode("latin-1"))
    (tmp_path / "001.txt").write_bytes("p3r5on".encode("utf-8-sig"))
    (tmp_path / "002.txt").write_text("p3r5on " + "cat, " * 40)

    report = check(tmp_path, trigger="p3r5on")

    assert kinds(report) == [
        ("error", "caption_encoding", "000.txt"),
        ("warning", "caption_mark", "001.txt"),
        ("warning", "long_caption", "002.txt"),
    ]
    assert "83 tokens or more, and the text encoder reads 77" in report.findings[2].message


def test_a_long_caption_is_none_for_an_encoder_that_reads_on(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "002.txt").write_text("cat, " * 40)

    assert check_dataset(DatasetSettings(tmp_path), rules_for("flux")).findings == ()


def test_triggers_in_captions(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "000.txt").write_text("a category of things")
    (tmp_path / "001.txt").write_text("[trigger] in rain")

    cat = check(tmp_path, trigger="cat")
    none = check(tmp_path)

    assert kinds(cat) == [("warning", "trigger_inside", "000.txt"), ("info", "trigger_absent", None)]
    assert cat.findings[1].message == "4 captions without the trigger 'cat': the trainer puts it in front"
    assert kinds(none) == [("warning", "no_trigger", "001.txt")]


def test_two_pictures_of_one_name_share_a_caption(tmp_path: Path) -> None:
    fill(tmp_path)
    save(tmp_path / "000.jpg", picture(70, (512, 512)))

    assert kinds(check(tmp_path)) == [("warning", "shared_caption", "000.png")]


def test_a_handful_of_pictures_is_few(tmp_path: Path) -> None:
    assert kinds(check(fill(tmp_path, 4))) == [("warning", "few", None)]
    assert kinds(check(tmp_path, is_regular=True)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_cannot_travel(tmp_path: Path) -> None:
    fill(tmp_path)
    source = tmp_path / "000.png"
    for name in (b"\xff.png", b"a\nb.png"):
        os.link(source, os.fsencode(tmp_path) + b"/" + name)

    report = check(tmp_path)

    assert [finding.file for finding in report.findings if finding.kind == "bad_name"] == ["\\udcff.png", "a\\nb.png"]
    json.dumps(report.to_dict(), ensure_ascii=False).encode()


def test_masks_and_controls_are_matched_and_opened(tmp_path: Path) -> None:
    folder, masks, controls = fill(tmp_path / "set"), tmp_path / "masks", tmp_path / "controls"
    for number in range(5):
        save(masks / f"{number:03}.jpg", picture(90 + number))
        save(controls / f"{number:03}.png", picture(80 + number))
    (masks / "000.jpg").write_bytes(b"")

    report = check(folder, masks=masks, controls=(controls,))

    assert kinds(report) == [
        ("error", "broken_picture", str(masks / "000.jpg")),
        ("error", "no_control", "005.png"),
        ("error", "no_mask", "005.png"),
    ]
    assert sum(file.role == "mask" for file in report.files) == 4
    assert sum(file.role == "control" for file in report.files) == 5


def test_masks_inside_the_dataset_and_folders_that_are_not_there(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "masks").mkdir()

    inside = check(tmp_path, masks=tmp_path / "masks")
    gone = check(tmp_path, controls=(tmp_path / "gone",))
    missing = check(tmp_path, needs_controls=True)

    assert ("error", "companions_inside", None) in kinds(inside)
    assert kinds(gone) == [("error", "no_folder", None)]
    assert kinds(missing) == [("error", "no_controls", None)]


def test_videos_are_hashed_and_not_opened(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "a.txt").write_text("a cat walks")

    report = check_dataset(DatasetSettings(tmp_path, takes_media=True), rules_for("wan21"))

    assert report.is_usable
    assert (report.to_dict()["pictures"], report.to_dict()["videos"]) == (6, 1)
    assert not report.tables[0].is_exact
    (tmp_path / "a.mp4").unlink()
    without = check_dataset(DatasetSettings(tmp_path, takes_media=True), rules_for("wan21"))
    assert ("error", "no_videos", None) in kinds(without)


def test_sounds_are_all_that_a_sound_model_learns(tmp_path: Path) -> None:
    fill(tmp_path)
    for number in range(5):
        (tmp_path / f"{number}.flac").write_bytes(bytes([number]))

    report = check_dataset(DatasetSettings(tmp_path, default_caption="x"), rules_for("ace_step_15"))

    assert [item.path for item in report.items] == [f"{number}.flac" for number in range(5)]


def test_the_fingerprint_is_of_content_and_names_and_nothing_else(tmp_path: Path) -> None:
    one = fill(tmp_path / "one")
    before = check(one).sha256
    two = tmp_path / "elsewhere" / "two"
    two.mkdir(parents=True)
    for path in sorted(one.iterdir(), reverse=True):
        shutil.copy(path, two)
    # What the trainer, the system and other tools leave there.
    (two / "_latent_cache").mkdir()
    (two / "_latent_cache" / "x.safetensors").write_bytes(b"x")
    (two / ".aitk_size.json").write_text("{}")
    (two / ".DS_Store").write_bytes(b"x")
    (two / "zz.png").write_bytes(b"")

    assert check(two).sha256 == before

    (two / "000.txt").write_text("another")
    changed = check(two).sha256
    (two / "000.txt").rename(two / "zzz.txt")

    assert len({before, changed, check(two).sha256}) == 3


def test_swapped_captions_are_another_dataset(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "000.txt").write_text("red")
    (tmp_path / "001.txt").write_text("blue")
    before = check(tmp_path).sha256

    (tmp_path / "000.txt").write_text("blue")
    (tmp_path / "001.txt").write_text("red")

    assert check(tmp_path).sha256 != before


def test_swapped_control_folders_are_another_dataset(tmp_path: Path) -> None:
    folder, one, two = fill(tmp_path / "set", 5), tmp_path / "one", tmp_path / "two"
    for number in range(5):
        save(one / f"{number:03}.png", picture(80 + number))
        save(two / f"{number:03}.png", picture(90 + number))

    straight, swapped = check(folder, controls=(one, two)), check(folder, controls=(two, one))
    shutil.move(one, tmp_path / "zzz")
    moved = check(folder, controls=(tmp_path / "zzz", two))

    assert straight.is_usable
    assert straight.sha256 != swapped.sha256
    assert straight.sha256 == moved.sha256


def test_progress_reaches_its_end_in_the_caller_s_thread(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    check_dataset(DatasetSettings(fill(tmp_path)), RULES, lambda done, total: seen.append((done, total)))

    assert seen == [(number, 12) for number in range(1, 13)]


def test_an_interrupt_stops_the_reading(tmp_path: Path) -> None:
    fill(tmp_path, 30)

    def interrupt(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(DatasetSettings(tmp_path), RULES, interrupt)


def test_tables_and_epoch_of_several_datasets(tmp_path: Path) -> None:
    main, regular = fill(tmp_path / "main"), fill(tmp_path / "reg")
    settings = DatasetSettings(main, resolutions=(512, 256), sharing=Sharing(copies=2, batch_size=4))
    reports = [check_dataset(settings, RULES), check_dataset(DatasetSettings(regular, is_regular=True), RULES)]

    epoch = epoch_of(reports)

    assert [(table.resolution, table.items, table.batches) for table in reports[0].tables] == [
        (512, 12, 3),
        (256, 12, 3),
    ]
    assert (epoch.batches, epoch.regular_batches, epoch.steps) == (6, 6, 12)
    assert mean_area(reports) == (24 * 512**2 + 12 * 256**2 - 6 * 512**2) / 30
    assert mean_area([]) is None
    assert find_mixed_buckets(reports) == ()
    loose = replace(reports[0], settings=replace(settings, sharing=Sharing(has_buckets=False)))
    assert find_mixed_buckets([loose, reports[1]])[0].kind == "mixed_buckets"


def test_scaled_and_squared_pictures_fall_into_other_buckets(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(1, (1024, 512)))

    shown = [
        (bucket.width, bucket.height)
        for settings in ({}, {"scale": 0.25}, {"is_square": True})
        for bucket in check(tmp_path, **settings).tables[0].buckets
    ]

    assert shown == [(736, 352), (256, 128), (512, 512)]


@pytest.mark.parametrize(
    ("steps", "kind"), [(5, "short_run"), (600, None), (5000, "long_run")], ids=["short", "usual", "long"]
)
def test_runs_far_too_short_or_long(steps: int, kind: str | None) -> None:
    found = [finding.kind for finding in find_length_faults(Epoch(10, 0, 1), steps, 10, 1)]

    assert found == ([kind] if kind else [])


def test_settings_are_read_from_a_config_s_own_keys(tmp_path: Path) -> None:
    entry = {
        **{"resolution": [512, 768], "caption_ext": "caption", "num_repeats": 3, "flip_x": True, "batch_size": 2},
        **{"mask_path": "/m", "control_path_1": "/c1", "control_path_3": "/c3", "is_reg": True, "num_frames": 33},
    }
    process = {"trigger_word": "p3r5on", "train": {"batch_size": 4}}

    settings = settings_of(entry, tmp_path, process)
    plain = settings_of({}, tmp_path, process)

    assert settings.resolutions == (512, 768)
    assert (settings.caption_suffix, settings.sharing) == (".caption", Sharing(6, 2))
    assert (settings.masks, settings.controls) == (Path("/m"), (Path("/c1"), Path("/c3")))
    assert (settings.is_regular, settings.takes_media, settings.added_trigger) == (True, True, None)
    assert (plain.resolutions, plain.sharing, plain.added_trigger) == ((512,), Sharing(1, 4), "p3r5on")
    assert settings_of({"caption_type": "txt"}, tmp_path, {}).caption_suffix == "txt"
    assert settings_of({"control_path": ["/a", "/b"]}, tmp_path, {}).controls == (Path("/a"), Path("/b"))
