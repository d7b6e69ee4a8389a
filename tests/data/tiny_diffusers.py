"""Turn the checkpoint of `tiny_checkpoint.py` into the folder that diffusers and transformers load, same weights.

    TRAINER_PYTHON tests/data/tiny_diffusers.py CHECKPOINT COMFYUI_PATH OUTPUT_FOLDER

TRAINER_PYTHON has torch, diffusers and transformers. COMFYUI_PATH brings only the tokenizer's words. What is trained on
the one fits the other: names and shapes are held to those of the real classes. The files are torch's, because only
those keep strides: half a megabyte instead of six hundred.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from diffusers import (  # type: ignore[import-not-found, unused-ignore]
    AutoencoderTiny,
    DDIMScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel  # type: ignore[import-not-found, unused-ignore]

# The net of tiny_checkpoint.py in the words of diffusers.
UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 320),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # which in this class is how many heads there are
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
TOKENIZER = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")

UNET_BLOCKS = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("input_blocks.1.0", "down_blocks.0.resnets.0"),
    ("input_blocks.2.0.op", "down_blocks.0.downsamplers.0.conv"),
    ("input_blocks.3.0", "down_blocks.1.resnets.0"),
    ("input_blocks.3.1", "down_blocks.1.attentions.0"),
    ("middle_block.0", "mid_block.resnets.0"),
    ("output_blocks.0.0", "up_blocks.0.resnets.0"),
    ("output_blocks.1.0", "up_blocks.0.resnets.1"),
    ("output_blocks.1.1", "up_blocks.0.upsamplers.0"),
    ("output_blocks.2.0", "up_blocks.1.resnets.0"),
    ("output_blocks.3.0", "up_blocks.1.resnets.1"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)
RESNET_PARTS = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)

Tensors = dict[str, torch.Tensor]


def below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def unet_tensors(checkpoint: Tensors) -> Tensors:
    return {unet_name(name): tensor for name, tensor in below(checkpoint, "model.diffusion_model.").items()}


def unet_name(name: str) -> str:
    for old, new in UNET_BLOCKS:
        if name.startswith(f"{old}."):
            rest = name.removeprefix(f"{old}.")
            parts = RESNET_PARTS if ".resnets." in new else ()
            for part, renamed in parts:
                if rest.startswith(f"{part}."):
                    rest = renamed + rest.removeprefix(part)
            return f"{new}.{rest}"
    raise ValueError(f"no place for {name}")


def vae_tensors(checkpoint: Tensors) -> Tensors:
    encoder = below(checkpoint, "first_stage_model.taesd_encoder.")
    decoder = below(checkpoint, "first_stage_model.taesd_decoder.")
    # There the decoder's first layer only clamps, here it is no layer.
    shifted = {re.sub(r"^\d+", lambda at: str(int(at[0]) - 1), name): tensor for name, tensor in decoder.items()}
    return {
        **{f"encoder.layers.{name}": tensor for name, tensor in encoder.items()},
        **{f"decoder.layers.{name}": tensor for name, tensor in shifted.items()},
    }


def text_tensors(checkpoint: Tensors, model: Any) -> Tensors:
    # Releases of transformers differ in whether the names begin with `text_model.`.
    prefix = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    found = below(checkpoint, "cond_stage_model.transformer.text_model.")
    return {f"{prefix}{name}": tensor for name, tensor in found.items()}


def write_model(model: Any, tensors: Tensors, folder: Path, file: str) -> None:
    """Only when every name and shape is the model's own, and none of its own is missing."""
    with_shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if "position_ids" not in name}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if with_shapes != given:
        raise ValueError(f"{folder.name}: {sorted(set(with_shapes.items()) ^ set(given.items()))[:6]}")
    folder.mkdir()
    model.save_config(folder) if hasattr(model, "save_config") else model.config.save_pretrained(folder)
    torch.save(tensors, folder / file)


def write(checkpoint: Tensors, comfyui: Path, folder: Path) -> None:
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderTiny()
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
    write_model(unet, unet_tensors(checkpoint), folder / "unet", "diffusion_pytorch_model.bin")
    write_model(vae, vae_tensors(checkpoint), folder / "vae", "diffusion_pytorch_model.bin")
    write_model(text, text_tensors(checkpoint, text), folder / "text_encoder", "pytorch_model.bin")
    DDIMScheduler(**SCHEDULER).save_config(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    for name in TOKENIZER:
        shutil.copyfile(comfyui / "comfy" / "sd1_tokenizer" / name, folder / "tokenizer" / name)


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print("usage: TRAINER_PYTHON tiny_diffusers.py CHECKPOINT COMFYUI_PATH OUTPUT_FOLDER", file=sys.stderr)
        return 2
    checkpoint, comfyui, folder = (Path(argument).resolve() for argument in arguments)
    folder.mkdir(parents=True)
    write(torch.load(checkpoint, weights_only=True)["state_dict"], comfyui, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
