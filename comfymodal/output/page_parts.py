"""Pieces of an HTML page: text made safe, lists, tables, pictures; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from comfymodal.operations.train_report_results import SampleShot, Shot
from comfymodal.output.page_style import CSS, POLICY, SCRIPT

Fact = tuple[str, str]
"""A term and what there is to say, as HTML; empty ones are left out."""


def document(title: str, body: Iterable[str], *, has_shots: bool = True) -> str:
    """The whole page: it needs no other file and reaches for none. `has_shots`: pictures that a click opens large."""
    shots = f'<dialog aria-label="Sample"><img alt="" src="data:,"><p></p></dialog>\n<script>{SCRIPT}</script>\n'
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>",
            *body,
            f"</main>\n{shots if has_shots else ''}</body>\n</html>\n",
        ]
    )


def text(value: object) -> str:
    """Text from anywhere, for inside of tags and of attributes in double quotes."""
    return escape(str(value))


def code(value: object) -> str:
    return f"<code>{text(value)}</code>"


def section(title: str, *parts: str) -> str:
    """A part with a heading; nothing where there is nothing in it."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{inside}\n</section>" if inside else ""


def facts(pairs: Iterable[Fact]) -> str:
    rows = "".join(f"<dt>{text(term)}</dt><dd>{said}</dd>" for term, said in pairs if said)
    return f"<dl>{rows}</dl>" if rows else ""


def tiles(pairs: Iterable[Fact]) -> str:
    inside = "".join(f'<div class="tile"><b>{said}</b><span>{text(term)}</span></div>' for term, said in pairs if said)
    return f'<div class="tiles">{inside}</div>'


def note(lines: Sequence[str], *, is_error: bool = False) -> str:
    """Lines of HTML in a box."""
    if not lines:
        return ""
    inside = lines[0] if len(lines) == 1 else f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
    return f'<div class="note{" error" if is_error else ""}">{inside}</div>'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Cells are HTML; `numbers` are the columns that are set to the right. A column without any content goes."""
    kept = [column for column in range(len(titles)) if any(row[column] for row in rows)]
    if not rows:
        return ""

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [' class="number"' if column in numbers else "" for column in kept]
        inside = "".join(f"<{tag}{mark}>{cells[column]}</{tag}>" for mark, column in zip(marks, kept, strict=True))
        return f"<tr>{inside}</tr>"

    head = line("th", [text(title) for title in titles])
    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table class="list"><thead>{head}</thead><tbody>\n{body}</tbody></table></div>'


def picture(sample: SampleShot | None, words: str) -> str:
    """A sample with its step below; a click opens it large with `words`."""
    if sample is None:
        return '<span class="none">no sample</span>'
    step = "before training" if sample.step == 0 else f"step {sample.step}"
    if sample.shot.uri is None:
        return (
            f'<span class="none">{text(sample.shot.file)} cannot be shown</span><span class="soft small">{step}</span>'
        )
    return (
        f'<button type="button" class="shot" data-words="{text(f"{step}: {words}")}">'
        f"{image(sample.shot, f'sample at {step}')}<span>{step}</span></button>"
    )


def image(shot: Shot, words: str) -> str:
    size = f'width="{shot.width}" height="{shot.height}"'
    return f'<img src="{text(shot.uri)}" alt="{text(words)}" {size}>'


def folded(title: str, body: str) -> str:
    return f"<details><summary>{text(title)}</summary>\n{body}\n</details>"
