"""Graphs and real /object_info entries (ComfyUI 0.3.75) for the tests of this folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from comfymodal.workflow.graph import Graph

REAL: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("object_info.json").read_text("utf-8"))

# Hand-written after the shape of newer ComfyUI (0.3.75 has none): a dynamic combo and an autogrow input.
DYNAMIC: dict[str, Any] = {
    "input": {
        "required": {
            "input": ["COMFY_MATCHTYPE_V3", {"template": {"allowed_types": "IMAGE,MASK"}}],
            "resize_type": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "scale by", "inputs": {}}]}],
            "images": ["COMFY_AUTOGROW_V3", {"template": {}}],
        }
    },
    "output": ["COMFY_MATCHTYPE_V3"],
    "output_node": False,
}


def object_info(**options: Any) -> dict[str, dict[str, Any]]:
    """Return real entries, with lists that a new server has empty: `ckpt_name=["a.safetensors"]`."""
    info = copy.deepcopy({**REAL, "ResizeDynamic": DYNAMIC})
    for entry in info.values():
        for section in ("required", "optional"):
            for name, spec in entry["input"].get(section, {}).items():
                if name not in options:
                    continue
                if spec[0] == "COMBO":
                    spec[1]["options"] = options[name]
                elif isinstance(spec[0], list):
                    spec[0] = options[name]
    return info


def node(class_type: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_type": class_type, "inputs": inputs}
    return {**made, "_meta": {"title": title}} if title is not None else made


def text_to_image() -> Graph:
    """The workflow everyone knows, in ComfyUI's own node ids."""
    return {
        "3": node(
            "KSampler",
            "Sampler",
            seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="sd15.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "6": node("CLIPTextEncode", "Positive Prompt", text="a cat", clip=["4", 1]),
        "7": node("CLIPTextEncode", "Negative", text="blurry", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", "Save", images=["8", 0], filename_prefix="out"),
    }


def image_to_image() -> Graph:
    return {
        "10": node("LoadImage", "Photo", image="example.png"),
        "11": node("ImageScaleBy", image=["10", 0], upscale_method="lanczos", scale_by=0.5),
        "12": node("SaveImage", images=["11", 0], filename_prefix="out"),
    }
