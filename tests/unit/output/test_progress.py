from __future__ import annotations

from typing import Any

import pytest

from comfymodal.output.progress import Meter, Progress


def told(*events: tuple[float, dict[str, Any]]) -> Progress:
    progress = Progress()
    for now, event in events:
        progress.take(event, now)
    return progress


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


STARTED = event("prompt_started", prompt=0)


def node(done: int, title: str = "Sampler", total: int = 9) -> dict[str, Any]:
    return event("node", prompt=0, node_id="3", title=title, done=done, total=total)


def step(value: float, total: float = 20) -> dict[str, Any]:
    return event("step", prompt=0, node_id="3", value=value, max=total)


def transfer(done: int) -> dict[str, Any]:
    moving = {"names": ["a", "b"], "speed": 2e8, "files_done": 3, "files": 9}
    return event("transfer", done_bytes=done, total_bytes=4 * 10**9, **moving)


@pytest.mark.parametrize(
    ("events", "now", "sentence"),
    [
        pytest.param([], 1.0, "1.0 s", id="nothing yet"),
        pytest.param([(0, event("engine_looking"))], 2.0, "engine · looking for ComfyUI · 2.0 s", id="looking"),
        pytest.param([(0, event("engine_starting", name="c"))], 3.0, "engine · starting c · 3.0 s", id="starting"),
        pytest.param([(1, event("submitted", run_id="r"))], 3.0, "queue · 2.0 s", id="queued"),
        pytest.param(
            [(0, event("prompt_queued", prompt=0, total=8)), (0, STARTED), (1, node(2))],
            *(2.0, "render · prompt 1 of 8 · node 3 of 9 · Sampler · 2.0 s"),
            id="a node of one of eight",
        ),
        pytest.param(
            [(0, STARTED), (0, node(2)), (1, step(2)), (2, step(4))],
            *(2.0, "render · node 3 of 9 · Sampler · step 4/20 · 2.0/s · 8.0 s left · 2.0 s"),
            id="steps",
        ),
        pytest.param(
            [(0, STARTED), (0, node(2)), (0, step(1)), (30, step(2)), (60, step(3))],
            *(60.0, "render · node 3 of 9 · Sampler · step 3/20 · 30.0 s each · 8:30 min left · 1:00 min"),
            id="slow steps",
        ),
        pytest.param(
            [(0, STARTED), (0, node(2)), (1, step(2)), (2, step(20))],
            *(2.0, "render · node 3 of 9 · Sampler · step 20/20 · 18.0/s · 2.0 s"),
            id="the last step",
        ),
        pytest.param(
            [(0, STARTED), (0, node(1)), (1, step(5)), (2, node(8, "Save"))],
            *(2.0, "render · node 9 of 9 · Save · 2.0 s"),
            id="a new node forgets the steps of the last",
        ),
        pytest.param([(0, STARTED), (0, node(9))], 1.0, "render · node 9 of 9 · Sampler · 1.0 s", id="all nodes done"),
        pytest.param(
            [(0, STARTED), (0, node(2)), (1, step(0, 0))], 1.0, "render · node 3 of 9 · Sampler · 1.0 s", id="0 of 0"
        ),
        pytest.param(
            [(0, event("prompt_queued", total=2)), (0, event("prompt_done")), (0, event("prompt_done"))],
            *(0.0, "queue · prompt 2 of 2 · 0.0 s"),
            id="never more than all",
        ),
        pytest.param(
            [(0, event("install", step="torch", message="downloading", done_bytes=10**6, total_bytes=2 * 10**8))],
            *(4.0, "install · torch downloading · 1.0 MB/200 MB · 4.0 s"),
            id="a download",
        ),
        pytest.param(
            [(0, event("phase", phase="copy")), (1, transfer(10**9))],
            *(2.0, "copy · a, b · 1.0 GB/4.0 GB · 200 MB/s · 3 of 9 files · 15 s left · 2.0 s"),
            id="a transfer",
        ),
        pytest.param(
            [(0, transfer(10**9)), (1, event("phase", phase="commit"))], 2.0, "commit · 1.0 s", id="after a transfer"
        ),
        pytest.param(
            [(0, event("hashing", name="a", done_bytes=10**6, total_bytes=2 * 10**6))],
            *(1.0, "hashing · a · 1.0 MB/2.0 MB · 1.0 s"),
            id="hashing",
        ),
        pytest.param([(0, event("fetching", name="a.png"))], 1.0, "download · a.png · 1.0 s", id="fetching"),
        pytest.param([(0, event("of_the_future", x=1))], 1.0, "1.0 s", id="an unknown event"),
    ],
)
def test_the_state_is_one_sentence(events: list[tuple[float, dict[str, Any]]], now: float, sentence: str) -> None:
    assert told(*events).sentence(now) == sentence


@pytest.mark.parametrize(
    ("given", "line"),
    [
        pytest.param(
            event("engine_ready", name="c", seconds=7.26, url="http://x"),
            "engine    c started in 7.3 s at http://x",
            id="ready",
        ),
        pytest.param(
            event("engine", version="0.3.75", device="cpu", how="embedded"),
            "engine    ComfyUI 0.3.75 on cpu (embedded)",
            id="engine",
        ),
        pytest.param(event("submitted", run_id="r1"), "run       r1  (Ctrl-C stops it)", id="submitted"),
        pytest.param(
            event("pair", name="models", here="models:/ (volume m)", there="b2:x (bucket b)"),
            "pair      models: here models:/ (volume m), there b2:x (bucket b)",
            id="a pair",
        ),
        pytest.param(
            event("plan", copy_files=3, copy_bytes=10**9, counts={"new": 3, "only_there": 2, "same": 0}),
            "plan      3 to copy (1.0 GB), 3 new, 2 only there",
            id="a plan",
        ),
        pytest.param(event("plan", counts={}), "plan      nothing to copy", id="an empty plan"),
        pytest.param(event("prompt_started"), None, id="nothing to keep"),
        pytest.param(event("of_the_future"), None, id="unknown"),
        pytest.param({}, None, id="no type"),
    ],
)
def test_only_some_events_leave_a_line(given: dict[str, Any], line: str | None) -> None:
    assert Progress().take(given, 1.0) == line


def test_stopping_is_said_once() -> None:
    progress = Progress()
    said = [progress.take(event("phase", phase="stopping"), now) for now in (1.0, 2.0)]
    assert said[0] is not None
    assert said[1] is None


def test_each_step_of_an_install_leaves_one_line() -> None:
    progress = Progress()
    said = [
        progress.take(event("install", step=name, message=f"{name} now"), 1.0) for name in ("a", "a", "b", "b", "b")
    ]
    assert said == ["install   a now", None, "install   b now", None, None]


def test_the_bar_shows_what_moves_most() -> None:
    progress = told((0, STARTED), (0, node(2)))
    assert progress.bar() == (2, 9)
    progress.take(step(5), 1.0)
    assert progress.bar() == (5, 20)
    progress.take(event("prompt_saving"), 2.0)
    assert progress.bar() is None


@pytest.mark.parametrize(
    ("readings", "rate", "remaining"),
    [
        pytest.param([], None, None, id="none"),
        pytest.param([(0, 1)], None, None, id="one"),
        pytest.param([(0, 1), (0, 2)], None, None, id="two at once"),
        pytest.param([(0, 0), (2, 4)], 2.0, 3.0, id="two"),
        pytest.param([(0, 4), (2, 4)], None, None, id="standing still"),
        pytest.param([(0, 8), (1, 2), (2, 3)], 1.0, 7.0, id="begun again"),
        pytest.param([(0, 0), (1, 1), (30, 2), (31, 4)], 2.0, 3.0, id="only the newest count"),
        pytest.param([(0, 0), (25, 1), (50, 2)], 0.04, 200.0, id="slower than the window"),
        pytest.param([(0, 0), (2, 10)], 5.0, None, id="done"),
    ],
)
def test_a_rate_is_that_of_the_newest_readings(
    readings: list[tuple[float, float]], rate: float | None, remaining: float | None
) -> None:
    meter = Meter()
    for now, done in readings:
        meter.read(done, 10, now)
    assert (meter.rate, meter.remaining_s) == (rate, remaining)


def test_a_long_job_keeps_few_readings() -> None:
    meter = Meter()
    for number in range(10_000):
        meter.read(number, 10_000, number * 0.1)
    assert len(meter.readings) <= 201
