"""What Modal would refuse is refused here, in words."""

from __future__ import annotations

from typing import Any

import pytest

from comfymodal.targets.modal.limits import notices, refusals
from tests.unit.targets.modal_samples import SPEC, with_containers, with_image


def test_the_usual_is_accepted_without_a_word() -> None:
    assert (refusals(SPEC), notices(SPEC)) == ((), ())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gpus": ("L40",)}, "comfyui.gpu: L40 is not a GPU of Modal; did you mean L40S?"),
        ({"gpus": ("L40S", "H100:9")}, "comfyui.gpu: H100:9 is more than one container takes: at most H100:8"),
        (
            {"timeout_s": 86401.0},
            "comfyui.timeout: 86401 s; Modal ends every call after 24 h, and wants at least 1 s",
        ),
        ({"timeout_s": 0.5}, "comfyui.timeout: 0.5 s; Modal ends every call after 24 h, and wants at least 1 s"),
        ({"boot_timeout_s": 90000.0}, "comfyui.boot_timeout: 90000 s; Modal wants 1 s to 24 h"),
        ({"scaledown_window_s": 1.0}, "comfyui.scaledown_window: 1 s; Modal wants 2 s to 60 min"),
        ({"scaledown_window_s": 3601.0}, "comfyui.scaledown_window: 3601 s; Modal wants 2 s to 60 min"),
        ({"min_containers": 4}, "comfyui.min_containers: 4 is more than comfyui.max_containers: 3"),
        (
            {"max_containers": 51},
            "comfyui.max_containers: 51 may take 51 GPUs at once; Modal's Team plan gives 50 (2026-10-07)",
        ),
        (
            {"gpus": ("A100-80GB:8",), "max_containers": 7},
            "comfyui.max_containers: 7 may take 56 GPUs at once; Modal's Team plan gives 50 (2026-10-07)",
        ),
        (
            {"max_containers": 0},
            "comfyui: min_containers and buffer_containers are 0 or more, max_containers 1 or more",
        ),
    ],
)
def test_what_modal_would_refuse_is_named(changed: dict[str, Any], words: str) -> None:
    assert refusals(with_containers(**changed)) == (words,)


@pytest.mark.parametrize(
    "changed",
    [
        {"timeout_s": 86400.0},
        {"scaledown_window_s": 2.0},
        {"scaledown_window_s": 3600.0},
        {"max_containers": 50},
        {"gpus": ("a10g:4", "H100!", "B200+")},
    ],
)
def test_the_limits_themselves_are_allowed(changed: dict[str, Any]) -> None:
    assert refusals(with_containers(**changed)) == ()


def test_everything_wrong_is_told_at_once() -> None:
    assert len(refusals(with_containers(gpus=("L40", "K80"), timeout_s=1e6, scaledown_window_s=0.0))) == 4


def test_a_line_break_in_the_environment_is_refused() -> None:
    assert refusals(with_image(env={"KEY": "a\nb", "B": "c"})) == (
        "comfyui.env: KEY has a line break, which an image cannot keep",
    )


def test_more_than_the_starter_plan_gives_is_a_notice() -> None:
    asked = with_containers(gpus=("L40S", "H100:2"), max_containers=6)

    assert refusals(asked) == ()
    assert notices(asked) == (
        "comfyui.max_containers: 6 may take 12 GPUs at once; Modal's Starter plan gives 10 (2026-10-07), the rest wait",
    )
