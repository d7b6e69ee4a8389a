"""Where a missing model belongs, and where it is instead."""

from __future__ import annotations

from typing import Any

import pytest

from comfymodal.workflow.check import check_graph
from comfymodal.workflow.model_hints import add_model_hints, model_folder
from comfymodal.workflow.object_info import InputSpec
from tests.unit.workflow.workflow_samples import object_info, text_to_image

FILES = {
    "checkpoints": ["a.safetensors"],
    "loras": ["style/x.safetensors", "y.safetensors"],
    "vae": [],
    "yolo": ["f.pt"],
}


def spec(name: str, *options: str) -> InputSpec:
    return InputSpec(name=name, type="COMBO", options=options, settings={}, is_required=True)


@pytest.mark.parametrize(
    ("class_type", "given", "folder"),
    [
        pytest.param("VAELoader", spec("vae_name", "pixel_space"), "vae", id="core-loader-whose-list-has-more"),
        pytest.param("UNETLoader", spec("unet_name"), "diffusion_models", id="core-loader-with-an-empty-list"),
        pytest.param("FaceThing", spec("detector", "f.pt"), "yolo", id="custom-node-by-equal-list"),
        pytest.param("MyLoras", spec("lora_name"), "loras", id="custom-node-by-input-name"),
        pytest.param("MyLoader", spec("clip_name"), None, id="a-name-that-means-two-folders"),
        pytest.param("MyLoader", spec("weights"), None, id="an-empty-list-tells-nothing"),
    ],
)
def test_folder_of_a_loader(class_type: str, given: InputSpec, folder: str | None) -> None:
    assert model_folder(class_type, given, FILES) == folder


def test_equal_lists_of_two_folders_tell_nothing() -> None:
    assert model_folder("Any", spec("weights", "f.pt"), {"a": ["f.pt"], "b": ["f.pt"]}) is None


def hint_for(name: str, *, models_root: str | None = "/models") -> str:
    graph = text_to_image()
    graph["4"]["inputs"]["ckpt_name"] = name
    info: dict[str, Any] = object_info(ckpt_name=["a.safetensors"])
    found = check_graph(graph, object_info=info)
    (problem,) = add_model_hints(found, graph, object_info=info, model_files=FILES, models_root=models_root)
    assert problem.kind == "missing_model"
    return str(problem.hint)


def test_hint_says_where_the_file_belongs() -> None:
    assert hint_for("SDXL\\big.ckpt").endswith("; it belongs at /models/checkpoints/SDXL/big.ckpt")


def test_hint_names_the_folder_the_file_lies_in() -> None:
    assert "style/x.safetensors is in loras, which this input does not read" in hint_for("X.safetensors")


def test_on_somebody_elses_server_only_the_folder_is_known() -> None:
    assert hint_for("big.ckpt", models_root=None).endswith("; it belongs into the server's checkpoints folder")
