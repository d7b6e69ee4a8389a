"""A LoRA inside a UNet of diffusers, under the names in which it is saved: kohya's, as ai-toolkit and ComfyUI know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from peft import LoraConfig  # type: ignore[import-not-found, unused-ignore]

# All that is linear in the transformers of the UNet: with 1.5 the projections around them are convolutions of 1x1.
TARGETS = ("proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
PREFIX = "lora_unet_"
ADAPTER = "default"

Tensors = dict[str, Any]


def add_lora(unet: Any, *, rank: int, alpha: float) -> int:
    """Freeze the UNet and put the layers in; returns how many modules have one now."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)))
    return sum(1 for _ in _modules(unet))


def parameters(unet: Any) -> list[Any]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def read_lora(unet: Any, *, alpha: float, dtype: Any) -> Tensors:
    """Copies of the weights as they are now."""
    tensors: Tensors = {}
    for key, module in _modules(unet):
        for part, layers in (("lora_down", module.lora_A), ("lora_up", module.lora_B)):
            tensors[f"{key}.{part}.weight"] = layers[ADAPTER].weight.detach().to(dtype).clone()
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha), dtype=dtype)
    return tensors


def fill_lora(unet: Any, tensors: Tensors) -> None:
    """Take over saved weights. Raises `KeyError` where one is missing."""
    with torch.no_grad():
        for key, module in _modules(unet):
            for part, layers in (("lora_down", module.lora_A), ("lora_up", module.lora_B)):
                layers[ADAPTER].weight.copy_(tensors[f"{key}.{part}.weight"])


def _modules(unet: Any) -> Iterator[tuple[str, Any]]:
    for name, module in unet.named_modules():
        if hasattr(module, "lora_A"):
            yield PREFIX + name.replace(".", "_"), module
