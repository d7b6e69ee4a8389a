"""The only place that prints answers: a result or an error, as a table for people or JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from comfymodal.errors import ComfymodalError
from comfymodal.operations.costs_results import CostsReport
from comfymodal.operations.results import RunReport
from comfymodal.operations.sync_results import SyncReport
from comfymodal.output.budget_table import budget_table
from comfymodal.output.compare_tables import compare_end, compare_lines, compare_table
from comfymodal.output.costs_report import BAR_LEAST, BAR_MOST, costs_bars, costs_end, costs_head, costs_table
from comfymodal.output.deploy_tables import deploy_table
from comfymodal.output.desk import TerminalDesk
from comfymodal.output.engine_tables import engine_table
from comfymodal.output.envelope import Verdict, build_envelope, build_error_envelope, dump
from comfymodal.output.estimate_tables import estimate_end, estimate_table
from comfymodal.output.fleet_tables import fleet_table
from comfymodal.output.models_tables import models_table
from comfymodal.output.rates_table import rates_table
from comfymodal.output.reconcile_table import reconcile_table
from comfymodal.output.screen import write_stderr
from comfymodal.output.setup_tables import setup_table
from comfymodal.output.sync_tables import SHOWN_PATHS, sync_errors, sync_lines, sync_table
from comfymodal.output.tables import Rows, details_of, summary_of, table_of
from comfymodal.output.train_tables import train_end, train_lines, train_table
from comfymodal.output.words import harmless

if TYPE_CHECKING:
    from rich.console import Console

_FOLDED_FROM = 12
"""Cells of a table up to so wide are never folded."""

_FOLDED_TO = 10


def show(
    result: Any, desk: TerminalDesk, *, command: Sequence[str], with_details: bool = False, is_verbose: bool = False
) -> None:
    """Print a result as the last thing of a command; with details, a run also says what it was.

    `is_verbose`: also the paths of a sync about which there is nothing to say.
    """
    desk.close()
    if desk.as_json or desk.as_events:
        _print_envelope(build_envelope(result, command=command, warnings=desk.warnings), as_events=desk.as_events)
        return
    if isinstance(result, CostsReport):
        _show_costs(result)
        return
    titles, rows = (
        engine_table(result)
        or deploy_table(result)
        or setup_table(result)
        or fleet_table(result)
        or models_table(result)
        or rates_table(result)
        or budget_table(result)
        or reconcile_table(result)
        or train_table(result)
        or compare_table(result)
        or estimate_table(result)
        or sync_table(result, limit=SHOWN_PATHS if sys.stdout.isatty() else None, is_verbose=is_verbose)
        or table_of(result)
    )
    for line in train_lines(result) or compare_lines(result):
        _print(harmless(line))
    if with_details:
        _print_table((), details_of(result))
        rows = [] if isinstance(result, RunReport) and not (result.outputs or result.texts) else rows
    _print_table(titles, rows)
    for line in compare_end(result):
        _print(harmless(line))
    _write_end(result, is_brief=with_details or desk.is_quiet)


def _show_costs(report: CostsReport) -> None:
    for line in costs_head(report):
        _print(harmless(line))
    titles, rows = costs_table(report)
    if sys.stdout.isatty() and rows:
        _print_costs_table(report, titles, rows)
    else:
        _print_table(titles, rows)
    _print_table((), costs_end(report))


def _print_costs_table(report: CostsReport, titles: tuple[str, ...], rows: Rows) -> None:
    """Numbers to the right, and a bar where there is room for one."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    # What a person copies, and numbers, stay on one line; what a workflow is called need not.
    is_long = [title in ("workflow", "tag", "what") for title in titles]
    widths = [max(cell_len(row[place]) for row in (titles, *rows) if place < len(row)) for place in range(len(titles))]
    console = _wide_enough(widths, is_long)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, title in enumerate(titles):
        is_left = place == 0 or is_long[place]
        table.add_column(title, justify="left" if is_left else "right", overflow="fold", no_wrap=not is_long[place])
    room = console.width - sum(widths) - 2 * len(widths)
    bars = costs_bars(report, min(BAR_MOST, room), is_ascii=console.encoding != "utf-8") if room >= BAR_LEAST else []
    if bars:
        table.add_column("")
    for number, row in enumerate(rows):
        is_total = number == len(rows) - 1
        cells = [Text(harmless(cell), style="bold" if is_total else "") for cell in row]
        cells += [Text("")] * (len(titles) - len(row))
        table.add_row(*cells, *([Text(bars[number], style="cyan")] if number < len(bars) else []))
    console.print(table)


def _write_end(result: Any, *, is_brief: bool) -> None:
    """What went wrong, and the last lines with the next command."""
    if isinstance(result, SyncReport):
        for error in sync_errors(result):
            _write_error(error)
        for line in () if is_brief else sync_lines(result):
            write_stderr(line)
        return
    if isinstance(result, Verdict) and result.error is not None:
        _write_error(result.error)
    for line in () if is_brief else (*train_end(result), *estimate_end(result)):
        write_stderr(line)
    if isinstance(result, RunReport) and not is_brief:
        write_stderr(summary_of(result))


def show_error(error: ComfymodalError, *, command: Sequence[str], as_json: bool, as_events: bool) -> None:
    """Print an error: with JSON an envelope on stdout, else a message and its hint on stderr."""
    if as_json or as_events:
        _print_envelope(build_error_envelope(error.to_dict(), command=command), as_events=as_events)
    else:
        _write_error(error.to_dict())


def show_stream(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        _print(line)


def show_document(document: Any) -> None:
    """Print plain JSON that is an answer by itself."""
    _print(dump(document, indent=2))


def show_lines(lines: Sequence[str]) -> None:
    """Print an answer that is text already."""
    _print("\n".join(lines))


def open_output(report: RunReport) -> None:
    """Open the first output with what the system opens such files with."""
    if report.outputs:
        open_page(report.outputs[0].path)


def open_page(path: str) -> None:
    """Open a file with what the system opens such files with."""
    import typer

    typer.launch(path)


def _write_error(error: Any) -> None:
    write_stderr(f"error: {error.get('message')}")
    for problem in (error.get("problems") or ())[1:]:
        words = (problem.get("place"), problem.get("key"), problem.get("message"))
        write_stderr("       " + ": ".join(str(word) for word in words if word))
    if error.get("hint"):
        write_stderr(f"hint: {error['hint']}")


def _print_table(titles: tuple[str, ...], rows: Rows) -> None:
    if not rows:
        return
    if not sys.stdout.isatty():
        # Other programs read this: tabs between columns, no titles, nothing cut or wrapped.
        for row in rows:
            _print("\t".join(_on_a_line(cell) if len(row) > 1 else harmless(cell) for cell in row))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = _shown_widths(titles, rows, Console().width)
    # What a person copies, a path or an id, stays on one line however narrow the terminal is, and so do amounts.
    is_long = [column > 0 and width > _FOLDED_FROM for column, width in enumerate(widths)]
    headed = [max(width, cell_len(title)) for width, title in zip(widths, titles or [""] * len(widths), strict=False)]
    console = _wide_enough(headed, is_long)
    # A row of one cell is a sentence, which may go on in the next line.
    is_long[0] = any(len(row) == 1 and cell_len(row[0]) > widths[0] for row in rows)
    table = Table(box=None, show_header=bool(titles), pad_edge=False, header_style="dim")
    for column, width in enumerate(widths):
        title, least = titles[column] if titles else "", width if column == 0 else None
        table.add_column(title, overflow="fold", min_width=least, no_wrap=not is_long[column])
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row[: len(table.columns)]))
    console.print(table)


def _on_a_line(cell: str) -> str:
    return harmless(" ".join(cell.split("\n")).replace("\t", " "))


def _wide_enough(widths: Sequence[int], is_long: Sequence[bool]) -> Console:
    """A screen as wide as the terminal, or wider: Rich would cut numbers off, a terminal goes on in its next line."""
    from rich.console import Console

    console = Console()
    least = sum(min(width, _FOLDED_TO) if folds else width for width, folds in zip(widths, is_long, strict=True))
    least += 2 * (len(widths) - 1)
    return console if least <= console.width else Console(width=least)


def _shown_widths(titles: tuple[str, ...], rows: Rows, room: int) -> list[int]:
    """Widths of the columns to show: of a list of files those that fit, of anything else all."""
    from rich.cells import cell_len

    columns = max(len(row) for row in rows)
    widths = [
        max((cell_len(row[column]) for row in rows if len(row) > max(column, 1)), default=0)
        for column in range(columns)
    ]
    is_file_list = not titles and columns > 2
    while is_file_list and len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > room:
        widths.pop()
    return widths


def _print_envelope(envelope: dict[str, Any], *, as_events: bool) -> None:
    _print(dump({"type": "result", **envelope}) if as_events else dump(envelope, indent=2))


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()
