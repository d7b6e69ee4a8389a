"""The check of native configs: each fault alone in a sound config, all faults of the guide's config at once."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

from comfymodal.errors import TrainingConfigError
from comfymodal.training.ai_toolkit.archs import ARCHS, GATED, HOMES, guess_arch, near_arch
from comfymodal.training.ai_toolkit.check import check_config, is_native, is_project_file
from comfymodal.training.ai_toolkit.schema import CHOICES, DEFAULTS, kind_of
from comfymodal.training.config import config_error, errors_of, warnings_of
from comfymodal.training.recipes import RECIPES
from tests.unit.training.config_files import GUIDE, REPOSITORY, SDXL, broken, check, kinds, nowhere, read_yaml, sound


def test_the_sound_config_has_no_fault() -> None:
    tree, where = read_yaml(SDXL.read_text())
    assert check_config(tree, where) == []


def test_every_fault_of_the_guides_config_is_named_with_its_place() -> None:
    tree, where = read_yaml(GUIDE.read_text(), "guide.yaml")
    found = check_config(tree, where)
    assert [(problem.kind, problem.key, problem.place) for problem in errors_of(found)] == [
        ("no_job", "job", "guide.yaml:1:1"),
        ("no_network", "network", "guide.yaml:4:7"),
        ("no_arch", "model.arch", "guide.yaml:6:7"),
        ("guide_path", "model.name_or_path", "guide.yaml:7:9"),
        ("wrong_scheduler", "train.noise_scheduler", "guide.yaml:8:7"),
    ]
    assert {(problem.kind, problem.key) for problem in warnings_of(found)} == {
        ("no_quantize", "model.quantize"),
        ("low_resolution", "datasets[0]"),
        ("wide_dtype", "train"),
        ("no_samples", "config.process[0]"),
        ("doubled_name", "training_folder"),
    }
    assert all(problem.hint for problem in errors_of(found))


def test_one_error_carries_all() -> None:
    tree, where = read_yaml(GUIDE.read_text(), "guide.yaml")
    error = config_error(check_config(tree, where))
    assert isinstance(error, TrainingConfigError)
    assert error.exit_code == 3
    assert error.message.startswith("guide.yaml:1:1: job: is missing")
    assert error.message.endswith("(and 4 more)")
    assert error.hint == "put `job: extension` at the top of the file"
    assert [problem["kind"] for problem in error.details["problems"]][:2] == ["no_job", "no_network"]


def _at_top(**values: Any) -> Any:
    config = copy.deepcopy(sound())
    for key, value in values.items():
        config[key] = value
    return config


def _in_config(**values: Any) -> Any:
    config = copy.deepcopy(sound())
    config["config"].update(values)
    return config


FRAMES: list[tuple[Any, tuple[str, str]]] = [
    ([], ("not_a_mapping", "")),
    (_at_top(job="train"), ("bad_job", "job")),
    (_at_top(job="extention"), ("bad_job", "job")),
    (_at_top(config=[]), ("no_config", "config")),
    (_in_config(name=None), ("no_name", "config.name")),
    (_in_config(name="[name]"), ("no_name", "config.name")),
    (_in_config(name=12), ("bad_name", "config.name")),
    (_in_config(name="my lora"), ("bad_name", "config.name")),
    (_in_config(name="sample"), ("bad_name", "config.name")),
    (_in_config(name="a[b]"), ("bad_name", "config.name")),
    (_in_config(process=[]), ("no_process", "config.process")),
    (_in_config(process=["x"]), ("no_process", "config.process[0]")),
    (_in_config(process=sound()["config"]["process"] * 2), ("many_processes", "config.process")),
    (broken(type=...), ("no_type", "type")),
    (broken(type="sd_trainerr"), ("unknown_type", "type")),
    (broken(type="concept_slider"), ("unsupported_type", "type")),
    (_in_config(proces=1), ("unknown_key", "config.proces")),
    (_in_config(train={"lr": 1}), ("unknown_key", "config.train")),
]


@pytest.mark.parametrize(("config", "expected"), FRAMES, ids=lambda case: "-".join(case) if type(case) is tuple else "")
def test_a_fault_of_the_frame(config: Any, expected: tuple[str, str]) -> None:
    assert expected in {(problem.kind, problem.key) for problem in errors_of(check(config))}


ERRORS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    # keys and kinds
    ({"netwrok": {}}, ("unknown_key", "netwrok")),
    ({"lr": 1e-4}, ("unknown_key", "lr")),
    ({"datasets__0__cache_latent_to_disk": True}, ("unknown_key", "datasets[0].cache_latent_to_disk")),
    ({"train__lr": "1e-4"}, ("bad_kind", "train.lr")),
    ({"train__steps": 10.5}, ("bad_kind", "train.steps")),
    ({"train__train_unet": "no"}, ("bad_kind", "train.train_unet")),
    ({"datasets": {"folder_path": "x"}}, ("bad_kind", "datasets")),
    ({"datasets__0__resolution": ["512"]}, ("bad_kind", "datasets[0].resolution")),
    ({"train__lr": float("inf")}, ("bad_value", "train.lr")),
    ({"train__lr": 0}, ("bad_value", "train.lr")),
    ({"train__steps": 0}, ("bad_value", "train.steps")),
    ({"datasets__0__resolution": [512, 8]}, ("bad_value", "datasets[0].resolution")),
    ({"save__max_step_saves_to_keep": 0}, ("bad_value", "save.max_step_saves_to_keep")),
    ({"train__optimizer": "adamw8bits"}, ("bad_choice", "train.optimizer")),
    ({"train__dtype": "bf8"}, ("bad_choice", "train.dtype")),
    ({"sample__sampler": "flow"}, ("bad_choice", "sample.sampler")),
    # what is trained
    ({"network": ...}, ("no_network", "network")),
    ({"network__rank": 8}, ("contradiction", "network.rank")),
    ({"model": ...}, ("no_model", "model")),
    ({"model__name_or_path": ...}, ("no_base_model", "model.name_or_path")),
    ({"model__arch": ...}, ("no_arch", "model.arch")),
    ({"model__arch": "sd_xl"}, ("unknown_arch", "model.arch")),
    ({"model__arch": "flux", "model__name_or_path": "a/flux1.safetensors"}, ("wrong_layout", "model.name_or_path")),
    ({"model__name_or_path": "models/sdxl"}, ("guide_path", "model.name_or_path")),
    ({"model__arch": "flux", "model__attn_masking": True}, ("contradiction", "model.attn_masking")),
    (
        {"model__qtype": "uint3|a/b/c.safetensors", "model__assistant_lora_path": "a/b"},
        ("contradiction", "model.assistant_lora_path"),
    ),
    # on what
    ({"datasets": []}, ("no_datasets", "datasets")),
    ({"datasets__0__folder_path": ...}, ("no_folder", "datasets[0].folder_path")),
    ({"datasets__0__folder_path": "/workspace/ai-toolkit/x"}, ("guide_path", "datasets[0].folder_path")),
    ({"datasets__0__poi": "face"}, ("contradiction", "datasets[0].poi")),
    ({"datasets__0__num_frames": 33}, ("contradiction", "datasets[0].num_frames")),
    ({"model__arch": "flux_kontext"}, ("no_controls", "datasets[0].control_path")),
    # how
    ({"model__arch": "flux"}, ("wrong_scheduler", "train.noise_scheduler")),
    ({"train__noise_scheduler": "flowmatch"}, ("wrong_scheduler", "train.noise_scheduler")),
    ({"sample__sampler": "flowmatch"}, ("wrong_sampler", "sample.sampler")),
    ({"model__arch": "flux", "train__dtype": "fp16"}, ("bad_dtype", "train.dtype")),
    (
        {"train__gradient_accumulation": 2, "train__gradient_accumulation_steps": 2},
        ("contradiction", "train.gradient_accumulation_steps"),
    ),
    (
        {"train__diff_output_preservation": True, "train__blank_prompt_preservation": True},
        ("contradiction", "train.blank_prompt_preservation"),
    ),
    (
        {"model__arch": "qwen_image_edit", "train__unload_text_encoder": True},
        ("contradiction", "train.unload_text_encoder"),
    ),
    (
        {"train__train_text_encoder": True, "train__cache_text_embeddings": True},
        ("contradiction", "train.train_text_encoder"),
    ),
    # what would leak, or wait for ever
    ({"save__push_to_hub": True}, ("no_hub_repository", "save.push_to_hub")),
    ({"trigger_word": "hf_" + "a" * 30}, ("secret", "trigger_word")),
    ({"save__hf_repo_id": "${HF_TOKEN}/x"}, ("secret", "save.hf_repo_id")),
]


@pytest.mark.parametrize(("values", "expected"), ERRORS, ids=[f"{kind}-{key}" for _, (kind, key) in ERRORS])
def test_a_fault_that_stops_the_run(values: dict[str, Any], expected: tuple[str, str]) -> None:
    found = {(problem.kind, problem.key): problem for problem in errors_of(check(broken(**values)))}
    assert expected in found
    assert found[expected].path[:1] != ()


FLOW: dict[str, Any] = {"train__noise_scheduler": "flowmatch", "sample__sampler": "flowmatch"}

WARNINGS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"train__flux_capacitor": 1}, ("unknown_key", "train.flux_capacitor")),
    ({"network": {"type": "lora"}}, ("low_rank", "network")),
    ({"network__linear_alpha": ...}, ("low_alpha", "network")),
    ({"model__name_or_path": "black-forest-labs/FLUX.1-schnell"}, ("odd_arch", "model.arch")),
    (
        {"model": {"name_or_path": "black-forest-labs/FLUX.1-schnell", "arch": "flux", "quantize": True}, **FLOW},
        ("no_adapter", "model.assistant_lora_path"),
    ),
    ({"datasets__0__resolution": ...}, ("low_resolution", "datasets[0]")),
    ({"train__cache_text_embeddings": True}, ("no_effect", "datasets[0].caption_dropout_rate")),
    ({"train__lr": ...}, ("no_lr", "train.lr")),
    ({"train__steps": ...}, ("no_steps", "train.steps")),
    ({"train__lr": 1e-3}, ("odd_lr", "train.lr")),
    ({"train__optimizer": "prodigy"}, ("odd_lr", "train.lr")),
    ({"train__dtype": ...}, ("wide_dtype", "train")),
    ({"train__dtype": "fp16"}, ("odd_dtype", "train.dtype")),
    ({"save__save_every": 2000}, ("no_saves", "save.save_every")),
    ({"save__save_every": ..., "train__steps": 900}, ("no_saves", "save")),
    ({"save__save_every": 5}, ("many_saves", "save.save_every")),
    ({"sample__prompts": []}, ("no_samples", "sample")),
    ({"sample__sample_every": 10}, ("many_samples", "sample")),
    ({"datasets__0__folder_path": "C:\\pictures"}, ("windows_path", "datasets[0].folder_path")),
    ({"training_folder": "out/my_style_v1"}, ("doubled_name", "training_folder")),
    ({"training_folder": "out_LoRA"}, ("no_resume", "training_folder")),
]


@pytest.mark.parametrize(("values", "expected"), WARNINGS, ids=[f"{kind}-{key}" for _, (kind, key) in WARNINGS])
def test_a_fault_that_the_trainer_survives(values: dict[str, Any], expected: tuple[str, str]) -> None:
    found = check(broken(**values))
    assert errors_of(found) == []
    assert expected in {(problem.kind, problem.key) for problem in found}


def test_faults_do_not_hide_each_other() -> None:
    config = broken(network=..., train__lr="1e-4", datasets=[], model__arch="sdx")
    assert {"no_network", "bad_kind", "no_datasets", "unknown_arch"} <= {kind for kind, _ in kinds(config)}


def test_a_full_finetune_must_be_said() -> None:
    assert [problem.kind for problem in check(broken(network=...), allow_full_finetune=True)] == []


def test_an_adapter_or_an_embedding_needs_no_network() -> None:
    assert errors_of(check(broken(network=..., embedding={"trigger": "x"}))) == []


def test_keys_below_free_mappings_are_not_judged() -> None:
    config = broken(
        network__network_kwargs={"anything": 1}, model__model_kwargs={"a": {"b": 1}}, train__optimizer_params={"x": 1}
    )
    assert check(config) == []


def test_a_key_at_the_wrong_level_is_sent_home() -> None:
    [problem] = check(broken(steps=100))
    assert problem.hint == "it belongs at `train.steps`"
    config = copy.deepcopy(sound())
    config["steps"] = 100
    [problem] = check(config)
    assert problem.hint == "it belongs at `config.process[].train.steps`"


def test_yes_and_no_are_text_that_counts_as_true() -> None:
    tree, where = read_yaml(SDXL.read_text().replace("train_text_encoder: false", "train_text_encoder: no"))
    [problem] = check_config(tree, where)
    assert (problem.kind, problem.hint) == ("bad_kind", "write false: to the trainer any text counts as true")
    assert problem.place == f"train.yaml:{SDXL.read_text().split('train_text_encoder')[0].count(chr(10)) + 1}:9"


def test_a_secret_is_never_shown() -> None:
    secret = "hf_" + "b" * 34
    config = broken(train__lr=secret, train__optimizer=secret, model__arch=secret)
    assert all(secret not in str(problem.to_dict()) for problem in check(config))


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [1], {"a": 1}, True, 1.5])
@pytest.mark.parametrize("key", ["config", "process", "train", "datasets", "model", "sample", "network", "save"])
def test_no_junk_makes_it_raise(key: str, junk: Any) -> None:
    config = copy.deepcopy(sound())
    if key == "config":
        config["config"] = junk
    elif key == "process":
        config["config"]["process"] = junk
    else:
        config["config"]["process"][0][key] = junk
    check_config(config, nowhere)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("z_image", "zimage"),
        ("wan22", "wan22_14b"),
        ("qwen-image", "qwen_image"),
        ("kontext", "flux_kontext"),
        ("SDXL", "sdxl"),
        ("flux1", "flux"),
        ("flux.1-dev", "flux"),
        ("sd_1.5", "sd1"),
        ("hidreem", "hidream"),
    ],
)
def test_a_wrong_architecture_is_answered_with_the_right_one(written: str, meant: str) -> None:
    assert written not in ARCHS
    assert near_arch(written) == meant


@pytest.mark.parametrize("name", ["flux", "flex1", "sd15", "zimage:turbo", "wan22_14b:t2v"])
def test_aliases_and_tags_are_known(name: str) -> None:
    assert "unknown_arch" not in {kind for kind, _ in kinds(broken(model__arch=name))}


@pytest.mark.parametrize(("arch", "home"), HOMES.items())
def test_the_home_of_an_architecture_speaks_of_it(arch: str, home: str) -> None:
    assert guess_arch(home) == arch


def test_tables_agree() -> None:
    assert {recipe.arch for recipe in RECIPES.values()} <= set(ARCHS)
    assert set(HOMES) <= set(ARCHS)
    assert all("/" in name for name in GATED)
    assert [place for place in (*DEFAULTS, *CHOICES) if kind_of(place) is None] == []
    assert [place for place, value in DEFAULTS.items() if place in CHOICES and value not in CHOICES[place]] == []


def test_what_kind_of_file_it_is() -> None:
    assert is_project_file({"version": 1, "project": "x", "target": "modal"})
    assert not is_project_file({"version": 1, "model": "flux", "dataset": "x"})
    assert not is_project_file(sound())
    assert is_native({"config": {}})
    assert is_native({"job": "extension"})
    assert not is_native({"model": "flux"})


def test_all_of_it_loads_with_the_standard_library_alone() -> None:
    modules = ("accept", "fix", "rewrite", "values", "paths")
    lines = [
        f"sys.path.insert(0, {str(REPOSITORY)!r})",
        *(f"import comfymodal.training.ai_toolkit.{m}" for m in modules),
    ]
    script = "; ".join(["import sys", *lines, "import comfymodal.training.sweep", "print('ok')"])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ok\n", "")
