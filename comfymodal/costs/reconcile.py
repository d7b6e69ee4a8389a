"""What Modal billed beside what was measured. Modal bills an app by the hour: there is no figure of a run.

So each hour's bill of an app is shared among the runs that were paid for in it, by what was measured of each. What
was billed in hours without any run (builds, keeping warm, others) belongs to none. Pure; money is nanodollars, times
are Unix seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

HOUR_S = 3600

PROVISIONAL_S = 2 * 3600.0
"""After its end an hour's bill may still grow: Modal speaks of minutes, users of more."""

LEAST_TOLERANCE = 10_000_000
"""One cent: of a few seconds, two percent are less than a clock can tell."""

Status = Literal["matched", "drift", "provisional", "not_available_yet", "no_rows"]

_WORST_FIRST: tuple[Status, ...] = ("not_available_yet", "no_rows", "provisional", "drift", "matched")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds in which one run was paid for in one app's container: from `begin` to `end`."""

    run_id: str
    app: str
    begin: float
    end: float
    nanodollars_per_s: int


@dataclass(frozen=True, slots=True)
class HourOfApp:
    """`billed` is None where Modal has no row, or none that is a number. `difference` is billed less measured."""

    app: str
    hour: int
    """Unix seconds of its beginning, UTC."""
    runs: int
    measured: int
    billed: int | None
    status: Status | Literal["unattributed"]

    @property
    def difference(self) -> int | None:
        return None if self.billed is None else self.billed - self.measured


@dataclass(frozen=True, slots=True)
class RunBill:
    """A run's share of what was billed; None while any of its hours is not known."""

    billed: int | None
    status: Status


@dataclass(frozen=True, slots=True)
class Reconciled:
    hours: tuple[HourOfApp, ...]
    runs: Mapping[str, RunBill]

    @property
    def unattributed(self) -> int:
        """Billed in hours in which no run is known."""
        return sum(hour.billed or 0 for hour in self.hours if hour.status == "unattributed")


def tolerance(nanodollars: int) -> int:
    """How far two figures may lie apart: 2 %, at least one cent."""
    return max(nanodollars // 50, LEAST_TOLERANCE)


def reconcile(
    stretches: Iterable[Stretch], billed: Mapping[tuple[str, int], int | None], *, now: float, known_until: float
) -> Reconciled:
    """Match by app and hour. `billed` is by app and the hour's beginning; up to `known_until` Modal was asked."""
    by_hour = _by_hour(stretches)
    hours = []
    shares: dict[str, list[tuple[int | None, Status]]] = defaultdict(list)
    for place in sorted({*by_hour, *billed}, key=lambda place: (place[1], place[0])):
        app, hour = place
        of_runs, row = by_hour.get(place, {}), billed.get(place)
        measured = sum(of_runs.values())
        status = _status(measured, row, hour, is_there=place in billed, now=now, known_until=known_until)
        hours.append(HourOfApp(app, hour, len(of_runs), measured, row, status if of_runs else "unattributed"))
        for run_id, part in _shared(of_runs, row).items():
            shares[run_id].append((part, status))
    return Reconciled(tuple(hours), {run_id: _bill(parts) for run_id, parts in shares.items()})


def _by_hour(stretches: Iterable[Stretch]) -> dict[tuple[str, int], dict[str, int]]:
    """Nanodollars of each run by app and hour: an idle tail may lie in the next one."""
    found: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for stretch in stretches:
        hour = int(stretch.begin // HOUR_S) * HOUR_S
        while hour < stretch.end:
            seconds = min(stretch.end, hour + HOUR_S) - max(stretch.begin, hour)
            runs = found[stretch.app, hour]
            runs[stretch.run_id] = runs.get(stretch.run_id, 0) + round(seconds * stretch.nanodollars_per_s)
            hour += HOUR_S
    return found


def _status(measured: int, billed: int | None, hour: int, *, is_there: bool, now: float, known_until: float) -> Status:
    if hour + HOUR_S > known_until:
        return "not_available_yet"
    is_young = now < hour + HOUR_S + PROVISIONAL_S
    if billed is None:
        return "not_available_yet" if is_young and not is_there else "no_rows"
    if is_young:
        return "provisional"
    return "matched" if abs(billed - measured) <= tolerance(max(billed, measured)) else "drift"


def _shared(of_runs: Mapping[str, int], billed: int | None) -> dict[str, int | None]:
    """An hour's bill by what was measured of each run. The shares add up to it: the last one takes what is left."""
    if billed is None:
        return dict.fromkeys(of_runs)
    whole, left, found = sum(of_runs.values()), billed, dict[str, int | None]()
    for number, (run_id, measured) in enumerate(sorted(of_runs.items()), 1):
        share = left if number == len(of_runs) else (billed * measured // whole if whole else 0)
        found[run_id], left = share, left - share
    return found


def _bill(parts: list[tuple[int | None, Status]]) -> RunBill:
    known = [part for part, _ in parts if part is not None]
    status = next(status for status in _WORST_FIRST if any(status == each for _, each in parts))
    return RunBill(sum(known) if len(known) == len(parts) else None, status)
