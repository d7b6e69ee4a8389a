"""`--fix`: the guide's config becomes one that is sound; what has no one answer is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from comfymodal.training.ai_toolkit.check import better_name
from comfymodal.training.ai_toolkit.fix import fix_config, to_yaml
from comfymodal.training.ai_toolkit.layout import name_fault
from comfymodal.training.config import errors_of
from tests.unit.training.config_files import GUIDE, broken, check, read_yaml, sound


def guide() -> Any:
    return read_yaml(GUIDE.read_text())[0]


def process_of(config: Any) -> Any:
    return config["config"]["process"][0]


def test_the_guides_config_becomes_sound() -> None:
    fixed = fix_config(guide())
    assert {problem.kind for problem in check(fixed.config)} == {"gated"}
    process = process_of(fixed.config)
    assert fixed.config["job"] == "extension"
    assert process["network"] == {"type": "lora", "linear": 16, "linear_alpha": 16}
    assert process["model"] == {"name_or_path": "black-forest-labs/FLUX.1-dev", "arch": "flux", "quantize": True}
    assert (process["train"]["noise_scheduler"], process["sample"]["sampler"]) == ("flowmatch", "flowmatch")


def test_what_the_operator_said_stays() -> None:
    process = process_of(fix_config(guide()).config)
    assert (process["type"], process["train"]["steps"], process["train"]["lr"]) == ("sd_trainer", 2000, 1e-4)
    assert process["save"]["save_every"] == 500
    assert process["datasets"][0]["folder_path"] == "datasets/my_character"


def test_each_change_says_why_and_what_to_look_at_is_noted() -> None:
    fixed = fix_config(guide())
    assert all(change.reason for change in fixed.changes)
    assert any("black-forest-labs/FLUX.1-dev" in note for note in fixed.notes)
    assert any("datasets/my_character" in note for note in fixed.notes)


def test_fixing_twice_changes_nothing_more() -> None:
    assert fix_config(fix_config(guide()).config).changes == ()


def test_a_sound_config_is_left_alone() -> None:
    config = sound()
    fixed = fix_config(config)
    assert (fixed.config, fixed.changes) == (config, ())


@pytest.mark.parametrize(
    ("values", "place", "value"),
    [
        ({"train__lr": "1e-4"}, ("train", "lr"), 1e-4),
        ({"train__steps": "2_000"}, ("train", "steps"), 2000),
        ({"train__train_text_encoder": "no"}, ("train", "train_text_encoder"), False),
        ({"trigger_word": 123}, ("trigger_word",), "123"),
        ({"train__optimizer": "adamw8bits"}, ("train", "optimizer"), "adamw8bit"),
        ({"model__arch": "sd_xl"}, ("model", "arch"), "sdxl"),
        ({"train__learning": 1, "train__lr": ..., "train__lrr": 3e-4}, ("train", "lr"), 3e-4),
        ({"save__save_every": ..., "save__save_evry": 100}, ("save", "save_every"), 100),
        ({"save__save_every": 99999}, ("save", "save_every"), 250),
        ({"network__linear_alpha": ...}, ("network", "linear_alpha"), 32),
        (
            {"model": {"name_or_path": "Tongyi-MAI/Z-Image-Turbo"}},
            ("model", "assistant_lora_path"),
            "ostris/zimage_turbo_training_adapter/zimage_turbo_training_adapter_v2.safetensors",
        ),
        ({"type": "sd_trainerr"}, ("type",), "sd_trainer"),
        ({"training_folder": "out/my_style_v1"}, ("training_folder",), "output"),
        ({"train__noise_scheduler": "flowmatch"}, ("train", "noise_scheduler"), "ddpm"),
        ({"sample__sampler": "flowmatch"}, ("sample", "sampler"), "ddpm"),
    ],
)
def test_a_slip_is_put_right(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    found = process_of(fix_config(broken(**values)).config)
    for key in place:
        found = found[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"model__arch": "no_such_thing", "model__name_or_path": "me/mystery"}, "unknown_arch"),
        ({"model__arch": ..., "model__name_or_path": "me/mystery"}, "no_arch"),
        ({"datasets": []}, "no_datasets"),
        ({"network__rank": 8}, "contradiction"),
        ({"trigger_word": "hf_" + "c" * 34}, "secret"),
        ({"type": "concept_slider"}, "unsupported_type"),
    ],
)
def test_what_has_no_one_answer_is_left(values: dict[str, Any], kind: str) -> None:
    fixed = fix_config(broken(**values)).config
    assert kind in {problem.kind for problem in errors_of(check(fixed))}


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [1], {"a": 1}, True])
@pytest.mark.parametrize("key", ["train", "datasets", "model", "sample", "network", "save", "trigger_word"])
def test_no_junk_makes_it_raise(key: str, junk: Any) -> None:
    fix_config(broken(**{key: junk}))


@pytest.mark.parametrize("config", [{}, {"config": 3}, {"config": {"process": 5}}, {"process": {"train": {"lr": 1}}}])
def test_a_frame_in_pieces_is_put_together(config: Any) -> None:
    fixed = fix_config(config).config
    assert fixed["job"] == "extension"
    assert name_fault(fixed["config"]["name"]) is None


@pytest.mark.parametrize("name", ["my lora", "sample", "c", "", "ü", "a/b", "x" * 99, "--", "[name]"])
def test_a_better_name_is_one_that_can_be_used(name: str) -> None:
    assert name_fault(better_name(name)) is None


def test_what_is_written_reads_back_the_same_by_both_readings_of_yaml() -> None:
    config = fix_config(broken(trigger_word="1e4", sample__neg="no")).config
    text = to_yaml(config)
    assert read_yaml(text)[0] == config
    assert yaml.safe_load(text) == config
    assert text.startswith("job: extension\nconfig:\n  name: my_style_v1\n")
