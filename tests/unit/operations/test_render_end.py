"""What the ledger keeps of a render's outcome."""

from __future__ import annotations

from typing import Any

import pytest

from comfymodal.operations.render_end import RenderEnding


@pytest.mark.parametrize(
    ("prompts", "is_cached"),
    [
        pytest.param([{"is_cached": True}, {"is_cached": True}], True, id="all of it"),
        pytest.param([{"is_cached": True}, {"is_cached": False}], False, id="some of it"),
        pytest.param([], False, id="nothing was rendered"),
    ],
)
def test_whether_it_came_from_the_cache_is_kept_where_nothing_is_downloaded(
    prompts: list[dict[str, Any]], is_cached: bool
) -> None:
    outcome = {"status": "succeeded", "prompts": prompts, "load_s": 4.5, "engine": {"peak_vram_bytes": 7}}
    kept = RenderEnding().summary(outcome)
    assert (kept["is_cached"], kept["load_s"], kept["engine"]) == (is_cached, 4.5, {"peak_vram_bytes": 7})


def test_a_lost_run_says_nothing_of_the_cache() -> None:
    assert "is_cached" not in RenderEnding().summary({"status": "failed", "error": None})
