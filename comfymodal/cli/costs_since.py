"""`--since` of the reports of costs."""

from __future__ import annotations

import typer


def since_at(text: str, now: float) -> float | None:
    """Unix seconds, None for `all`. Raises `typer.BadParameter`."""
    from comfymodal.costs.period import parse_since

    try:
        return parse_since(text, now=now)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--since") from exc
