from __future__ import annotations

from typing import Any

import pytest

from comfymodal.training.ai_toolkit.prompts import spoken
from comfymodal.training.ai_toolkit.variants import differing_settings


@pytest.mark.parametrize(
    ("prompt", "trigger", "text"),
    [
        ("[trigger] at the beach", "p3rson", "p3rson at the beach"),
        ("a [name] dog --w 512 --h 768 --seed 3", "sks", "a sks dog"),
        ("  a cat", None, "a cat"),
        ("[trigger]", None, "[trigger]"),
        ("--n ugly", "x", ""),
    ],
)
def test_a_prompt_is_said_as_the_model_hears_it(prompt: str, trigger: str | None, text: str) -> None:
    assert spoken(prompt, trigger) == text


def config(name: str, **more: Any) -> dict[str, Any]:
    process = {
        "type": "diffusion_trainer",
        "training_folder": f"/tmp/{name}",
        "train": {"lr": 1e-4, "steps": 100},
        "datasets": [{"folder_path": "/d", "resolution": [512]}],
        "sample": {"prompts": [name]},
        **more,
    }
    return {"job": "extension", "config": {"name": name, "process": [process]}, "meta": {"name": name}}


def test_only_what_differs_is_told() -> None:
    one = config("a")
    two = config("b", train={"lr": 4e-4, "steps": 100}, datasets=[{"folder_path": "/d", "resolution": [512, 768]}])
    three = config("c", network={"linear": 8})

    assert differing_settings([one, two, three]) == (
        {"train.lr": "0.0001", "datasets[0].resolution": "[512]", "network.linear": "-"},
        {"train.lr": "0.0004", "datasets[0].resolution": "[512, 768]", "network.linear": "-"},
        {"train.lr": "0.0001", "datasets[0].resolution": "[512]", "network.linear": "8"},
    )
    assert differing_settings([one, config("z")]) == ({}, {})
    assert differing_settings([one]) == ({},)
