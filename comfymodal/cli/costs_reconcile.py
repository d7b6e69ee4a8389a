"""`comfymodal costs reconcile`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, QuietOption, TargetOption, open_context, open_desk


def reconcile(
    since: Annotated[str, typer.Option("--since", metavar="PERIOD", help="48h, 7d, 2026-11-01: from when on.")] = "48h",
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Match what was measured with what Modal billed, hour by hour; exit code 6 when they drift apart."""
    import time

    from comfymodal.cli.costs_since import since_at
    from comfymodal.operations.reconcile import reconcile_costs
    from comfymodal.output.show import show

    begin = since_at(since, time.time())
    if begin is None:
        raise typer.BadParameter("Modal is asked for at most a month at once: 30d", param_hint="--since")
    with open_desk(as_json=as_json, quiet=quiet) as desk:
        found = reconcile_costs(open_context(config, target=target), desk, since=begin)
        show(found, desk, command=["costs", "reconcile"])
    raise typer.Exit(found.exit_code)
