"""Where a config names files: which places of it are paths, and what kind of text stands there. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from comfymodal.training.ai_toolkit.archs import is_repository, looks_like_file
from comfymodal.training.ai_toolkit.subject import Subject
from comfymodal.training.config import KeyPath, Problem, as_list, as_mapping, shown

Purpose = Literal["dataset", "model", "picture", "weights"]

_DATASET = (
    *("folder_path", "dataset_path", "control_path", "control_path_1", "control_path_2", "control_path_3"),
    *("mask_path", "inpaint_path", "unconditional_path", "clip_image_path"),
)
_MODEL = (
    *("name_or_path", "vae_path", "unet_path", "lora_path", "assistant_lora_path", "inference_lora_path"),
    *("unconditional_lora_path", "refiner_name_or_path", "te_name_or_path", "extras_name_or_path"),
    "accuracy_recovery_adapter",
)
_PICTURES = ("ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3")
_ADAPTER = ("name_or_path", "image_encoder_path", "text_encoder_path", "image_dir", "test_img_path")


@dataclass(frozen=True, slots=True)
class PathUse:
    """One place that names a file, a folder or a repository, as written."""

    path: KeyPath
    text: str
    purpose: Purpose

    @property
    def may_be_repository(self) -> bool:
        return self.purpose in ("model", "weights")


@dataclass(frozen=True, slots=True)
class Found:
    """What a path turned out to be. `local`: here, and must travel. `volume`: already there, as `role:/path`."""

    use: PathUse
    kind: Literal["local", "volume", "repository", "missing"]
    at: str
    """An absolute path here, `models:/loras/x.safetensors`, or the repository's id (with a file in it)."""


def path_uses(subject: Subject) -> Iterator[PathUse]:
    """Visit every place of the training process that names files, in its order."""
    for index, dataset in subject.datasets:
        yield from _uses(subject, f"datasets[{index}]", dataset, _DATASET, "dataset")
        triggers = dataset.get("random_triggers")
        if isinstance(triggers, str):
            yield PathUse(subject.at(f"datasets[{index}].random_triggers"), triggers, "dataset")
    network = as_mapping(subject.process.get("network"))
    yield from _uses(subject, "network", network, ("pretrained_lora_path",), "weights")
    yield from _uses(subject, "model", subject.model, _MODEL, "model")
    paths = as_mapping(subject.model.get("model_paths"))
    yield from _uses(subject, "model.model_paths", paths, tuple(paths), "model")
    qtype = subject.model.get("qtype")
    if isinstance(qtype, str) and "|" in qtype:
        yield PathUse(subject.at("model.qtype"), qtype.partition("|")[2], "model")
    yield from _uses(subject, "adapter", as_mapping(subject.process.get("adapter")), _ADAPTER, "model")
    for block in ("sample", "first_sample"):
        samples = as_list(as_mapping(subject.process.get(block)).get("samples"))
        for index, sample in enumerate(samples):
            yield from _uses(subject, f"{block}.samples[{index}]", as_mapping(sample), _PICTURES, "picture")


def _uses(
    subject: Subject, place: str, block: Mapping[str, Any], keys: tuple[str, ...], purpose: Purpose
) -> Iterator[PathUse]:
    for key in keys:
        value, at = block.get(key), subject.at(f"{place}.{key}") if key in block else ()
        if isinstance(value, str) and value:
            yield PathUse(at, value, purpose)
        for index, entry in enumerate(as_list(value)):
            if isinstance(entry, str) and entry:
                yield PathUse((*at, index), entry, purpose)


def find_path(use: PathUse, *, local: Callable[[str], str | None], mounts: Mapping[str, str]) -> Found:
    """Tell what a written path is.

    `local` gives the absolute path of a file or folder of this machine, None when there is none. `mounts` has the
    folder a volume has in the container by its role: {"models": "/models"}. What is here wins over a repository of the
    same name; the trainer decides so too.
    """
    text = use.text
    if text.startswith("volume:"):
        role = "datasets" if use.purpose in ("dataset", "picture") else "models"
        return Found(use, "volume", f"{role}:/{text.removeprefix('volume:').strip('/')}")
    named = re.fullmatch(r"([a-z]+):/+(.*)", text)
    if named and named[1] in mounts:
        return Found(use, "volume", f"{named[1]}:/{named[2].strip('/')}")
    for role, folder in mounts.items():
        if text == folder or text.startswith(f"{folder}/"):
            return Found(use, "volume", f"{role}:/{text.removeprefix(folder).strip('/')}")
    if here := local(text):
        return Found(use, "local", here)
    if use.may_be_repository and (is_repository(text) or is_file_of_repository(text)):
        return Found(use, "repository", text)
    return Found(use, "missing", text)


def missing_problem(subject: Subject, found: Found) -> Problem:
    """Word a path that was found nowhere. Only for `missing` ones."""
    use, what = found.use, "the folder with the pictures" if found.use.purpose == "dataset" else "the file or folder"
    hint = f"{what}, relative to the config; or volume:/folder on the volume"
    if use.may_be_repository:
        hint += "; or a Hugging Face id, `owner/name`"
    return subject.problem("no_such_path", use.path, f"{shown(use.text)} is not found", hint)


def is_file_of_repository(text: str) -> bool:
    """Whether the text has the shape of a file in a Hugging Face repository, `owner/name/folder/file.safetensors`."""
    parts = text.split("/")
    return len(parts) > 2 and looks_like_file(text) and is_repository("/".join(parts[:2])) and ".." not in parts
