"""Write a Stable Diffusion 1.5 checkpoint of about 330 KB, for tests that need a real KSampler but not a real picture.

    ENGINE_PYTHON tests/data/tiny_checkpoint.py COMFYUI_PATH OUTPUT_FILE

ENGINE_PYTHON is the Python that runs ComfyUI, COMFYUI_PATH the directory with its main.py. OUTPUT_FILE should end in
`.ckpt` or `.pt`: it is a torch file, because only those keep strides. The 152 million parameters are overlapping
windows over one random buffer of 256 KB: true weights in memory, next to nothing on disk. The same engine writes the
same bytes every time.
"""

import io
import json
import math
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

BUFFER_LENGTH = 65_536  # float32: 256 KB
WEIGHT_DEVIATION = 0.025  # less and prompts hardly matter, more and the pictures are black and white
SEED = 20_240_229

# ComfyUI detects the family by width, context and attention layout, not by depth: the shallowest net that is still 1.5.
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 0],
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}

Shapes = Iterator[tuple[str, torch.Size]]


def shapes(comfyui: Path) -> Shapes:
    """Every key and shape of the checkpoint, from ComfyUI's own modules on the meta device: no memory, no files."""
    sys.path.insert(0, str(comfyui))
    # By name: type checkers and linters run where there is no ComfyUI.
    import_module("comfy.cli_args").args.cpu = True  # before model_management looks for a GPU at import
    unet = import_module("comfy.ldm.modules.diffusionmodules.openaimodel")
    text = import_module("comfy.clip_model")
    vae = import_module("comfy.taesd.taesd")
    plain = import_module("comfy.ops").disable_weight_init
    clip = json.loads((comfyui / "comfy" / "sd1_clip_config.json").read_text("utf-8"))
    with torch.device("meta"):
        modules: dict[str, Any] = {
            "model.diffusion_model.": unet.UNetModel(**UNET, operations=plain, device="meta"),
            "cond_stage_model.transformer.text_model.": text.CLIPTextModel_(clip, torch.float32, "meta", plain),
            "first_stage_model.taesd_encoder.": vae.Encoder(),
            "first_stage_model.taesd_decoder.": vae.Decoder(),
        }
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            yield prefix + name, tensor.shape


def window(buffer: torch.Tensor, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A tensor of this shape inside the buffer: the whole overlaps itself, but along one dimension nothing repeats."""
    strides = [1] * len(shape)
    left = len(buffer) - 1
    longest_first = sorted(range(len(shape)), key=lambda dimension: -shape[dimension])
    for rank, dimension in enumerate(longest_first):
        steps = max(1, shape[dimension] - 1)
        strides[dimension] = max(1, left // (len(shape) - rank) // steps)
        left -= steps * strides[dimension]
    if left < 0:
        raise ValueError(f"a tensor of shape {tuple(shape)} does not fit a buffer of {len(buffer)}")
    start = int(torch.randint(left + 1, (1,), generator=generator))
    return buffer.as_strided(shape, strides, start)


def state_dict(comfyui: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    buffer = torch.randn(BUFFER_LENGTH, generator=generator) * WEIGHT_DEVIATION
    zero, half, one = torch.zeros(1), torch.full((1,), 0.5), torch.ones(1)
    tensors: dict[str, torch.Tensor] = {}
    last_bias = ""
    for name, shape in shapes(comfyui):
        if name.endswith(".bias"):
            tensors[name] = zero.expand(shape)
            last_bias = name
        elif len(shape) == 1:  # the weight of a norm
            tensors[name] = one.expand(shape)
        else:
            tensors[name] = window(buffer, shape, generator)
    # The decoder comes last, so this is the bias of the pixels: pictures are noise around grey instead of around black.
    tensors[last_bias] = half.expand(tensors[last_bias].shape)
    return tensors


def write(tensors: dict[str, torch.Tensor], target: Path) -> None:
    """All or nothing: a half-written checkpoint would be found by the next run."""
    content = io.BytesIO()  # not the file itself: torch would store its name
    torch.save({"state_dict": tensors}, content)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: ENGINE_PYTHON tiny_checkpoint.py COMFYUI_PATH OUTPUT_FILE", file=sys.stderr)
        return 2
    comfyui, target = Path(arguments[0]).resolve(), Path(arguments[1]).resolve()
    if not (comfyui / "comfy").is_dir():
        print(f"{comfyui} is not a ComfyUI directory: it has no comfy/", file=sys.stderr)
        return 2
    tensors = state_dict(comfyui)
    write(tensors, target)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    print(f"{target}: {parameters / 1e6:.0f} M parameters, {target.stat().st_size / 1e3:.0f} KB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
