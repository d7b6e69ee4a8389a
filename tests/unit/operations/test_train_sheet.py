from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from comfymodal.errors import OutputFolderError, UsageError
from comfymodal.operations.train_eval import STRENGTHS, parse_strengths
from comfymodal.operations.train_eval_results import EvalCell
from comfymodal.operations.train_sheet import draw_sheet

STEPS, PROMPTS = (8, 16, 24), ("a cat " * 60, "", None)


def cells(folder: Path, size: tuple[int, int] = (40, 60), strengths: tuple[float, ...] = STRENGTHS) -> list[EvalCell]:
    """A picture for each, of a colour that says which it is."""
    found = []
    for row, block, column in product(range(3), range(3), range(len(strengths))):
        path = folder / f"{row}{block}{column}.png"
        Image.new("RGB", size, colour_of(row, block, column)).save(path)
        found.append(EvalCell(STEPS[row], PROMPTS[block], strengths[column], str(path)))
    return found


def colour_of(row: int, block: int, column: int) -> tuple[int, int, int]:
    return row * 80 + 10, block * 80 + 10, column * 20 + 10


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as sheet:
        return sheet.size


def places(sheet: Image.Image, colours: set[tuple[int, int, int]]) -> dict[tuple[int, int, int], tuple[int, int, int]]:
    """Left, top and number of the pixels of each colour."""
    found: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    data = sheet.load()
    assert data is not None
    for y in range(sheet.height):
        for x in range(sheet.width):
            colour = data[x, y]
            if colour in colours:
                assert isinstance(colour, tuple)
                left, top, count = found.get(colour[:3], (x, y, 0))
                found[colour[:3]] = (min(left, x), min(top, y), count + 1)
    return found


def test_rows_are_checkpoints_columns_strengths_blocks_prompts(tmp_path: Path) -> None:
    path = draw_sheet(cells(tmp_path), "anna in portrait.json", tmp_path / "sub" / "eval.png")

    numbers = list(product(range(3), repeat=3))
    with Image.open(path) as sheet:
        found = places(sheet.convert("RGB"), {colour_of(*each) for each in numbers})
    # Each picture is there once, and whole.
    assert {place[2] for place in found.values()} == {40 * 60}
    assert len(found) == 27
    tops = [found[colour_of(row, 0, 0)][1] for row in range(3)]
    lefts = [found[colour_of(0, block, column)][0] for block, column in product(range(3), repeat=2)]
    assert (tops, lefts) == (sorted(set(tops)), sorted(set(lefts)))
    for row, block, column in numbers:
        assert found[colour_of(row, block, column)][:2] == (lefts[block * 3 + column], tops[row])


def test_many_columns_go_on_below(tmp_path: Path) -> None:
    few = size_of(draw_sheet(cells(tmp_path), "x", tmp_path / "few.png"))
    many = cells(tmp_path, strengths=tuple(number / 10 for number in range(8)))

    wide = size_of(draw_sheet(many, "x", tmp_path / "many.png"))

    # One block of eight a line instead of three of three in one.
    assert wide[0] < few[0]
    assert wide[1] > 2 * few[1]


def test_what_was_not_rendered_leaves_its_place(tmp_path: Path) -> None:
    whole = cells(tmp_path)
    torn = tmp_path / "torn.png"
    torn.write_bytes(Path(str(whole[0].path)).read_bytes()[:40])
    part = [EvalCell(8, whole[0].prompt, 0.6, str(torn)), EvalCell(8, whole[0].prompt, 0.8, None), *whole[2:]]

    sizes = {size_of(draw_sheet(each, "x", tmp_path / "e.png")) for each in (whole, part)}

    assert len(sizes) == 1


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    (first, *_) = cells(tmp_path, (1216, 832))

    assert size_of(draw_sheet([first], "x", tmp_path / "eval.png")) < (600, 600)


def test_a_sheet_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match=r"cannot write /dev/null/eval\.png"):
        draw_sheet(cells(tmp_path), "x", Path("/dev/null/eval.png"))


def test_strengths_are_numbers() -> None:
    assert parse_strengths(None) == STRENGTHS
    assert parse_strengths("0, 0.5,1,1.0") == (0.0, 0.5, 1.0)
    for wrong in ("", "a", "0.5,", "nan", "1e9"):
        with pytest.raises(UsageError, match="--eval-strengths"):
            parse_strengths(wrong)
