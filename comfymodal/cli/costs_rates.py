"""`comfymodal costs rates`."""

from __future__ import annotations

from typing import Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, TargetOption, open_context, open_desk


def rates(
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask Modal for this workspace's own prices, and keep them for 30 days.")
    ] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What Modal asks for GPUs, cores, memory and storage: whose prices, of which day, and what changed."""
    from comfymodal.operations.costs_rates import show_rates
    from comfymodal.output.show import show

    with open_desk(as_json=as_json) as desk:
        show(show_rates(open_context(config, target=target), refresh=refresh), desk, command=["costs", "rates"])
