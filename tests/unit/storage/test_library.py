from __future__ import annotations

from typing import Any

import pytest

from comfymodal.comfyui.server import LEGACY_MODEL_FOLDERS, MODEL_FOLDERS
from comfymodal.storage.library import (
    Folders,
    Library,
    find_models,
    in_folder,
    named_in,
    note_path,
    read_library,
    split_folder,
)

FOLDERS = Folders(MODEL_FOLDERS, {old: new for new, olds in LEGACY_MODEL_FOLDERS.items() for old in olds})


def library(*paths: str) -> Library:
    return read_library([(path, 10) for path in paths], FOLDERS)


def test_older_names_of_folders_count_as_those_of_today() -> None:
    models = library("unet/flux.safetensors", "clip/t5.safetensors", "t2i_adapter/a.pth").models

    assert [(model.folder, model.name) for model in models] == [
        ("text_encoders", "t5.safetensors"),
        ("controlnet", "a.pth"),
        ("diffusion_models", "flux.safetensors"),
    ]


def test_folders_of_custom_nodes_and_files_outside_of_any_are_shown_too() -> None:
    models = library("ipadapter/a.bin", "lost.safetensors").models

    assert [(model.folder, model.path) for model in models] == [
        ("ipadapter", "ipadapter/a.bin"),
        ("", "lost.safetensors"),
    ]


def test_what_is_no_model_is_counted_apart_or_left_out() -> None:
    found = read_library(
        [
            ("loras/a.safetensors", 10),
            ("loras/b.safetensors.partial", 3),
            ("loras/b.safetensors.from.partial", 1),
            (".comfymodal/trash/20261121T130300Z/loras/c.safetensors", 7),
            (".comfymodal/bases/x.json", 5),
            (".cache/huggingface/x", 5),
            ("loras/.DS_Store", 5),
            ("loras/put_loras_here", 0),
        ],
        FOLDERS,
    )

    assert [model.path for model in found.models] == ["loras/a.safetensors"]
    assert (found.unfinished_bytes, found.trash_bytes) == (4, 7)


def test_notes_are_no_models_and_go_with_the_last_of_theirs() -> None:
    found = library("loras/a.safetensors", "loras/a.ckpt", "loras/a.comfymodal.json", "loras/b.v1.safetensors")
    by_name = {model.name: model for model in found.models}

    assert sorted(by_name) == ["a.ckpt", "a.safetensors", "b.v1.safetensors"]
    assert found.notes == {"loras/a.comfymodal.json": 10}
    assert found.notes_of([by_name["a.ckpt"]]) == {}
    assert found.notes_of([by_name["a.ckpt"], by_name["a.safetensors"]]) == {
        by_name["a.ckpt"]: "loras/a.comfymodal.json"
    }
    assert note_path("loras/b.v1.safetensors") == "loras/b.v1.comfymodal.json"
    assert note_path("lost") == "lost.comfymodal.json"


def test_a_folder_is_asked_for_by_either_name_and_by_what_is_below_it() -> None:
    models = library("unet/a.safetensors", "diffusion_models/b.safetensors", "loras/people/c.safetensors").models

    assert [m.path for m in in_folder(models, "unet/", FOLDERS)] == [
        "diffusion_models/b.safetensors",
        "unet/a.safetensors",
    ]
    assert [m.path for m in in_folder(models, "loras/people", FOLDERS)] == ["loras/people/c.safetensors"]
    assert in_folder(models, "loras/peop", FOLDERS) == ()


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        pytest.param("loras/x/a.safetensors", ["loras/x/a.safetensors"], id="path"),
        pytest.param("x/a.safetensors", ["loras/x/a.safetensors"], id="as ComfyUI lists it"),
        pytest.param("b.pth", ["upscale_models/b.pth"], id="file name"),
        pytest.param("a.safetensors", ["checkpoints/a.safetensors"], id="a name before a file name"),
        pytest.param("c.safetensors", ["loras/x/c.safetensors", "loras/y/c.safetensors"], id="several"),
        pytest.param("d", [], id="none"),
    ],
)
def test_models_are_found(wanted: str, paths: list[str]) -> None:
    models = library(
        "loras/x/a.safetensors",
        "checkpoints/a.safetensors",
        "upscale_models/b.pth",
        "loras/x/c.safetensors",
        "loras/y/c.safetensors",
    ).models

    assert [model.path for model in find_models(models, wanted)] == paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("split_files/vae/ae.safetensors", ("vae", "ae.safetensors")),
        ("unet/diffusion_pytorch_model.safetensors", ("diffusion_models", "diffusion_pytorch_model.safetensors")),
        ("models/loras/people/a.safetensors", ("loras", "people/a.safetensors")),
        ("vae/checkpoints/a.safetensors", ("checkpoints", "a.safetensors")),
        ("a.safetensors", None),
        # Its name is no folder.
        ("some/loras", None),
    ],
)
def test_a_folder_is_taken_from_a_path(path: str, expected: tuple[str, str] | None) -> None:
    assert split_folder(path, FOLDERS) == expected


def graph(**inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": "Any", "inputs": inputs}}


@pytest.mark.parametrize(
    ("path", "inputs"),
    [
        pytest.param("loras/x/a.safetensors", {"lora_name": "x/a.safetensors"}, id="plain"),
        pytest.param("loras/x/a.safetensors", {"lora_name": "x\\a.safetensors"}, id="from Windows"),
        pytest.param("loras/a.safetensors", {"lora_1": {"on": True, "lora": "a.safetensors"}}, id="in a mapping"),
        pytest.param("loras/a.safetensors", {"stack": [["a.safetensors", 0.5]]}, id="in a list"),
        pytest.param("embeddings/bad.pt", {"text": "ugly, (embedding:bad:1.2)"}, id="embedding without extension"),
        pytest.param("embeddings/bad.pt", {"text": "embedding:bad.pt"}, id="embedding"),
        pytest.param("diffusers/sdxl/unet/model.bin", {"model_path": "sdxl"}, id="a folder of diffusers"),
    ],
)
def test_a_model_that_a_workflow_names_is_used(path: str, inputs: dict[str, Any]) -> None:
    (model,) = library(path).models

    assert named_in([graph(**inputs)]).names(model)
    assert not named_in([graph(text="a photo of a cat", seed=5)]).names(model)
