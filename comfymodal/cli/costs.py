"""`comfymodal costs ...`: without a subcommand, the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfymodal.cli.costs_budget import budget
from comfymodal.cli.costs_compare import compare
from comfymodal.cli.costs_estimate import app as estimate_app
from comfymodal.cli.costs_rates import rates
from comfymodal.cli.costs_reconcile import reconcile
from comfymodal.cli.costs_since import since_at
from comfymodal.cli.options import ConfigOption, JsonOption, QuietOption, open_desk

if TYPE_CHECKING:
    from comfymodal.runs.totals import Grouping

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="What runs cost: before, while, after.",
)


@app.callback(invoke_without_command=True)
def costs(
    context: typer.Context,
    since: Annotated[
        str, typer.Option("--since", metavar="PERIOD", help="7d (today and six days before it), 24h, 2026-11-01, all.")
    ] = "7d",
    by: Annotated[str, typer.Option("--by", metavar="KEY", help="day, run, workflow, gpu, kind or tag.")] = "day",
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", min=1, help="The N dearest, the others in one row [default: 20, of days all]."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV, in dollars.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write one HTML page.", show_default=False)
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What runs cost: before, while, after. Without a command: what they came to."""
    if context.invoked_subcommand is not None:
        return
    import os
    import time

    from comfymodal.operations.books import open_books
    from comfymodal.operations.budgets import show_budgets
    from comfymodal.operations.costs import CostsWish, costs_page, costs_report, write_page
    from comfymodal.output.show import open_page, show, show_lines

    if as_csv and as_json:
        raise typer.BadParameter("choose one of --csv and --json", param_hint="--csv")
    if open_ and html is None:
        raise typer.BadParameter("there is no page without --html FILE", param_hint="--open")
    now = time.time()
    wish = CostsWish(since_at(since, now), _grouping(by), top)
    with open_desk(as_json=as_json, quiet=quiet) as desk:
        books = open_books(config, environ=os.environ, cwd=Path.cwd())
        report = costs_report(wish, books, now=now, budgets=show_budgets(books, now=now).budgets)
        if html is not None:
            from comfymodal.output.costs_page import page

            report = write_page(report, page(costs_page(report, books, since=wish.since, now=now)), html)
        if as_csv:
            from comfymodal.output.costs_report import costs_csv

            show_lines(costs_csv(report).splitlines())
        else:
            show(report, desk, command=["costs"])
    if open_ and report.page:
        open_page(report.page)


def _grouping(text: str) -> Grouping:
    from comfymodal.runs.totals import GROUPINGS

    for grouping in GROUPINGS:
        if text == grouping:
            return grouping
    raise typer.BadParameter(f"{text!r} is none of {', '.join(GROUPINGS)}", param_hint="--by")


app.add_typer(estimate_app, name="estimate")
app.command("budget")(budget)
app.command("rates")(rates)
app.command("reconcile")(reconcile)
app.command("compare")(compare)
