"""Curves as SVG; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from comfymodal.output.page_style import COLOURS, DASHES
from comfymodal.training.curves import Curve

WIDTH, HEIGHT = 900, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 26, 16, 46
MOST_POINTS = 700
"""Of one line: more than it has pixels would only make the page heavy."""

PROBES = 120
LOG_FROM = 8.0
"""How many times the least of the smoothed losses the greatest is where a logarithmic axis shows more."""

_OUTLIERS = 0.005


@dataclass(frozen=True, slots=True)
class Line:
    """One curve with its name; `raw` is drawn thinly behind it, `number` chooses colour and dashes."""

    name: str
    curve: Curve
    raw: Curve = ()
    number: int = 0
    is_dotted: bool = False
    """With a mark on every point: there are few of them."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """From values to places in the drawing."""

    last_step: int
    low: float
    high: float
    is_log: bool

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, self.last_step)

    def y(self, value: float) -> float:
        low, high, value = (self._scaled(each) for each in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.03, max(-0.03, share))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low * 1e-3)) if self.is_log else value


def line_attributes(number: int) -> str:
    """Attributes that give a line its colour and its dashes."""
    dash = DASHES[number // COLOURS % len(DASHES)]
    return f'stroke="var(--c{number % COLOURS})"' + (f' stroke-dasharray="{dash}"' if dash else "")


def swatch(number: int) -> str:
    """A short piece of the line, for a legend."""
    path = f'<path class="curve" d="M1 5H33" {line_attributes(number)}/>'
    return f'<svg class="swatch" viewBox="0 0 34 10" aria-hidden="true">{path}</svg>'


def chart(lines: Sequence[Line], *, last_step: int, saves: Sequence[int] = (), title: str = "Loss by step") -> str:
    """The lines in one drawing; `saves` are steps to mark. Empty without any line that has two points."""
    shown = [line for line in lines if len(line.curve) > 1]
    if not shown:
        return ""
    frame = _frame(shown, last_step)
    clip = f"inside-{title.split(maxsplit=1)[0].lower()}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>',
        *_axes(frame),
        *(_save(frame, step) for step in saves if step <= frame.last_step),
        f'<g clip-path="url(#{clip})">',
        *(f'<path class="raw" d="{_path(_extremes(line.raw), frame)}"/>' for line in shown if line.raw),
        *(_drawn(line, frame) for line in shown),
        "</g>",
        *_probes(shown, frame),
        "</svg>",
    ]
    return f'<div class="chart scroll">{"".join(parts)}</div>'


def _frame(lines: Sequence[Line], last_step: int) -> _Frame:
    smooth = [value for line in lines for _, value in line.curve]
    raw = sorted(value for line in lines for _, value in line.raw)
    cut = int(len(raw) * _OUTLIERS)
    low = min(*smooth, *raw[cut : cut + 1], math.inf)
    high = max(*smooth, *raw[len(raw) - cut - 1 :][:1], -math.inf)
    is_log = low > 0 and max(smooth) / max(min(smooth), 1e-12) >= LOG_FROM
    if not is_log:
        margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
        # A curve that stays above nought is shown above it.
        low, high = max(low - margin, 0.0) if low >= 0 else low - margin, high + margin
    elif high <= low:
        high = low * 10
    steps = [line.curve[-1][0] for line in lines]
    return _Frame(max(last_step, *steps, 1), low, high, is_log)


def _axes(frame: _Frame) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in _log_ticks(frame.low, frame.high) if frame.is_log else ticks(frame.low, frame.high, 5):
        y = frame.y(value)
        yield f'<path class="grid-line" d="M{LEFT} {y:.1f}H{right}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    for step in ticks(0, frame.last_step, 8):
        if step == int(step):
            x = frame.x(step)
            yield f'<path class="axis" d="M{x:.1f} {bottom}v5"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{step:.0f}</text>'
    yield f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    middle = (TOP + bottom) / 2
    words = "loss (logarithmic)" if frame.is_log else "loss"
    yield f'<text class="title" x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">step</text>'
    yield f'<text class="title" transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{words}</text>'


def _save(frame: _Frame, step: int) -> str:
    x, bottom = frame.x(step), HEIGHT - BOTTOM
    line = f'<path class="save" d="M{x:.1f} {TOP}V{bottom}"/>'
    mark = f'<path class="save-mark" d="M{x:.1f} {bottom - 1}l-5 -8h10z"/>'
    return f"<g><title>saved at step {step}</title>{line}{mark}</g>"


def _drawn(line: Line, frame: _Frame) -> str:
    points = line.curve if line.is_dotted else _some(line.curve)
    path = f'<path class="curve" d="{_path(points, frame)}" {line_attributes(line.number)}/>'
    if line.is_dotted:
        fill = f'fill="var(--c{line.number % COLOURS})"'
        path += "".join(
            f'<circle class="dot" r="3.5" cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" {fill}/>'
            for step, value in points
        )
    return path


def _probes(lines: Sequence[Line], frame: _Frame) -> Iterator[str]:
    """Columns that say under the mouse what the curves are there."""
    count = min(PROBES, frame.last_step)
    width = (WIDTH - LEFT - RIGHT) / count
    finds = [_near(line.curve) for line in lines]
    for number in range(count):
        step = (number + 0.5) * frame.last_step / count
        found = [(line.name, find(step)) for line, find in zip(lines, finds, strict=True)]
        words = [f"{name}: {point[1]:.4g}" for name, point in found if point]
        if not words:
            continue
        at = next(point[0] for _, point in found if point)
        x = LEFT + number * width
        told = escape("\n".join([f"step {at}", *words]))
        place = f'x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="probe" {place}><title>{told}</title></rect>'


def _near(curve: Curve) -> Callable[[float], tuple[int, float] | None]:
    """A finder of the point nearest to a step; None beyond the end of the curve. Asked for rising steps."""
    place = 0

    def find(step: float) -> tuple[int, float] | None:
        nonlocal place
        while place + 1 < len(curve) and abs(curve[place + 1][0] - step) <= abs(curve[place][0] - step):
            place += 1
        gap = (curve[-1][0] - curve[0][0]) / max(1, len(curve) - 1)
        return None if step > curve[-1][0] + gap or step < curve[0][0] - gap else curve[place]

    return find


def _path(points: Sequence[tuple[int, float]], frame: _Frame) -> str:
    return "M" + "L".join(f"{frame.x(step):.1f} {frame.y(value):.1f}" for step, value in points)


def _some(curve: Curve) -> Curve:
    every = math.ceil(len(curve) / MOST_POINTS)
    return (*curve[:-1:every], curve[-1])


def _extremes(curve: Curve) -> list[tuple[int, float]]:
    """The least and the greatest of each piece: what jumps must not be thinned away."""
    size = math.ceil(len(curve) * 2 / MOST_POINTS)
    if size < 2:
        return list(curve)
    found: list[tuple[int, float]] = []
    for first in range(0, len(curve), size):
        piece = curve[first : first + size]
        found += sorted({min(piece, key=lambda point: point[1]), max(piece, key=lambda point: point[1])})
    return found


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    gap = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / gap - 1e-9)
    return [index * gap for index in range(first, math.floor(high / gap + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    return [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]
