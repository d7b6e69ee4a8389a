"""GPU memory and loading as they are seen from outside: right where they are seen, and never in a render's way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from comfymodal.jobs import gauge, render
from comfymodal.jobs.gauge import LoadClock
from tests.doubles.comfy_server import ComfyServer, comfy_server
from tests.unit.jobs.render_samples import FolderPlace, TestEngine, build_job

TOTAL = 48 << 30
LOADING = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "2": {"class_type": "LoraLoader", "inputs": {}},
    "3": {"class_type": "KSampler", "inputs": {}},
    "9": {"class_type": "SaveImage", "inputs": {}},
}


def rendered(server: ComfyServer, job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    with comfy_server(server) as served:
        outcome = render.run(job, FolderPlace(tmp_path, TestEngine(served.url)))
    assert outcome["status"] == "succeeded", outcome["error"]
    return outcome


def test_the_peak_is_the_least_that_was_free(tmp_path: Path) -> None:
    free = [TOTAL, 30 << 30, 18 << 30, 25 << 30]
    server = ComfyServer(vram_total=TOTAL, vram_free=lambda asked: free[min(asked, 3)], prompt_s=0.05)
    outcome = rendered(server, build_job(3), tmp_path)
    assert outcome["engine"]["vram_total_bytes"] == TOTAL
    # One look after each prompt, but where the next prompt ended before it was made.
    assert 2 <= server.stats_asked <= 4
    assert outcome["engine"]["peak_vram_bytes"] == TOTAL - min(free[1 : server.stats_asked])


def test_while_a_prompt_executes_it_is_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge, "LOOK_EVERY_S", 0.05)
    server = ComfyServer(vram_total=TOTAL, vram_free=lambda asked: (40 - asked) << 30, prompt_s=0.4)
    outcome = rendered(server, build_job(), tmp_path)
    assert 4 <= server.stats_asked <= 12
    assert outcome["engine"]["peak_vram_bytes"] == TOTAL - ((41 - server.stats_asked) << 30)


def test_of_a_device_without_memory_of_its_own_nothing_is_asked(tmp_path: Path) -> None:
    server = ComfyServer()
    outcome = rendered(server, build_job(2), tmp_path)
    assert server.stats_asked == 1
    assert "peak_vram_bytes" not in outcome["engine"]


@pytest.mark.parametrize(
    "device",
    [
        pytest.param({"vram_total": "much", "vram_free": None}, id="words"),
        pytest.param({"vram_total": 5, "vram_free": 9}, id="more free than there is"),
        pytest.param({"vram_total": 5, "vram_free": -1}, id="less than nothing"),
        pytest.param({}, id="empty"),
        pytest.param("a GPU", id="no object"),
    ],
)
def test_nonsense_about_the_device_is_not_believed_and_no_fault(device: Any, tmp_path: Path) -> None:
    server = ComfyServer(vram_total=TOTAL, nonsense_stats=device)
    outcome = rendered(server, build_job(), tmp_path)
    assert server.stats_asked == 2
    assert "peak_vram_bytes" not in outcome["engine"]


def test_a_server_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    began = time.monotonic()
    rendered(ComfyServer(), build_job(), tmp_path / "fast")
    usual_s = time.monotonic() - began
    began = time.monotonic()
    outcome = rendered(ComfyServer(vram_total=TOTAL, stats_delay_s=20.0), build_job(), tmp_path / "slow")
    assert time.monotonic() - began < usual_s + gauge.LAST_LOOK_S + 2.0
    assert "peak_vram_bytes" not in outcome["engine"]


def test_loading_is_the_time_of_the_nodes_that_load(tmp_path: Path) -> None:
    outcome = rendered(ComfyServer(prompt_s=0.8), build_job(graph=LOADING), tmp_path)
    (prompt,) = outcome["prompts"]
    # Two of four nodes that take equally long.
    assert 0.3 <= prompt["load_s"] <= 0.75 * prompt["seconds"]
    assert outcome["load_s"] == prompt["load_s"]


def test_loading_of_all_prompts_is_summed(tmp_path: Path) -> None:
    outcome = rendered(ComfyServer(prompt_s=0.1), build_job(2, graph=LOADING), tmp_path)
    loads = [prompt["load_s"] for prompt in outcome["prompts"]]
    assert all(load > 0 for load in loads)
    assert outcome["load_s"] == round(sum(loads), 3)


def test_a_workflow_that_loads_nothing_took_no_time_for_it(tmp_path: Path) -> None:
    outcome = rendered(ComfyServer(), build_job(), tmp_path)
    assert (outcome["load_s"], outcome["prompts"][0]["load_s"]) == (0.0, 0.0)


def test_a_prompt_that_was_only_polled_says_nothing_of_loading(tmp_path: Path) -> None:
    outcome = rendered(ComfyServer(ws_status=404), build_job(graph=LOADING), tmp_path)
    assert (outcome["load_s"], outcome["prompts"][0]["load_s"]) == (None, None)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        pytest.param([], None, id="never seen"),
        pytest.param([(None, 1.0)], 0.0, id="begun, all cached"),
        pytest.param([("KSampler", 1.0), ("SaveImage", 5.0)], 0.0, id="no loader"),
        pytest.param([("UNETLoader", 1.0), ("VAELoader", 4.0), ("KSampler", 6.0)], 5.0, id="two in a row"),
        pytest.param([("KSampler", 1.0), ("LoadImage", 2.0), ("CLIPLoaderGGUF", 7.0)], 3.0, id="to the end"),
        pytest.param([("VAELoader", 1.0), (None, 2.0), ("VAELoader", 5.0), ("Save", 7.0)], 3.0, id="with a gap"),
    ],
)
def test_the_clock_runs_only_in_loaders(steps: list[tuple[str | None, float]], seconds: float | None) -> None:
    clock = LoadClock()
    for class_type, now in steps:
        clock.enter(class_type, now)
    assert clock.read(10.0) == seconds
    assert clock.read(20.0) == seconds
