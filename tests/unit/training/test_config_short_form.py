"""The short form: read with its places, expanded to a config that the check finds nothing wrong with."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from comfymodal.errors import TrainingConfigError, UsageError
from comfymodal.training.ai_toolkit.accept import Wishes, accept
from comfymodal.training.ai_toolkit.expand import expand
from comfymodal.training.ai_toolkit.fix import fix_config
from comfymodal.training.ai_toolkit.override import parse_settings
from comfymodal.training.ai_toolkit.rewrite import Placement, rewrite
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.config import errors_of, find
from comfymodal.training.recipes import RECIPES
from comfymodal.training.short_form import read_short_form
from tests.unit.training.config_files import FLUX, GUIDE, SDXL, check, nowhere, read_yaml

SHORT = {"name": "my_char", "model": "flux", "dataset": "./pictures"}


def process_of(config: Any) -> Any:
    return config["config"]["process"][0]


@pytest.mark.parametrize("path", [FLUX, SDXL], ids=["flux", "sdxl"])
def test_the_examples_are_sound(path: Any) -> None:
    tree, where = read_yaml(path.read_text())
    accepted = accept(tree, where)
    assert accepted.is_sound
    assert {problem.kind for problem in accepted.problems} <= {"gated"}


@pytest.mark.parametrize("model", RECIPES)
def test_every_recipe_makes_a_config_without_a_fault(model: str) -> None:
    read = read_short_form({**SHORT, "model": model}, nowhere)
    assert read.form is not None
    found = check(expand(read.form).config)
    assert {problem.kind for problem in found} <= {"gated"}


@pytest.mark.parametrize("model", RECIPES)
@pytest.mark.parametrize("steps", [1, 7, 100, 5000])
def test_it_saves_before_the_end_however_short(model: str, steps: int) -> None:
    read = read_short_form({**SHORT, "model": model, "steps": steps}, nowhere)
    assert read.form is not None
    values = read_values(expand(read.form).config)
    assert 1 <= values.save_every <= max(10, steps // 4, 1)
    assert values.save_every <= 250


def test_everything_that_is_said_arrives() -> None:
    read = read_short_form(
        {
            **SHORT,
            "weights": "me/flux-finetune",
            "dataset": [{"path": "a", "repeats": 3, "resolution": 768, "caption": "a thing"}, "b"],
            "trigger": "p3r5on",
            "steps": 1200,
            "rank": 32,
            "alpha": 8,
            "lr": 2e-4,
            "resolution": [512],
            "batch": 2,
            "caption_dropout": 0,
            "save_every": 100,
            "keep": 7,
            "prompts": ["one", "two"],
            "sample_every": 300,
            "sample_size": 640,
            "seed": 7,
        },
        nowhere,
    )
    assert read.form is not None
    values = read_values(expand(read.form).config)
    assert (values.name, values.arch, values.base_model) == ("my_char", "flux", "me/flux-finetune")
    assert [(each.path, each.num_repeats, each.resolutions, each.default_caption) for each in values.datasets] == [
        ("a", 3, (768,), "a thing"),
        ("b", 1, (512,), None),
    ]
    assert (values.trigger_word, values.steps, values.rank, values.alpha, values.lr) == ("p3r5on", 1200, 32, 8, 2e-4)
    assert (values.batch_size, values.save_every, values.keep_saves, values.seed) == (2, 100, 7, 7)
    assert [(prompt.text, prompt.width) for prompt in values.sample_prompts] == [("one", 640), ("two", 640)]
    assert (values.sample_every, values.sample_count) == (300, 2 * 5)
    assert process_of(expand(read.form).config)["datasets"][0]["caption_dropout_rate"] == 0


def test_alpha_follows_rank() -> None:
    read = read_short_form({**SHORT, "rank": 64}, nowhere)
    assert read.form is not None
    assert process_of(expand(read.form).config)["network"]["linear_alpha"] == 64


def test_every_mistake_is_told_with_its_place() -> None:
    tree, where = read_yaml(
        "name: x y\n"
        "modle: flux\n"
        "model: fluxx\n"
        "learning_rate: 1e-4\n"
        'steps: "2000"\n'
        "rank: 0\n"
        "trigger: 12\n"
        "sweep: {train.lr: 1e-4}\n"
        "dataset:\n"
        "  - path: a\n"
        "    repeat: 2\n"
        "  - 5\n"
    )
    read = read_short_form(tree, where)
    assert read.form is None
    assert [(problem.place, problem.key, problem.hint) for problem in read.problems] == [
        ("train.yaml:2:1", "modle", "did you mean `model`?"),
        ("train.yaml:4:1", "learning_rate", "did you mean `lr`?"),
        ("train.yaml:3:1", "model", f"did you mean `flux`? models: {', '.join(RECIPES)}"),
        ("train.yaml:5:1", "steps", None),
        ("train.yaml:6:1", "rank", None),
        ("train.yaml:7:1", "trigger", "put quotes around it"),
        ("train.yaml:8:9", "sweep.train.lr", "`train.lr: [5e-5, 1e-4]`"),
        ("train.yaml:11:5", "dataset[0].repeat", "did you mean `repeats`?"),
        ("train.yaml:12:5", "dataset[1]", None),
    ]


def test_what_is_missing_is_told() -> None:
    read = read_short_form({"name": "x"}, nowhere)
    assert {problem.key for problem in read.problems} == {"model", "dataset"}


def test_a_fault_that_the_check_finds_is_placed_in_the_short_form() -> None:
    tree, where = read_yaml("name: a b\nmodel: flux\ndataset: /workspace/x\nlr: 1e-2\n")
    accepted = accept(tree, where)
    places = {problem.kind: problem.place for problem in accepted.problems}
    assert places["bad_name"] == "train.yaml:1:1"
    assert places["guide_path"] == "train.yaml:3:1"
    assert places["odd_lr"] == "train.yaml:4:1"
    assert places["gated"] == "train.yaml:2:1"


def test_overrides_and_flags_come_last() -> None:
    tree, where = read_yaml(
        "name: my_char\nmodel: flux\ndataset: x\nsteps: 100\n"
        "overrides: {train.timestep_type: weighted, train.lr: 3e-4}\n"
    )
    wishes = Wishes(name="other", steps=50, settings=parse_settings(["train.lr=5e-5"]))
    accepted = accept(tree, where, wishes)
    assert accepted.is_sound
    assert accepted.config is not None
    train = process_of(accepted.config)["train"]
    assert (train["timestep_type"], train["lr"], train["steps"]) == ("weighted", 5e-5, 50)
    assert accepted.config["config"]["name"] == "other"
    assert [change.reason for change in accepted.changes] == [
        "the file's own override",
        "the file's own override",
        "--set train.lr",
        "--name",
        "--steps",
    ]


def test_a_bad_override_is_placed_where_it_was_said() -> None:
    tree, where = read_yaml("name: ab\nmodel: flux\ndataset: x\noverrides: {train.dtype: fp16}\n")
    by_file = errors_of(accept(tree, where).problems)
    assert [(problem.kind, problem.place) for problem in by_file] == [("bad_dtype", "train.yaml:4:1")]
    by_flag = accept(tree, where, Wishes(settings=parse_settings(["train.dtype=half"])))
    assert [problem.place for problem in errors_of(by_flag.problems)] == ["--set"]


def test_a_project_file_is_told_so() -> None:
    tree, where = read_yaml("version: 1\nproject: x\ntarget: modal\n", "comfymodal.yaml")
    with pytest.raises(TrainingConfigError, match=r"comfymodal.yaml is a project file") as caught:
        accept(tree, where)
    assert caught.value.hint is not None
    assert "-c PROJECT.yaml" in caught.value.hint


@pytest.mark.parametrize("tree", [[], "text", 3, {}, {"a": 1}])
def test_anything_else_is_refused_with_words(tree: Any) -> None:
    accepted = accept(tree, nowhere)
    assert not accepted.is_sound
    assert errors_of(accepted.problems)


def test_the_guides_config_is_refused_and_not_crashed_by_flags() -> None:
    tree, where = read_yaml(GUIDE.read_text())
    accepted = accept(tree, where, Wishes(name="new_name", steps=10))
    assert not accepted.is_sound
    assert find(accepted.config, ("config", "name")) == "new_name"


def test_a_frame_without_a_process_is_reported_not_overridden() -> None:
    accepted = accept({"job": "extension"}, nowhere, Wishes(settings=parse_settings(["train.lr=1"]), steps=3))
    assert "no_config" in {problem.kind for problem in accepted.problems}


def test_variables_are_put_in_and_typed() -> None:
    text = SDXL.read_text().replace("steps: 2000", "steps: ${STEPS}").replace("name: my_style_v1", "name: ${WHO}_v1")
    tree, where = read_yaml(text)
    accepted = accept(tree, where, Wishes(environ={"STEPS": "900", "WHO": "anna"}))
    assert accepted.is_sound
    assert find(accepted.config, ("config", "process", 0, "train", "steps")) == 900
    assert find(accepted.config, ("config", "name")) == "anna_v1"
    [problem] = [each for each in accept(tree, where, Wishes(environ={"WHO": "x1"})).problems if not each.is_warning]
    assert (problem.kind, problem.key) == ("no_variable", "train.steps")


def test_a_secret_variable_is_not_read() -> None:
    text = SDXL.read_text().replace("trigger_word: in the style of m1st", "trigger_word: ${MY_TOKEN}")
    tree, where = read_yaml(text)
    accepted = accept(tree, where, Wishes(environ={"MY_TOKEN": "sesame"}))
    assert "secret" in {problem.kind for problem in accepted.problems}
    assert "sesame" not in str(accepted)


def test_a_setting_without_a_place_is_a_usage_error() -> None:
    tree, where = read_yaml(SDXL.read_text())
    with pytest.raises(UsageError, match=r"train\.lrr: no such place"):
        accept(tree, where, Wishes(settings=parse_settings(["train.lrr=1"])))


def test_a_key_of_the_short_form_is_set_before_the_recipe_adds_to_it() -> None:
    tree, where = read_yaml(FLUX.read_text())
    accepted = accept(tree, where, Wishes(settings=parse_settings(["rank=64", "resolution=512,768", "trigger=1e4"])))
    assert accepted.is_sound
    process = process_of(accepted.config)
    assert (process["network"]["linear"], process["network"]["linear_alpha"]) == (64, 64)
    assert process["datasets"][0]["resolution"] == [512, 768]
    assert process["trigger_word"] == "1e4"
    assert {change.reason for change in accepted.changes} >= {"--set rank"}


def test_a_bad_value_for_a_key_of_the_short_form() -> None:
    tree, where = read_yaml(FLUX.read_text())
    with pytest.raises(UsageError, match="--set rank: must be a whole number"):
        accept(tree, where, Wishes(settings=parse_settings(["rank=many"])))
    refused = accept(tree, where, Wishes(settings=parse_settings(["rank=0"])))
    assert [(problem.place, problem.key) for problem in refused.problems] == [("--set", "rank")]


def test_nothing_that_a_file_may_hold_makes_it_raise() -> None:
    chance = random.Random(1)
    sources = [read_yaml(path.read_text())[0] for path in (FLUX, SDXL, GUIDE)]
    for _ in range(150):
        config = copy.deepcopy(chance.choice(sources))
        for _ in range(chance.randint(1, 4)):
            _spoil(config, chance)
        accepted = accept(config, nowhere, Wishes(name="other", steps=5, environ={"A": "1"}))
        fix_config(config)
        if accepted.is_sound:
            assert accepted.config is not None
            rewritten = rewrite(accepted.config, Placement("other")).config
            assert errors_of(check(rewritten)) == []


JUNK: tuple[Any, ...] = (
    *(None, 0, -1, 1.5, float("inf"), True, "", "yes", "1e-4", "${A}", "${}", 10**400),
    *([], ["a"], [None], {}, {"a": 1}),
)


def _spoil(config: Any, chance: random.Random) -> None:
    """Put junk somewhere, take a key away, or misspell one."""
    at = config
    while isinstance(at, (dict, list)) and at:
        key = chance.choice(list(at) if isinstance(at, dict) else list(range(len(at))))
        if not isinstance(at[key], (dict, list)) or chance.random() < 0.3:
            break
        at = at[key]
    else:
        return
    if chance.random() < 0.6:
        at[key] = copy.deepcopy(chance.choice(JUNK))
    elif isinstance(at, dict) and chance.random() < 0.5:
        at[f"{key}s"] = at.pop(key)
    else:
        del at[key]
