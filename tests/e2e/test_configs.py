"""The examples: workflows on the real engine, which lack nothing but models; trainings, which lack nothing."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.conftest import HELLO, Cli
from tests.data.draw_pictures import SCENES, Scene, drawn

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


@pytest.mark.parametrize(("name", "right"), [("lora-flux", {"gated"}), ("lora-sdxl", set())])
def test_a_training_is_ready_where_it_lies(engineless_cli: Cli, name: str, right: set[str]) -> None:
    here = Cli(CONFIGS / name, engineless_cli.environ)
    before = sorted(CONFIGS.rglob("*"))
    done = here("train", "train.yaml", "--check", "--json")

    assert done.code == 0, done.stdout
    problems = done.json["data"]["problems"]
    assert {problem["kind"] for problem in problems if problem["severity"] != "info"} == right
    (plan,) = done.json["data"]["plans"]
    assert [dataset["pictures"] for dataset in plan["datasets"]] == [10]
    assert sorted(CONFIGS.rglob("*")) == before


@pytest.mark.parametrize("scene", SCENES[:2], ids=lambda scene: scene.name)
def test_the_pictures_are_the_drawn_ones(scene: Scene) -> None:
    path = CONFIGS / "lora-flux/pictures" / f"{scene.name}.jpg"
    with Image.open(path) as kept:
        difference = ImageStat.Stat(ImageChops.difference(kept.convert("RGB"), drawn(scene)))
    # What JPEG costs, and other releases of Pillow.
    assert max(difference.mean) < 4
    assert path.with_suffix(".txt").read_text() == f"{scene.caption}\n"
    assert path.stat().st_size < 60_000
