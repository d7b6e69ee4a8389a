"""What a person reads of `costs estimate`: one choice with its parts, several side by side; pure."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.costs_estimate_results import CostsEstimated, EgressView, EstimateRow
from comfymodal.output.words import bytes_in_words, count, money_in_words, seconds_in_words, span_in_words

Rows = list[tuple[str, ...]]

_ITEMS = {"render": "prompt", "train": "training", "sync": "pair"}
_UNKNOWN = "-"


def estimate_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows; None for any other result."""
    if not isinstance(result, CostsEstimated):
        return None
    if len(result.rows) == 1 and result.rows[0].is_known:
        return (), _one(result, result.rows[0])
    if not result.rows:
        return (), [("what", _what(result)), ("cost", "nothing")]
    if result.kind == "sync":
        return ("pair", "usual", "typical", "at most", "by"), [_sync_row(row) for row in result.rows]
    titles = ("GPU", "price", "time", "low", "typical", "high", "each", "at most", "fits", "by")
    return titles, [_choice_row(row) for row in result.rows]


def estimate_end(result: Any) -> list[str]:
    """The last lines: what the figures are of, and what is not in them."""
    if not isinstance(result, CostsEstimated):
        return []
    dates = sorted({row.prices_as_of for row in result.rows if row.prices_as_of})
    prices = [f"prices of {' and '.join(dates)}; all of it is an estimate"] if dates else []
    egress = [_egress(result.egress)] if result.egress is not None and len(result.rows) > 1 else []
    return [*egress, *prices, *result.notes]


def _one(result: CostsEstimated, row: EstimateRow) -> Rows:
    told = {name: money_in_words(getattr(row, f"{name}_usd")) for name in ("low", "typical", "high")}
    span = span_in_words({**told, "basis": row.basis} if row.typical_usd is not None else {"basis": row.basis})
    rows: Rows = [("what", _what(result)), ("on", " ".join(part for part in (row.name, row.per_hour) if part))]
    rows.append(("cost", span))
    if row.typical_usd is not None:
        rows += [
            ("  start-up", _part(row.startup_s, row.startup_usd)),
            ("  run", _part(row.run_s, row.run_usd)),
            ("  idle", _part(row.idle_s, row.idle_usd)),
            ("  of it GPU", money_in_words(row.gpu_usd) if row.vram_gb else ""),
            ("  of it CPU, memory", money_in_words(row.cpu_memory_usd)),
        ]
    if row.per_item_usd is not None and result.kind != "sync":
        used = f"; {row.overhead:.2f} s are paid for each second of it" if row.overhead is not None else ""
        rows.append((f"each {_ITEMS[result.kind]}", f"{money_in_words(row.per_item_usd)}{used}"))
    rows.append(("at most", money_in_words(row.worst_usd)))
    if row.memory:
        rows.append(("memory", f"{'fits: ' if row.fits else ''}{row.memory}, {row.vram_gb} GB on it"))
    if result.egress is not None:
        rows.append(("egress", _egress(result.egress)))
    return [each for each in rows if each[1]]


def _what(result: CostsEstimated) -> str:
    number = "" if result.kind == "sync" else f", {count(result.items, _ITEMS[result.kind])}"
    return f"{result.what}{number}"


def _choice_row(row: EstimateRow) -> tuple[str, ...]:
    if not row.is_known:
        return (row.name, *[_UNKNOWN] * 8, row.basis)
    return (
        row.name,
        row.per_hour or _UNKNOWN,
        _UNKNOWN if row.run_s is None else seconds_in_words(row.run_s),
        *(
            money_in_words(amount)
            for amount in (row.low_usd, row.typical_usd, row.high_usd, row.per_item_usd, row.worst_usd)
        ),
        "✓" if row.fits else _UNKNOWN,
        row.basis,
    )


def _sync_row(row: EstimateRow) -> tuple[str, ...]:
    low, high = money_in_words(row.low_usd), money_in_words(row.high_usd)
    usual = low if low == high else f"{low} to {high}"
    return (row.name, usual, money_in_words(row.typical_usd), money_in_words(row.worst_usd), row.basis)


def _part(seconds: float | None, usd: str | None) -> str:
    took = _UNKNOWN if seconds is None else seconds_in_words(seconds)
    return f"{money_in_words(usd)} ({took})"


def _egress(egress: EgressView) -> str:
    size = bytes_in_words(egress.size_bytes)
    price = money_in_words(egress.usd)
    return f"{size} of outputs leave Modal: free within the plan's 1 TiB (Starter) a month, beyond it {price}"
