"""Draws the pictures of `configs/lora-flux/pictures`: one small robot in ten places. Deterministic; needs Pillow.

python tests/data/draw_pictures.py FOLDER
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

FINER = 2
"""Drawn this many times larger, then made smaller: edges are smooth."""

ORANGE, DARK, LIGHT = (240, 138, 50), (48, 52, 66), (250, 244, 230)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture whose coordinates are shares of its width and height; lengths are shares of its height."""

    image: Image.Image
    dice: random.Random

    @property
    def _pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def _at(self, x: float, y: float) -> Point:
        return x * self.image.width, y * self.image.height

    def sky(self, top: Colour, bottom: Colour) -> None:
        pen, high = self._pen, self.image.height
        for row in range(high):
            share = row / high
            colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
            pen.line([(0, row), (self.image.width, row)], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, flat: float = 1.0) -> None:
        cx, cy = self._at(x, y)
        across, up = radius * self.image.height, radius * self.image.height * flat
        self._pen.ellipse([cx - across, cy - up, cx + across, cy + up], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, *, round_: float = 0) -> None:
        corners = [self._at(left, top), self._at(right, bottom)]
        self._pen.rounded_rectangle(corners, round_ * self.image.height, fill=colour)

    def shape(self, colour: Colour, *points: Point) -> None:
        self._pen.polygon([self._at(*point) for point in points], fill=colour)

    def stroke(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        wide = width * self.image.height
        self._pen.line([self._at(*start), self._at(*end)], fill=colour, width=round(wide))
        for x, y in (start, end):
            self.disc(x, y, width / 2, colour)

    def hills(self, base: float, height: float, waves: float, colour: Colour, *, shift: float = 0) -> None:
        steps = [step / 60 for step in range(61)]
        edge = [(x, base - height * (0.5 + 0.5 * math.sin(waves * math.tau * (x + shift)))) for x in steps]
        self.shape(colour, (0, 1), *edge, (1, 1))

    def scatter(self, number: int, top: float, bottom: float) -> Iterator[Point]:
        for _ in range(number):
            yield self.dice.random(), top + (bottom - top) * self.dice.random()

    def robot(self, x: float, y: float, size: float, *, left: float = 200, right: float = -20, look: float = 0) -> None:
        """The robot with its feet at (x, y). `left` and `right` are degrees of its arms, `look` -1 to 1."""
        wide = self.image.height / self.image.width * size
        for side in (-1, 1):
            foot = x + side * 0.16 * wide
            self.stroke((foot, y - 0.28 * size), (foot, y - 0.05 * size), 0.09 * size, DARK)
            self.disc(foot + side * 0.02 * wide, y - 0.03 * size, 0.09 * size, DARK, flat=0.6)
        for side, angle in ((-1, left), (1, right)):
            shoulder = (x + side * 0.27 * wide, y - 0.52 * size)
            turn = math.radians(angle)
            hand = (shoulder[0] + 0.3 * wide * math.cos(turn), shoulder[1] - 0.3 * size * math.sin(turn))
            self.stroke(shoulder, hand, 0.075 * size, DARK)
            self.disc(*hand, 0.065 * size, ORANGE)
        self.box(x - 0.3 * wide, y - 0.66 * size, x + 0.3 * wide, y - 0.24 * size, ORANGE, round_=0.12 * size)
        self.disc(x, y - 0.45 * size, 0.09 * size, LIGHT)
        self.disc(x, y - 0.45 * size, 0.05 * size, (222, 70, 60))
        self.stroke((x, y - 1.0 * size), (x, y - 1.16 * size), 0.03 * size, DARK)
        self.disc(x, y - 1.18 * size, 0.055 * size, (222, 70, 60))
        self.box(x - 0.36 * wide, y - 1.04 * size, x + 0.36 * wide, y - 0.6 * size, ORANGE, round_=0.16 * size)
        self.box(x - 0.29 * wide, y - 0.97 * size, x + 0.29 * wide, y - 0.7 * size, DARK, round_=0.11 * size)
        for side in (-1, 1):
            eye = x + (side * 0.13 + look * 0.05) * wide
            self.disc(eye, y - 0.84 * size, 0.075 * size, LIGHT)
            self.disc(eye + look * 0.025 * wide, y - 0.84 * size, 0.035 * size, DARK)


def meadow(at: Canvas) -> None:
    at.sky((120, 190, 240), (214, 238, 250))
    at.disc(0.82, 0.16, 0.09, (255, 222, 110))
    at.hills(0.72, 0.1, 1.2, (140, 200, 110))
    at.hills(0.84, 0.07, 1.7, (96, 170, 84), shift=0.3)
    for x, y in at.scatter(40, 0.86, 0.99):
        at.disc(x, y, 0.011, at.dice.choice([(250, 240, 120), (240, 120, 160), LIGHT]))
    at.robot(0.4, 0.92, 0.5, left=130, look=0.6)


def beach(at: Canvas) -> None:
    at.sky((250, 190, 130), (255, 226, 180))
    at.box(0, 0.5, 1, 0.72, (70, 150, 180))
    at.disc(0.28, 0.5, 0.12, (255, 240, 170))
    at.box(0, 0.52, 1, 0.72, (70, 150, 180))
    at.shape((240, 214, 160), (0, 0.74), (0.5, 0.69), (1, 0.76), (1, 1), (0, 1))
    at.stroke((0.18, 0.95), (0.2, 0.55), 0.016, DARK)
    at.shape((222, 70, 60), (0.0, 0.6), (0.2, 0.4), (0.42, 0.58))
    at.robot(0.66, 0.93, 0.42, right=60, look=-0.8)


def snow(at: Canvas) -> None:
    at.sky((150, 170, 200), (226, 234, 244))
    for x in (0.12, 0.3, 0.86):
        for step in range(3):
            y = 0.34 + 0.12 * step
            at.shape((50, 96, 90), (x, y - 0.12), (x - 0.09, y + 0.1), (x + 0.09, y + 0.1))
    at.hills(0.78, 0.06, 0.8, (244, 248, 252), shift=0.2)
    at.robot(0.56, 0.9, 0.55, left=230, right=-60)
    at.stroke((0.44, 0.563), (0.68, 0.563), 0.045, (70, 110, 200))
    at.stroke((0.66, 0.57), (0.67, 0.68), 0.04, (70, 110, 200))
    for x, y in at.scatter(150, 0, 1):
        at.disc(x, y, 0.006, (255, 255, 255))


def city(at: Canvas) -> None:
    at.sky((20, 24, 60), (70, 50, 110))
    at.disc(0.16, 0.14, 0.07, (240, 240, 210))
    for number in range(9):
        left, top = number * 0.115 - 0.02, 0.25 + 0.3 * at.dice.random()
        at.box(left, top, left + 0.1, 0.86, (34, 36, 72))
        for row in range(int((0.82 - top) / 0.05)):
            for column in range(3):
                if at.dice.random() < 0.6:
                    x, y = left + 0.015 + column * 0.027, top + 0.02 + row * 0.05
                    at.box(x, y, x + 0.015, y + 0.025, (250, 220, 120))
    at.box(0, 0.84, 1, 1, (112, 108, 128))
    at.robot(0.72, 0.97, 0.36, right=50, look=-0.4)
    at.stroke((0.8, 0.66), (0.8, 0.5), 0.008, DARK)
    at.shape((80, 180, 220), (0.66, 0.52), (0.8, 0.4), (0.94, 0.52))


def forest(at: Canvas) -> None:
    at.sky((180, 214, 170), (110, 160, 110))
    for x, wide in ((0.06, 0.05), (0.24, 0.03), (0.5, 0.025), (0.78, 0.045), (0.95, 0.06)):
        at.box(x - wide, 0, x + wide, 0.9, (96, 70, 50))
    for x, y in at.scatter(60, 0, 0.24):
        at.disc(x, y, 0.08, at.dice.choice([(50, 110, 60), (70, 132, 70), (40, 94, 56)]))
    at.box(0, 0.84, 1, 1, (80, 110, 60))
    for x in (0.14, 0.2, 0.87):
        at.box(x - 0.012, 0.84, x + 0.012, 0.9, LIGHT)
        at.disc(x, 0.84, 0.035, (200, 60, 60), flat=0.6)
    at.robot(0.6, 0.93, 0.46, left=180, right=0, look=1)


def desert(at: Canvas) -> None:
    at.sky((90, 170, 220), (250, 220, 170))
    at.disc(0.5, 0.2, 0.13, (255, 244, 190))
    at.hills(0.7, 0.12, 0.7, (230, 180, 110))
    at.hills(0.85, 0.1, 0.6, (214, 156, 88), shift=0.5)
    for x, y, size in ((0.8, 0.74, 0.24), (0.92, 0.82, 0.14)):
        at.stroke((x, y), (x, y - size), 0.05, (70, 130, 80))
        at.stroke((x, y - size * 0.4), (x + 0.07, y - size * 0.4), 0.035, (70, 130, 80))
        at.stroke((x + 0.07, y - size * 0.4), (x + 0.07, y - size * 0.7), 0.035, (70, 130, 80))
    at.robot(0.3, 0.9, 0.34, left=110, right=70)


def moon(at: Canvas) -> None:
    at.sky((6, 6, 18), (20, 20, 44))
    for x, y in at.scatter(160, 0, 0.7):
        at.disc(x, y, 0.002 + 0.003 * at.dice.random(), (240, 240, 255))
    at.disc(0.2, 0.26, 0.15, (70, 130, 210))
    at.disc(0.17, 0.23, 0.06, (90, 170, 110), flat=0.7)
    at.disc(0.25, 0.31, 0.05, (90, 170, 110), flat=0.6)
    at.disc(0.5, 1.55, 0.9, (176, 176, 184))
    for x, y, size in ((0.2, 0.9, 0.05), (0.46, 0.94, 0.06), (0.88, 0.92, 0.045)):
        at.disc(x, y, size, (140, 140, 150), flat=0.35)
    at.stroke((0.34, 0.78), (0.34, 0.5), 0.01, LIGHT)
    at.shape((222, 70, 60), (0.34, 0.5), (0.48, 0.54), (0.34, 0.6))
    at.robot(0.66, 0.84, 0.4, left=150, look=-1)


def sea(at: Canvas) -> None:
    at.sky((60, 160, 200), (10, 50, 96))
    for x in (0.1, 0.2, 0.84):
        for step in range(7):
            y = 0.95 - step * 0.055
            side = 0.02 * math.sin(step * 1.3 + x * 20)
            at.disc(x + side, y, 0.03, (40, 130, 100))
    at.hills(0.94, 0.05, 1.1, (200, 180, 130))
    for x, y, colour in ((0.2, 0.3, (250, 210, 80)), (0.78, 0.2, (240, 110, 120)), (0.84, 0.62, (250, 160, 70))):
        at.disc(x, y, 0.055, colour, flat=0.6)
        at.shape(colour, (x + 0.04, y), (x + 0.09, y - 0.04), (x + 0.09, y + 0.04))
        at.disc(x - 0.025, y - 0.008, 0.008, DARK)
    at.robot(0.5, 0.78, 0.5, left=150, right=30)
    for x, y in at.scatter(26, 0.02, 0.5):
        at.disc(x, y, 0.006 + 0.008 * at.dice.random(), (190, 230, 244))


def kitchen(at: Canvas) -> None:
    at.box(0, 0, 1, 1, (246, 226, 196))
    for row in range(4):
        for column in range(8):
            if (row + column) % 2:
                at.box(column / 8, row * 0.1, (column + 1) / 8, (row + 1) * 0.1, (236, 208, 172))
    at.box(0.58, 0.1, 0.92, 0.4, (250, 250, 250))
    at.box(0.6, 0.12, 0.9, 0.38, (150, 206, 240))
    at.box(0.745, 0.12, 0.755, 0.38, (250, 250, 250))
    at.robot(0.32, 0.9, 0.62, right=20, look=0.8)
    at.box(0, 0.78, 1, 1, (150, 100, 66))
    at.box(0, 0.76, 1, 0.8, (120, 78, 52))
    at.box(0.56, 0.62, 0.72, 0.77, (90, 150, 170), round_=0.02)
    for x in (0.6, 0.64, 0.68):
        at.disc(x, 0.55 - 0.03 * math.sin(x * 90), 0.014, (255, 250, 244))
    for x, colour in ((0.8, (210, 60, 60)), (0.87, (230, 190, 60)), (0.94, (110, 170, 80))):
        at.disc(x, 0.73, 0.035, colour)


def lake(at: Canvas) -> None:
    at.sky((200, 150, 190), (250, 210, 180))
    for x, top in ((0.2, 0.24), (0.52, 0.14), (0.86, 0.28)):
        at.shape((110, 100, 140), (x - 0.32, 0.6), (x, top), (x + 0.32, 0.6))
        at.shape((244, 240, 246), (x - 0.06, top + 0.085), (x, top), (x + 0.06, top + 0.085), (x, top + 0.12))
    at.box(0, 0.58, 1, 1, (96, 130, 170))
    for x, y in at.scatter(40, 0.62, 0.98):
        at.stroke((x, y), (x + 0.06, y), 0.005, (140, 172, 204))
    at.robot(0.46, 0.84, 0.36, left=210, right=30)
    at.stroke((0.58, 0.62), (0.74, 0.92), 0.014, (110, 72, 46))
    at.shape((150, 70, 60), (0.24, 0.76), (0.7, 0.76), (0.62, 0.87), (0.32, 0.87))


@dataclass(frozen=True, slots=True)
class Scene:
    draw: Callable[[Canvas], None]
    caption: str
    size: tuple[int, int] = (1024, 1024)

    @property
    def name(self) -> str:
        return self.draw.__name__


_WIDE, _HIGH = (1152, 960), (960, 1152)

SCENES = (
    Scene(meadow, "a small orange robot waves on a flowering meadow under the sun"),
    Scene(beach, "a small orange robot on a beach at sunset, next to a red parasol", _WIDE),
    Scene(snow, "a small orange robot with a blue scarf in falling snow, fir trees behind it", _HIGH),
    Scene(city, "a small orange robot with an umbrella in a city street at night, lit windows", _WIDE),
    Scene(forest, "a small orange robot stretches out its arms between trees in a forest, mushrooms", _HIGH),
    Scene(desert, "a small orange robot raises both arms in a desert, cactuses", _WIDE),
    Scene(moon, "a small orange robot beside a red flag on the moon, the earth and stars in the sky"),
    Scene(sea, "a small orange robot swims underwater, three fish and bubbles around it", _HIGH),
    Scene(kitchen, "a small orange robot cooks in a kitchen, a steaming pot and fruit on the counter"),
    Scene(lake, "a small orange robot rows a boat on a mountain lake, snowy peaks", _WIDE),
)


def drawn(scene: Scene) -> Image.Image:
    size = (scene.size[0] * FINER, scene.size[1] * FINER)
    canvas = Canvas(Image.new("RGB", size), random.Random(scene.name))
    scene.draw(canvas)
    return canvas.image.resize(scene.size, Image.Resampling.LANCZOS)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        drawn(scene).save(folder / f"{scene.name}.jpg", quality=72, optimize=True)
        (folder / f"{scene.name}.txt").write_text(f"{scene.caption}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
