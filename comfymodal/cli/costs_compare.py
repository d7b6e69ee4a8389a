"""`comfymodal costs compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comfymodal.cli.options import ConfigOption, JsonOption, open_context, open_desk

if TYPE_CHECKING:
    from comfymodal.costs.compare import Rental


def compare(
    since: Annotated[str, typer.Option("--since", metavar="DURATION", help="How far back, e.g. 7d, 12h.")] = "30d",
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="GPU", help="Only this GPU of Modal.", show_default=False)
    ] = None,
    usd_per_hour: Annotated[
        str | None,
        typer.Option(
            "--usd-per-hour",
            metavar="USD",
            help="Price of a rental as of today, instead of costs.rentals of the project.",
            show_default=False,
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", help="How fast that rental is; Modal's card is 1.", min=0.01, max=100),
    ] = None,
    setup_hours: Annotated[
        float | None, typer.Option("--setup-hours", help="Hours to set that rental up.", min=0, max=1000)
    ] = None,
    rerun: Annotated[
        float | None,
        typer.Option("--rerun", help="1.1 for a rental that loses a tenth of its time.", min=1, max=10),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what was used of Modal's GPUs with the same work on rented ones."""
    import time

    from comfymodal.operations.costs_compare import CompareWish, compare_costs
    from comfymodal.output.show import show

    now = time.time()
    offer = _offer(usd_per_hour, {"speed": speed, "setup_h": setup_hours, "rerun": rerun}, now)
    wish = CompareWish(_seconds(since), _gpu(gpu), offer)
    with open_desk(as_json=as_json) as desk:
        show(compare_costs(wish, open_context(config), desk, now=now), desk, command=["costs", "compare"])


def _offer(usd_per_hour: str | None, more: dict[str, float | None], now: float) -> Rental | None:
    from datetime import UTC, datetime

    from comfymodal.costs.compare import Rental
    from comfymodal.costs.rates import nanodollars_of
    from comfymodal.project.rental_values import parse_price

    given = {name: value for name, value in more.items() if value is not None}
    if usd_per_hour is None:
        if given:
            raise typer.BadParameter(
                "says how a rental of --usd-per-hour is", param_hint="--speed, --setup-hours, --rerun"
            )
        return None
    try:
        price = nanodollars_of(parse_price(usd_per_hour))
    except ValueError as exc:
        raise typer.BadParameter(f"{usd_per_hour!r} {exc}", param_hint="--usd-per-hour") from exc
    return Rental("the rental", price, datetime.fromtimestamp(now, UTC).date().isoformat(), **given)


def _gpu(text: str | None) -> str | None:
    from comfymodal.costs.rates import parse_gpu

    try:
        return None if text is None else parse_gpu(text).label
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--gpu") from exc


def _seconds(text: str) -> float:
    from comfymodal.project.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} {exc}", param_hint="--since") from exc
