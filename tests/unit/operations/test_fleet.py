from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from comfymodal.costs.rates import LIST
from comfymodal.operations.fleet import Helpers, Priced, Wanted, explain, total
from comfymodal.operations.fleet_results import StartView
from comfymodal.operations.status import is_overdue, median_start
from comfymodal.runs.ledger import Run
from comfymodal.targets.modal.fleet import ContainerRun, LiveContainer
from comfymodal.targets.modal.warm import Warmth

NOW = 1_000_000.0
WANTED = Wanted(("L40S",), 0, 60.0, 600.0)
L40S_HOUR, CPU_HOUR = "2.395584", "0.055152"


def live(name: str, age_s: float | None = 100.0) -> LiveContainer:
    return LiveContainer(name, "app", None if age_s is None else NOW - age_s)


def ran(name: str, *, gpu: str | None = None, is_over: bool = False) -> ContainerRun:
    return ContainerRun(f"run-{name}", name, gpu, NOW - 50, NOW - 10 if is_over else None)


def look(*containers: LiveContainer, **more: Any) -> list[Priced]:
    runs = {run.container_id: run for run in more.pop("runs", ())}
    helpers = more.pop("helpers", Helpers("", 0))
    return explain(containers, runs, more.pop("warmth", None), more.pop("wanted", WANTED), helpers, now=NOW)


def reasons(priced: list[Priced]) -> list[tuple[str, str]]:
    return [(one.view.does, one.view.why) for one in priced]


@pytest.mark.parametrize(
    ("container", "more", "reason"),
    [
        pytest.param(live("a"), {"runs": [ran("a")]}, ("runs", "runs run-a"), id="runs"),
        pytest.param(live("a"), {"runs": [ran("a", is_over=True)]}, ("idle", "idle, ends within 60 s"), id="idle"),
        pytest.param(live("a", None), {}, ("starting", "starting"), id="not there yet"),
        pytest.param(live("a"), {}, ("starting", "starting, or idle since its start"), id="ran nothing"),
        pytest.param(live("a", 700), {}, ("idle", "idle, ends within 60 s"), id="ran nothing for long"),
        pytest.param(
            live("a"),
            {"wanted": replace(WANTED, minimum=1), "runs": [ran("a", is_over=True)]},
            ("minimum", "comfyui.min_containers=1"),
            id="the project keeps it",
        ),
        pytest.param(
            live("a"),
            {"wanted": replace(WANTED, minimum=1), "runs": [ran("a")]},
            ("runs", "runs run-a"),
            id="a kept one that runs",
        ),
        pytest.param(
            live("a"), {"helpers": Helpers("", 1)}, ("inspects", "a deploy's inspection, ends by itself"), id="helper"
        ),
        pytest.param(
            live("a"),
            {"helpers": Helpers("a", 1)},
            ("keeps warm", "kept another one warm, ends by itself"),
            id="a keeper whose time is over",
        ),
    ],
)
def test_each_container_says_why_it_lives(
    container: LiveContainer, more: dict[str, Any], reason: tuple[str, str]
) -> None:
    assert reasons(look(container, **more)) == [reason]


def test_as_many_as_are_kept_warm_say_so_and_the_rest_ends() -> None:
    warmth = Warmth(NOW + 60, "fc", "keeper", None, 1)
    found = look(
        live("keeper"), live("a"), live("b"), live("c", None),
        runs=[ran("a"), ran("b", is_over=True)], warmth=warmth, helpers=Helpers("keeper", 1),
    )  # fmt: skip
    assert [one.view.does for one in found] == ["keeps warm", "runs", "warm", "starting"]
    assert [one.view.usd_per_hour for one in found] == [CPU_HOUR, L40S_HOUR, L40S_HOUR, L40S_HOUR]
    assert found[2].view.why.startswith("warm until ")


def test_a_warmth_that_is_over_keeps_nothing() -> None:
    warmth = Warmth(NOW - 1, "fc", "", None, 1)
    assert [one.view.does for one in look(live("a"), runs=[ran("a", is_over=True)], warmth=warmth)] == ["idle"]


def test_a_pool_of_another_gpu_is_kept_warm_by_itself() -> None:
    warmth = Warmth(NOW + 60, "fc", "", "H100", 1)
    found = look(live("a"), live("b"), runs=[ran("a", is_over=True), ran("b", gpu="H100", is_over=True)], warmth=warmth)
    assert [(one.view.does, one.view.gpu) for one in found] == [("idle", "L40S"), ("warm", "H100")]
    assert found[1].view.per_hour == "$4.39/h"


def test_inspections_are_the_oldest_without_a_run() -> None:
    found = look(live("old", 100), live("new", 50), runs=[], helpers=Helpers("", 1))
    assert [one.view.gpu for one in found] == ["CPU", "L40S"]


def test_age_and_run_are_told() -> None:
    (found,) = look(live("a", 12.34), runs=[ran("a")])
    assert (found.view.age_s, found.view.run_id, found.view.started_at) == (
        12.3,
        "run-a",
        "1970-01-12T13:46:27.660Z",
    )


def test_the_sum_says_what_is_not_known() -> None:
    unknown = Wanted((), 0, None, 600.0)
    own, other = look(live("a"), runs=[ran("a")]), look(live("b"), wanted=unknown)
    assert total([]) == ("0", "$0.00/h")
    assert total(own) == (L40S_HOUR, "$2.40/h")
    assert total([*own, *other]) == (L40S_HOUR, "$2.40/h and 1 of unknown price")
    assert (other[0].view.gpu, other[0].view.per_hour) == (None, None)


def test_of_several_gpus_the_dearest_is_a_bound() -> None:
    found = look(live("a"), wanted=replace(WANTED, gpus=("L40S", "H100")))
    assert found[0].view.gpu == "L40S or H100"
    assert total(found)[1] == "up to $4.39/h"


def test_what_modal_told_no_price_for_is_of_unknown_price() -> None:
    own = replace(LIST, gpus={"L40S": 1_000_000}, core=None, source="workspace")
    wanted = replace(WANTED, rates=own)
    found = look(live("a"), live("keeper"), wanted=wanted, helpers=Helpers("keeper", 1))
    assert [(one.view.gpu, one.view.per_hour) for one in found] == [("L40S", None), ("CPU", None)]
    assert total(found) == ("0", "$0.00/h and 2 of unknown price")
    (priced,) = look(live("a"), wanted=replace(wanted, rates=replace(own, core=0)))
    assert priced.view.per_hour == "$3.86/h"


@pytest.mark.parametrize(("until", "is_late"), [(NOW + 1, False), (NOW - 60, False), (NOW - 121, True)])
def test_a_keeper_that_did_not_put_things_back_is_noticed(until: float, is_late: bool) -> None:
    assert is_overdue(Warmth(until, "fc", "", None, 1), NOW) is is_late
    assert not is_overdue(None, NOW)


def run_with(seconds: float, *, is_first: bool, **more: Any) -> Run:
    result = {
        "started_at": NOW + seconds - 3,
        "phases": {"prepare": 1.0, "queue": 2.0},
        "container": {"is_first": is_first},
    }
    given: dict[str, Any] = {
        "id": "r", "kind": "render", "target": "modal", "status": "succeeded", "title": "", "created_at": NOW,
        "ended_at": NOW + 99, "call_id": None, "again_of": None, "request": {}, "result": result,
    }  # fmt: skip
    return Run(**{**given, **more})


def test_cold_and_warm_starts_are_medians_of_their_own() -> None:
    runs = [
        run_with(60, is_first=True),
        run_with(80, is_first=True),
        run_with(4, is_first=False),
        run_with(900, is_first=True, status="failed"),
        run_with(900, is_first=True, target="local"),
        run_with(900, is_first=True, result={"container": {"is_first": True}}),
        run_with(900, is_first=True, result=None),
    ]
    assert median_start(runs, lambda container: container.get("is_first") is True) == StartView(70.0, 2)
    assert median_start(runs, lambda container: container.get("is_first") is False) == StartView(4.0, 1)
    assert median_start([], bool) is None
