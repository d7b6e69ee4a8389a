"""Amounts of money as bars: stacked by day in an SVG, and in lines; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from comfymodal.output.page_chart import ticks
from comfymodal.output.page_parts import text
from comfymodal.output.page_style import COLOURS
from comfymodal.output.words import money_in_words

WIDTH, HEIGHT = 900, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 30
MOST_BARS = 62
"""Of more days each bar is a week, of more weeks a month."""

_LABELS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """A day, a week or a month with its parts, each in dollars."""

    label: str
    parts: dict[str, Decimal]

    @property
    def total(self) -> Decimal:
        return sum(self.parts.values(), start=Decimal(0))


def bars_of(days: Sequence[tuple[date, dict[str, Decimal]]]) -> tuple[str, list[Bar]]:
    """What a bar is, and all bars from the first day to the last one: a day without runs has an empty one."""
    if not days:
        return "day", []
    first, last = days[0][0], days[-1][0]
    count = (last - first).days + 1
    if count <= MOST_BARS:
        unit, label = "day", _day
    elif count <= 7 * MOST_BARS:
        unit, label = "week", _week
    else:
        unit, label = "month", _month
    labels = dict.fromkeys(label(first + timedelta(days=number)) for number in range(count))
    bars = {name: Bar(name, {}) for name in labels}
    for day, parts in days:
        own = bars[label(day)].parts
        for name, amount in parts.items():
            own[name] = own.get(name, Decimal(0)) + amount
    return unit, list(bars.values())


def stacked(bars: Sequence[Bar], names: Sequence[str], *, title: str) -> str:
    """One drawing, `names` from the bottom up. Empty where nothing was spent."""
    most = float(max((bar.total for bar in bars), default=Decimal(0)))
    if not most:
        return ""
    gap = ticks(0, most, 4)[1]
    marks = [gap * number for number in range(math.ceil(most / gap) + 1)]
    top = marks[-1]
    parts = [
        f'<svg class="bars" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}">',
        *_lines(marks, top),
        *_columns(bars, names, top),
        "</svg>",
    ]
    return f'<div class="chart scroll">{"".join(parts)}</div>'


def legend(names: Sequence[str]) -> str:
    square = '<i class="square" style="background:{}"></i>'
    items = "".join(f"<li>{square.format(colour(name, names))}{text(name)}</li>" for name in names)
    return f'<ul class="legend">{items}</ul>'


def colour(name: str, names: Sequence[str]) -> str:
    return f"var(--c{names.index(name) % COLOURS})"


def meter(parts: Sequence[tuple[str, float]], words: str) -> str:
    """A track from 0 to 1 with parts, each up to where it ends, the longest first; a part is a class and its end."""
    inside = "".join(
        f'<i class="{text(name)}" style="width:{min(1.0, max(0.0, end)) * 100:.2f}%"></i>' for name, end in parts
    )
    return f'<div class="meter" role="img" aria-label="{text(words)}">{inside}</div>'


def meters(rows: Sequence[tuple[str, str, str]]) -> str:
    """Lines of a name, a meter and what it comes to, all as HTML."""
    lines = "".join(
        f'<span class="name">{name}</span>{drawn}<span class="number">{said}</span>' for name, drawn, said in rows
    )
    return f'<div class="meters">{lines}</div>' if rows else ""


def _y(amount: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * amount / top


def _lines(marks: Sequence[float], top: float) -> Iterator[str]:
    for mark in marks:
        y = _y(mark, top)
        yield f'<path class="grid-line" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">${mark:,.6g}</text>'
    yield f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'


def _columns(bars: Sequence[Bar], names: Sequence[str], top: float) -> Iterator[str]:
    room = (WIDTH - LEFT - RIGHT) / len(bars)
    width = min(room * 0.8, 60.0)
    every = -(-len(bars) // _LABELS)
    for number, bar in enumerate(bars):
        middle = LEFT + (number + 0.5) * room
        if number % every == 0:
            yield f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{text(_short(bar.label))}</text>'
        if bar.total:
            stack = "".join(_stack(bar, names, middle - width / 2, width, top))
            yield f"<g><title>{text(_told(bar, names))}</title>{stack}</g>"


def _stack(bar: Bar, names: Sequence[str], x: float, width: float, top: float) -> Iterator[str]:
    below = 0.0
    for name in names:
        amount = float(bar.parts.get(name, 0))
        if amount:
            y, foot = _y(below + amount, top), _y(below, top)
            place = f'x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{foot - y:.2f}"'
            yield f'<rect {place} fill="{colour(name, names)}"/>'
            below += amount


def _told(bar: Bar, names: Sequence[str]) -> str:
    parts = [f"{name} {_money(bar.parts[name])}" for name in names if bar.parts.get(name)]
    return f"{bar.label}: {_money(bar.total)} ({', '.join(parts)})"


def _money(amount: Decimal) -> str:
    return money_in_words(f"{amount:f}")


def _short(label: str) -> str:
    """A month keeps its year: there may be several."""
    return label[5:] if len(label) > 7 else label


def _day(day: date) -> str:
    return f"{day:%Y-%m-%d}"


def _week(day: date) -> str:
    return f"{day - timedelta(days=day.weekday()):%Y-%m-%d}"


def _month(day: date) -> str:
    return f"{day:%Y-%m}"
