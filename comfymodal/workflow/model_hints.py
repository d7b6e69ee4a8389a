"""Where a missing model belongs, and whether it lies in another folder: completes what `check_graph` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfymodal.workflow.graph import Graph
from comfymodal.workflow.object_info import InputSpec, ObjectInfo, class_entry, input_specs
from comfymodal.workflow.problems import Problem
from comfymodal.workflow.wording import sentences

ModelFiles = Mapping[str, Sequence[str]]
"""Model folder (`loras`) -> the names of its files, as loaders list them."""

# ComfyUI's own loaders, read in 0.3.75: their lists may be empty, or hold more than the folder does.
_CORE_INPUTS = {
    "checkpoints": "CheckpointLoaderSimple.ckpt_name CheckpointLoader.ckpt_name unCLIPCheckpointLoader.ckpt_name "
    "ImageOnlyCheckpointLoader.ckpt_name CreateHookModelAsLora.ckpt_name CreateHookModelAsLoraModelOnly.ckpt_name",
    "configs": "CheckpointLoader.config_name",
    "loras": "LoraLoader.lora_name LoraLoaderModelOnly.lora_name CreateHookLora.lora_name "
    "CreateHookLoraModelOnly.lora_name",
    "vae": "VAELoader.vae_name",
    "diffusion_models": "UNETLoader.unet_name",
    "text_encoders": "CLIPLoader.clip_name DualCLIPLoader.clip_name1 DualCLIPLoader.clip_name2 "
    "TripleCLIPLoader.clip_name1 TripleCLIPLoader.clip_name2 TripleCLIPLoader.clip_name3 "
    "QuadrupleCLIPLoader.clip_name1 QuadrupleCLIPLoader.clip_name2 QuadrupleCLIPLoader.clip_name3 "
    "QuadrupleCLIPLoader.clip_name4",
    "clip_vision": "CLIPVisionLoader.clip_name",
    "controlnet": "ControlNetLoader.control_net_name DiffControlNetLoader.control_net_name",
    "style_models": "StyleModelLoader.style_model_name",
    "gligen": "GLIGENLoader.gligen_name",
    "upscale_models": "UpscaleModelLoader.model_name",
    "latent_upscale_models": "LatentUpscaleModelLoader.model_name",
    "model_patches": "ModelPatchLoader.name",
    "hypernetworks": "HypernetworkLoader.hypernetwork_name",
    "photomaker": "PhotoMakerLoader.photomaker_model_name",
    "audio_encoders": "AudioEncoderLoader.audio_encoder_name",
    "diffusers": "DiffusersLoader.model_path",
}
_FOLDER_OF = {place: folder for folder, places in _CORE_INPUTS.items() for place in places.split()}


def add_model_hints(
    problems: Sequence[Problem],
    graph: Graph,
    *,
    object_info: ObjectInfo,
    model_files: ModelFiles,
    models_root: str | None,
) -> tuple[Problem, ...]:
    """Return *problems* with more to say about each missing model; the others as they are.

    *models_root* is the folder that holds the model folders, None when it is on somebody else's machine.
    """
    found = []
    for problem in problems:
        if problem.kind == "missing_model" and problem.input_name is not None:
            name = graph[problem.node_id]["inputs"][problem.input_name]
            spec = input_specs(class_entry(object_info, problem.class_type)).get(problem.input_name)
            more = _hint(str(name), problem, spec, model_files, models_root) if isinstance(name, str) else None
            found.append(replace(problem, hint=sentences(problem.hint, more)))
        else:
            found.append(problem)
    return tuple(found)


def model_folder(class_type: str, spec: InputSpec, model_files: ModelFiles) -> str | None:
    """Return the model folder this input reads: known of ComfyUI's own loaders, else told by equal lists.

    An empty list tells nothing; then the input's name may, where all of ComfyUI's own loaders agree on it.
    """
    if (folder := _FOLDER_OF.get(f"{class_type}.{spec.name}")) is not None:
        return folder
    listed = set(spec.options or ())
    same = [folder for folder, files in model_files.items() if listed and set(files) == listed]
    if len(same) == 1:
        return same[0]
    by_name = {folder for place, folder in _FOLDER_OF.items() if place.partition(".")[2] == spec.name}
    return by_name.pop() if len(by_name) == 1 and not same else None


def _hint(
    name: str, problem: Problem, spec: InputSpec | None, model_files: ModelFiles, models_root: str | None
) -> str | None:
    folder = model_folder(problem.class_type, spec, model_files) if spec is not None else None
    return sentences(_elsewhere(name, folder, model_files), _destination(name, folder, models_root))


def _elsewhere(name: str, folder: str | None, model_files: ModelFiles) -> str | None:
    wanted = _file_name(name)
    for other, files in model_files.items():
        for file in files if other != folder else ():
            if _file_name(file) == wanted:
                return f"{file} is in {other}, which this input does not read"
    return None


def _destination(name: str, folder: str | None, models_root: str | None) -> str | None:
    if folder is None:
        return None
    if models_root is None:
        return f"it belongs into the server's {folder} folder"
    return f"it belongs at {models_root.rstrip('/')}/{folder}/{_slashed(name)}"


def _slashed(name: Any) -> str:
    return str(name).replace("\\", "/")


def _file_name(name: str) -> str:
    return _slashed(name).casefold().rpartition("/")[2]
