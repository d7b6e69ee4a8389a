"""The example workflows on the real engine: it knows every node and takes every value; only the models are missing."""

from __future__ import annotations

import pytest

from tests.conftest import HELLO, Cli

CONFIGS = HELLO.parent.parent


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("flux", ["flux1-schnell-fp8.safetensors"]),
        (
            "wan",
            [
                "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
                "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
                "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
                "wan_2.1_vae.safetensors",
            ],
        ),
    ],
)
def test_an_example_lacks_nothing_but_its_models(cli: Cli, name: str, models: list[str]) -> None:
    done = cli("workflow", "check", CONFIGS / name / "workflow.json", "--json")

    assert done.code == 4
    (workflow,) = done.json["data"]["workflows"]
    assert {problem["kind"] for problem in workflow["problems"]} == {"missing_model"}
    assert len(workflow["problems"]) == len(models)
    assert all(any(model in problem["message"] for problem in workflow["problems"]) for model in models)
