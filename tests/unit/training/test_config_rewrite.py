"""What a run changes in a config, where it names files, and what a checked config says."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from comfymodal.training.ai_toolkit.paths import Found, PathUse, find_path, missing_problem, path_uses
from comfymodal.training.ai_toolkit.rewrite import Placement, relocate, rewrite, substitute
from comfymodal.training.ai_toolkit.subject import subject_of
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.config import MISSING, Draft, KeyPath, dotted
from tests.unit.training.config_files import broken, check, nowhere, sound

MOUNTS = {"models": "/models", "datasets": "/datasets", "training": "/training"}


def process_of(config: Any) -> Any:
    return config["config"]["process"][0]


def changes_of(config: Any, placement: Placement | None = None) -> dict[str, tuple[Any, Any]]:
    changed = rewrite(config, placement or Placement("my_style_v1"))
    return {change.key: (change.old, change.new) for change in changed.changes}


def test_only_the_place_changes_in_a_config_that_says_everything() -> None:
    assert changes_of(sound()) == {
        "meta.name": ("[name]", "my_style_v1"),
        "training_folder": ("output", "/tmp/run"),
        "sqlite_db_path": (MISSING, "/tmp/ctl/aitk.db"),
        "performance_log_every": (MISSING, 10),
    }


def test_the_old_config_stays_as_it_was() -> None:
    config = sound()
    before = copy.deepcopy(config)
    rewrite(config, Placement("other", locations={("config", "process", 0, "datasets", 0, "folder_path"): "/x"}))
    assert config == before


def test_a_rewritten_config_is_sound_and_stays_so() -> None:
    once = rewrite(broken(type="ui_trainer", save={}, logging={}), Placement("my_style_v1"))
    assert [problem.kind for problem in check(once.config)] == []
    assert rewrite(once.config, Placement("my_style_v1")).changes == ()


def test_what_would_lose_work_or_hang_is_changed() -> None:
    config = broken(
        type="sd_trainer", save={"push_to_hub": True}, logging={"log_every": 100}, train__dtype=..., log_dir="x"
    )
    changed = changes_of(config)
    assert changed["type"] == ("sd_trainer", "diffusion_trainer")
    assert changed["save.push_to_hub"] == (True, False)
    assert changed["save.save_every"] == (MISSING, 250)
    assert changed["save.max_step_saves_to_keep"] == (MISSING, 4)
    assert changed["logging.use_ui_logger"] == (MISSING, True)
    assert changed["logging.log_every"] == (100, 1)
    assert changed["train.dtype"] == (MISSING, "bf16")
    assert changed["log_dir"] == ("x", "/tmp/run/tb")


@pytest.mark.parametrize(
    ("sample", "changed"),
    [
        ({"prompts": ["a"]}, {"sample.neg": (MISSING, "")}),
        ({"prompts": ["a"], "neg": None}, {"sample.neg": (None, "")}),
        ({"prompts": ["a"], "neg": "blurry"}, {}),
        (
            {"samples": [{"prompt": "a", "neg": False}, {"prompt": "b"}], "neg": ""},
            {"sample.samples[0].neg": (False, "")},
        ),
        ({"prompts": []}, {}),
    ],
)
def test_a_sample_has_a_negative_prompt(sample: Any, changed: Any) -> None:
    made = changes_of(broken(sample=sample))
    assert {key: change for key, change in made.items() if key.startswith("sample.")} == changed


def test_pushing_to_the_hub_can_be_meant() -> None:
    config = broken(save__push_to_hub=True)
    assert "save.push_to_hub" not in changes_of(config, Placement("ab", pushes_to_hub=True))


def test_the_name_is_put_in_everywhere() -> None:
    config = broken(trigger_word="[name] style")
    changed = rewrite(config, Placement("abc"))
    assert "[name]" not in json.dumps(changed.config)
    assert process_of(changed.config)["trigger_word"] == "abc style"


def test_locations_and_meta_arrive() -> None:
    config = broken(model__qtype="uint3|owner/name/file.safetensors")
    locations: dict[KeyPath, str] = {
        ("config", "process", 0, "datasets", 0, "folder_path"): "/tmp/ds/0",
        ("config", "process", 0, "model", "qtype"): "/models/ara.safetensors",
    }
    changed = rewrite(config, Placement("ab", locations=locations, meta={"comfymodal_run": "r1"})).config
    assert process_of(changed)["datasets"][0]["folder_path"] == "/tmp/ds/0"
    assert process_of(changed)["model"]["qtype"] == "uint3|/models/ara.safetensors"
    assert changed["meta"]["comfymodal_run"] == "r1"


def test_a_config_moves_from_one_place_to_another() -> None:
    first = rewrite(sound(), Placement("ab")).config
    moved = relocate(first, Placement("ab", "/scratch/1", "/scratch/ctl.db", device="cpu"))
    assert {change.key for change in moved.changes} == {"training_folder", "sqlite_db_path", "device"}


def test_every_place_that_names_files_is_found() -> None:
    config = broken(
        datasets=[
            {"folder_path": "a", "control_path": ["b", "c"], "mask_path": "d", "random_triggers": "words.txt"},
            {"dataset_path": "e.json", "control_path_1": "f"},
        ],
        network__pretrained_lora_path="g",
        model={
            "name_or_path": "h",
            "assistant_lora_path": "i",
            "qtype": "uint3|j",
            "model_paths": {"te": "k"},
            "arch": "x",
        },
        sample__samples=[{"prompt": "p", "ctrl_img": "l"}],
    )
    uses = list(path_uses(subject_of(config, nowhere)))
    assert sorted(use.text for use in uses) == sorted([*"abcdfghijkl", "e.json", "words.txt"])
    for use in uses:
        found: Any = config
        for key in use.path:
            found = found[key]
        assert use.text in found


def use(text: str, purpose: Any = "model") -> PathUse:
    return PathUse(("x",), text, purpose)


@pytest.mark.parametrize(
    ("text", "purpose", "kind", "at"),
    [
        ("black-forest-labs/FLUX.1-dev", "model", "repository", "black-forest-labs/FLUX.1-dev"),
        ("owner/name/a.safetensors", "model", "repository", "owner/name/a.safetensors"),
        ("owner/name/../a.safetensors", "model", "missing", "owner/name/../a.safetensors"),
        ("a.safetensors", "model", "missing", "a.safetensors"),
        ("owner/name", "dataset", "missing", "owner/name"),
        ("./here", "dataset", "local", "/home/me/here"),
        ("here/too", "model", "local", "/home/me/here/too"),
        ("volume:/sets/x/", "dataset", "volume", "datasets:/sets/x"),
        ("volume:loras/x.safetensors", "weights", "volume", "models:/loras/x.safetensors"),
        ("training:/runs/1", "weights", "volume", "training:/runs/1"),
        ("/models/checkpoints/a.safetensors", "model", "volume", "models:/checkpoints/a.safetensors"),
        ("/modelsx/a", "model", "missing", "/modelsx/a"),
        ("C:/pictures", "dataset", "missing", "C:/pictures"),
    ],
)
def test_what_a_path_is(text: str, purpose: Any, kind: str, at: str) -> None:
    here = {"./here": "/home/me/here", "here/too": "/home/me/here/too"}
    found = find_path(use(text, purpose), local=here.get, mounts=MOUNTS)
    assert found == Found(use(text, purpose), kind, at)  # type: ignore[arg-type]


def test_a_path_that_is_nowhere_is_worded_by_what_it_may_be() -> None:
    subject = subject_of(broken(model__name_or_path="x.safetensors"), nowhere)
    missing = {
        use.text: missing_problem(subject, find_path(use, local=lambda _: None, mounts=MOUNTS))
        for use in path_uses(subject)
    }
    assert str(missing["../lora-flux/pictures"]) == (
        'train.yaml: datasets[0].folder_path: "../lora-flux/pictures" is not found'
    )
    assert "Hugging Face" not in (missing["../lora-flux/pictures"].hint or "")
    assert "Hugging Face" in (missing["x.safetensors"].hint or "")


def test_what_a_checked_config_says() -> None:
    values = read_values(sound())
    assert (values.engine, values.name, values.arch) == ("ai-toolkit", "my_style_v1", "sdxl")
    assert (values.steps, values.save_every, values.keep_saves, values.images_per_step) == (2000, 250, 4, 2)
    assert (values.rank, values.alpha, values.lr, values.dtype) == (32, 32, 1e-4, "bf16")
    assert (values.is_quantized, values.quantization, values.is_full_finetune) == (False, None, False)
    [dataset] = values.datasets
    assert (dataset.path, dataset.resolutions, dataset.batch_size, dataset.caption_ext) == (
        "../lora-flux/pictures",
        (1024,),
        2,
        ".txt",
    )
    assert (len(values.sample_prompts), values.sample_every, values.samples_at_start) == (3, 250, True)
    # At the start, at 250, 500 ... 1750, at the end.
    assert values.sample_count == 3 * (1 + 7 + 1)
    json.dumps(values.to_dict())


def test_what_the_trainer_takes_where_nothing_is_said() -> None:
    values = read_values(
        broken(network={"type": "lora"}, save={}, train={}, sample={}, datasets=[{"folder_path": "x"}])
    )
    assert (values.steps, values.lr, values.dtype, values.optimizer) == (1000, 1e-6, "fp32", "adamw")
    assert (values.rank, values.alpha, values.save_every, values.keep_saves) == (4, 1.0, 1000, 5)
    assert (values.datasets[0].resolutions, values.sample_every, values.sample_count) == ((512,), None, 0)


def test_other_models_that_are_loaded_are_told() -> None:
    values = read_values(
        broken(
            model={
                "name_or_path": "a/b",
                "arch": "hidream",
                "extras_name_or_path": "a/b",
                "assistant_lora_path": "c/d",
                "qtype": "uint3|e/f/g.safetensors",
                "quantize": True,
                "model_kwargs": {"llama_model_path": "h/i"},
            }
        )
    )
    assert values.extra_models == ("c/d", "h/i", "e/f/g.safetensors")
    assert (values.quantization, values.is_text_encoder_quantized) == ("uint3", True)


def test_a_variable_that_does_not_fit_its_place_is_a_problem() -> None:
    changed, problems = substitute(broken(train__steps="${N}"), {"N": "many"}, nowhere)
    assert changed.changes == ()
    assert [problem.key for problem in problems] == ["train.steps"]


def test_a_draft_tells_each_change_once() -> None:
    draft = Draft.of({"a": {"b": 1}, "n": None}, dotted)
    draft.set(("a", "b"), 1, "same")
    draft.set(("a", "b"), True, "another type is another value")
    draft.set(("n", "m"), 2, "null is no obstacle")
    draft.remove(("a", "c"), "was not there")
    draft.remove(("a", "b"), "gone")
    assert draft.config == {"a": {}, "n": {"m": 2}}
    assert [change.to_dict() for change in draft.changes] == [
        {
            "path": ["a", "b"],
            "key": "a.b",
            "old": 1,
            "new": True,
            "reason": "another type is another value",
        },
        {"path": ["n", "m"], "key": "n.m", "new": 2, "reason": "null is no obstacle"},
        {"path": ["a", "b"], "key": "a.b", "old": True, "reason": "gone"},
    ]
    with pytest.raises(KeyError):
        Draft.of({"a": 1}, dotted).set(("a", "b"), 1, "a number holds nothing")
