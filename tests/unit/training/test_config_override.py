"""`--set` and `--sweep`: places found, values typed as their key wants, every combination with a name of its own."""

from __future__ import annotations

from typing import Any

import pytest

from comfymodal.errors import UsageError
from comfymodal.training.ai_toolkit.layout import name_fault
from comfymodal.training.ai_toolkit.override import Setting, apply_settings, parse_settings
from comfymodal.training.config import find
from comfymodal.training.sweep import Axis, axes_of, parse_sweep, variants
from tests.unit.training.config_files import broken, check, sound


def value_after(argument: str, config: Any = None) -> Any:
    changed = apply_settings(config or sound(), parse_settings([argument]))
    place = argument.partition("=")[0].replace("[", ".").replace("]", "").split(".")
    keys = [int(part) if part.isdigit() else part for part in place]
    return find(changed.config, ("config", "process", 0, *keys))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("train.lr=1e-4", 1e-4),
        ("train.lr=1", 1),
        ("train.steps=2000", 2000),
        ("train.steps=2e3", 2000),
        ("train.train_unet=false", False),
        ("train.train_unet=True", True),
        ("trigger_word=1e5", "1e5"),
        ("trigger_word=a=b", "a=b"),
        ("datasets[0].resolution=512", 512),
        ("datasets.0.resolution=512,768", [512, 768]),
        ("datasets[0].resolution=[512]", [512]),
        ("datasets[0].num_repeats=3", 3),
        ('network.network_kwargs={"only_if_contains": ["x"]}', {"only_if_contains": ["x"]}),
        ("train.optimizer_params.weight_decay=0.01", 0.01),
        ("model.model_kwargs.anything=true", True),
        ('sample.prompts=["a, b", "c"]', ["a, b", "c"]),
    ],
)
def test_a_value_is_typed_as_its_key_wants(argument: str, value: Any) -> None:
    found = value_after(argument)
    assert found == value
    assert type(found) is type(value)


def test_a_block_that_is_not_there_is_made() -> None:
    assert value_after("train.ema_config.use_ema=true") is True


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("train.lr", "is not PLACE=VALUE"),
        ("=1", "is not PLACE=VALUE"),
        ("train.lr=fast", "must be a number"),
        ("train.lr=nan", "must be a number"),
        ("train.lr=1e999", "must be a number"),
        ("train.steps=1.5", "must be a whole number"),
        ("train.train_unet=yes", "must be true or false"),
        ("train.optimizer=adamw9", "is not known"),
        ("lr=1", "no such place"),
        ("trian.lr=1", "no such place"),
        ("datasets[7].num_repeats=1", "in this config"),
        ("network=3", "must be JSON"),
        ("datasets[0].resolution=[512", "is not a JSON list"),
        ("datasets[0].resolution=a,b", "must be whole numbers"),
    ],
)
def test_a_bad_setting_is_a_usage_error(argument: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        value_after(argument)


def test_a_key_alone_is_sent_to_its_place() -> None:
    with pytest.raises(UsageError) as caught:
        value_after("lr=1")
    assert caught.value.hint == "did you mean train.lr?"


def test_a_place_set_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_settings(["train.lr=1", "train.lr=2"])


def test_the_change_is_told() -> None:
    changed = apply_settings(sound(), parse_settings(["train.lr=2e-4"]))
    assert [change.to_dict() for change in changed.changes] == [
        {
            "path": ["config", "process", 0, "train", "lr"],
            "key": "train.lr",
            "old": 1e-4,
            "new": 2e-4,
            "reason": "--set train.lr",
        }
    ]


def test_a_value_from_a_file_is_left_as_it_is() -> None:
    changed = apply_settings(sound(), [Setting("train.lr", "1e-4", is_text=False)])
    assert {problem.kind for problem in check(changed.config)} == {"bad_kind"}


def test_a_process_that_is_not_the_first_is_the_one_that_is_set() -> None:
    config = sound()
    config["config"]["process"].insert(0, {"type": "something_else"})
    changed = apply_settings(config, parse_settings(["train.steps=7"]))
    assert changed.config["config"]["process"][1]["train"]["steps"] == 7


def test_a_sweep_is_every_combination() -> None:
    axes = parse_sweep(["train.lr=1e-4,4e-4", "network.linear=16,32"])
    assert axes == (Axis("train.lr", ("1e-4", "4e-4")), Axis("network.linear", ("16", "32")))
    runs = variants("cat", axes)
    assert [run.name for run in runs] == [
        "cat--lr1e-4--r16",
        "cat--lr1e-4--r32",
        "cat--lr4e-4--r16",
        "cat--lr4e-4--r32",
    ]
    assert runs[1].title == "train.lr=1e-4 network.linear=32"
    for run in runs:
        changed = apply_settings(sound(), parse_settings([f"{place}={value}" for place, value in run.settings]))
        assert check({**changed.config, "config": {**changed.config["config"], "name": run.name}}) == []


def test_a_list_is_one_value() -> None:
    assert parse_sweep(["datasets[0].resolution=[512],[512,1024]"])[0].values == ("[512]", "[512,1024]")


def test_the_sweep_of_a_file_is_written_as_a_person_would() -> None:
    axes = axes_of({"train.lr": (5e-5, 0.0001), "train.train_unet": (True, False)})
    assert [run.name for run in variants("x1", axes)] == [
        "x1--lr5e-5--train-unettrue",
        "x1--lr5e-5--train-unetfalse",
        "x1--lr0p0001--train-unettrue",
        "x1--lr0p0001--train-unetfalse",
    ]


@pytest.mark.parametrize(
    "values",
    [("a b", "a_b"), ("[512]", "[512,1024]"), ("x" * 80, "y" * 80), ("ü", "ö"), ("../a", "/a"), ("1.0", "1p0")],
)
def test_names_are_such_that_files_can_have_them_and_differ(values: tuple[str, str]) -> None:
    names = [run.name for run in variants("n" * 40, (Axis("train.x", values),))]
    assert len(set(names)) == 2
    assert [name_fault(name) for name in names] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.lr"], "is not PLACE=A,B"),
        (["train.lr=1,,2"], "is not PLACE=A,B"),
        (["train.lr=1"], "has one value"),
        (["train.lr=1,1"], "the same value twice"),
        (["train.lr=1,2", "train.lr=3,4"], "given twice"),
    ],
)
def test_a_bad_sweep_is_a_usage_error(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_sweep(arguments)


def test_too_many_runs_are_refused() -> None:
    axes = parse_sweep(["a=1,2,3,4,5", "b=1,2,3,4,5"])
    with pytest.raises(UsageError, match="a sweep of 5 x 5 = 25 runs"):
        variants("x1", axes)


def test_nothing_swept_is_one_run() -> None:
    assert [run.name for run in variants("x1", ())] == ["x1"]


def test_junk_in_the_way_is_told() -> None:
    with pytest.raises(UsageError, match="in this config"):
        apply_settings(broken(train=3), parse_settings(["train.lr=1"]))
