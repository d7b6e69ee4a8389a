"""The sheet of an evaluation: one PNG, a row for each checkpoint, a column for each strength, a block for each prompt.

Needs Pillow, which is only on the operator's side.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.errors import OutputFolderError
from comfymodal.operations.train_eval_results import EvalCell
from comfymodal.training.images import PLUGIN_ERRORS, known_formats, quiet_pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

EDGES = ((36, 384), (90, 288), (10_000, 208))
"""By how many pictures there are, the longer edge of each in pixels: the sheet stays one that can be opened."""

COLUMNS = 12
"""After as many the next prompt begins a new line of blocks."""

_MARGIN, _GAP, _BLOCK_GAP = 24, 6, 26
_TITLE, _WORDS, _LABEL = 26, 17, 15
_LABEL_WIDTH = 104
_NARROWEST = 100
"""What a label needs."""

_PAPER, _INK, _SOFT, _EMPTY = (255, 255, 255), (27, 31, 36), (89, 99, 110), (236, 239, 242)
_PROMPT_LINES = 3


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where things are. Sizes in pixels."""

    steps: tuple[int, ...]
    prompts: tuple[str | None, ...]
    strengths: tuple[float, ...]
    width: int
    height: int

    @property
    def per_line(self) -> int:
        return max(1, min(len(self.prompts), COLUMNS // len(self.strengths)))

    @property
    def block_width(self) -> int:
        return len(self.strengths) * (self.width + _GAP) - _GAP

    @property
    def head_height(self) -> int:
        """Of a block: its prompt, and the strengths."""
        return _PROMPT_LINES * (_WORDS + 5) + _LABEL + 12

    @property
    def line_height(self) -> int:
        return self.head_height + len(self.steps) * (self.height + _GAP) + _BLOCK_GAP

    @property
    def size(self) -> tuple[int, int]:
        lines = -(-len(self.prompts) // self.per_line)
        across = self.per_line * (self.block_width + _BLOCK_GAP) - _BLOCK_GAP
        return 2 * _MARGIN + _LABEL_WIDTH + across, 2 * _MARGIN + _TITLE + 20 + lines * self.line_height

    def block(self, prompt: int) -> tuple[int, int]:
        line, place = divmod(prompt, self.per_line)
        x = _MARGIN + _LABEL_WIDTH + place * (self.block_width + _BLOCK_GAP)
        return x, _MARGIN + _TITLE + 20 + line * self.line_height

    def cell(self, step: int, prompt: int, strength: int) -> tuple[int, int]:
        x, y = self.block(prompt)
        return x + strength * (self.width + _GAP), y + self.head_height + step * (self.height + _GAP)


def draw_sheet(cells: Sequence[EvalCell], title: str, path: Path) -> Path:
    """Write the sheet to `path`, whole or not at all. Raises `OutputFolderError`."""
    from PIL import Image as pillow
    from PIL.ImageDraw import Draw

    edge = next(edge for most, edge in EDGES if len(cells) <= most)
    with quiet_pillow():
        pictures = {(each.step, each.prompt, each.strength): _read(each.path, edge) for each in cells}
    there = [picture for picture in pictures.values() if picture is not None]
    grid = _Grid(
        steps=tuple(sorted({each.step for each in cells})),
        prompts=tuple(dict.fromkeys(each.prompt for each in cells)),
        strengths=tuple(dict.fromkeys(each.strength for each in cells)),
        width=max((_NARROWEST, *(picture.width for picture in there))) if there else edge,
        height=max((picture.height for picture in there), default=edge),
    )
    sheet = pillow.new("RGB", grid.size, _PAPER)
    draw = Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _fitted(title, grid.size[0] - 2 * _MARGIN, _TITLE), _INK, _font(_TITLE))
    _draw_labels(draw, grid)
    for row, step in enumerate(grid.steps):
        for block, prompt in enumerate(grid.prompts):
            for column, strength in enumerate(grid.strengths):
                _draw_cell(sheet, draw, grid, grid.cell(row, block, column), pictures.get((step, prompt, strength)))
    return _write(sheet, path)


def _draw_labels(draw: ImageDraw, grid: _Grid) -> None:
    for number, prompt in enumerate(grid.prompts):
        x, y = grid.block(number)
        for line, words in enumerate(_wrapped(prompt or "(the workflow's own prompt)", grid.block_width)):
            draw.text((x, y + line * (_WORDS + 5)), words, _INK, _font(_WORDS))
        for column, strength in enumerate(grid.strengths):
            cell_x, cell_y = grid.cell(0, number, column)
            draw.text((cell_x, cell_y - _LABEL - 7), f"strength {strength:g}", _SOFT, _font(_LABEL))
        if number % grid.per_line == 0:
            for row, step in enumerate(grid.steps):
                draw.text((_MARGIN, grid.cell(row, number, 0)[1] + 4), f"step {step}", _INK, _font(_WORDS))


def _draw_cell(sheet: Image, draw: ImageDraw, grid: _Grid, at: tuple[int, int], picture: Image | None) -> None:
    if picture is not None:
        sheet.paste(picture, at)
        return
    draw.rectangle((*at, at[0] + grid.width - 1, at[1] + grid.height - 1), _EMPTY)
    draw.text((at[0] + 8, at[1] + 8), "not rendered", _SOFT, _font(_LABEL))


def _read(path: str | None, edge: int) -> Image | None:
    from PIL import Image as pillow

    if path is None:
        return None
    try:
        with pillow.open(path, formats=known_formats()) as image:
            small = image.convert("RGB")
    except (pillow.DecompressionBombError, *PLUGIN_ERRORS):
        return None
    small.thumbnail((edge, edge))
    return small


def _wrapped(words: str, width: int) -> list[str]:
    """The text in as many lines as there is room for; the last one ends in dots where it is longer."""
    lines: list[str] = []
    rest = " ".join(words.split())
    while rest and len(lines) < _PROMPT_LINES - 1:
        length = _fitting(rest, width, _WORDS)
        if length < len(rest):
            length = max(rest.rfind(" ", 0, length + 1), 0) or length
        lines.append(rest[:length].strip())
        rest = rest[length:].strip()
    return [*lines, _fitted(rest, width, _WORDS)] if rest else lines


def _fitted(words: str, width: int, size: int) -> str:
    length = _fitting(words, width, size)
    return words if length == len(words) else f"{words[: max(1, length - 3)].rstrip()}..."


def _fitting(words: str, width: int, size: int) -> int:
    """How many of its characters fit; one at least."""
    font = _font(size)
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(words[:middle]) <= width else (low, middle - 1)
    return min(low, len(words))


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write(sheet: Image, path: Path) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            sheet.save(part, "PNG", optimize=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputFolderError(f"cannot write {path}: {exc.strerror or exc}") from exc
    return path
