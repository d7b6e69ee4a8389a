"""What is known to train well for each base model: the values a short form leaves out. Tables only.

Figures are the defaults of ai-toolkit's own page and example configs (27a03a9); ranks and steps are where its examples
start, not the best for every subject. No trainer's keys: the engine's room turns a recipe into its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """One base model and how a LoRA of it is trained on pictures."""

    name: str
    """What `model:` of a short form says."""
    title: str
    arch: str
    weights: str
    """Hugging Face id."""
    gpu: str
    """Comfortable for rank 16-32 at batch 1; by parameters and quantization, not measured."""
    is_flow: bool = True
    timesteps: str = "sigmoid"
    """How noise levels are weighted; nothing where the model is no flow model."""
    quantizes: bool = True
    quantizes_text_encoder: bool = True
    low_vram: bool = False
    adapter: str | None = None
    """A LoRA that undoes distillation while training; without it a turbo model loses its speed."""
    rank: int = 16
    lr: float = 1e-4
    steps: int = 2000
    resolutions: tuple[int, ...] = (512, 768, 1024)
    """Edges; a model that learned at several sizes keeps them apart better when it sees several."""
    sample_size: int = 1024
    guidance: float = 4.0
    sample_steps: int = 25
    bypasses_guidance_embedding: bool = False
    """A guidance-distilled model is trained past its guidance, as ai-toolkit's page does for its kind."""


_ALL = (
    Recipe("flux", "FLUX.1 [dev]", "flux", "black-forest-labs/FLUX.1-dev", "L40S", sample_steps=20),
    Recipe(
        "flux-schnell",
        "FLUX.1 [schnell]",
        "flux",
        "black-forest-labs/FLUX.1-schnell",
        "L40S",
        adapter="ostris/FLUX.1-schnell-training-adapter",
        guidance=1.0,
        sample_steps=4,
    ),
    Recipe("flex", "Flex.1", "flux", "ostris/Flex.1-alpha", "L40S", bypasses_guidance_embedding=True),
    Recipe(
        "flux2",
        "FLUX.2 [dev]",
        "flux2",
        "black-forest-labs/FLUX.2-dev",
        "H100",
        timesteps="weighted",
        low_vram=True,
    ),
    Recipe(
        "flux2-klein-4b",
        "FLUX.2 [klein] 4B",
        "flux2_klein_4b",
        "black-forest-labs/FLUX.2-klein-base-4B",
        "L40S",
        timesteps="weighted",
        low_vram=True,
    ),
    Recipe("chroma", "Chroma", "chroma", "lodestones/Chroma1-Base", "L40S"),
    Recipe(
        "qwen-image",
        "Qwen-Image",
        "qwen_image",
        "Qwen/Qwen-Image",
        "A100-80GB",
        timesteps="weighted",
        low_vram=True,
        guidance=3.0,
    ),
    Recipe("zimage", "Z-Image", "zimage", "Tongyi-MAI/Z-Image", "L40S", timesteps="weighted", sample_steps=30),
    Recipe(
        "zimage-turbo",
        "Z-Image Turbo",
        "zimage",
        "Tongyi-MAI/Z-Image-Turbo",
        "L40S",
        timesteps="weighted",
        adapter="ostris/zimage_turbo_training_adapter/zimage_turbo_training_adapter_v2.safetensors",
        guidance=1.0,
        sample_steps=9,
    ),
    Recipe(
        "hidream",
        "HiDream I1",
        "hidream",
        "HiDream-ai/HiDream-I1-Full",
        "A100-80GB",
        timesteps="shift",
        rank=32,
        lr=2e-4,
        steps=3000,
    ),
    Recipe(
        "lumina2",
        "Lumina Image 2",
        "lumina2",
        "Alpha-VLLM/Lumina-Image-2.0",
        "L40S",
        timesteps="lumina2_shift",
        quantizes=False,
    ),
    Recipe(
        "wan21",
        "Wan 2.1 14B, trained on pictures",
        "wan21",
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "A100-80GB",
        low_vram=True,
        rank=32,
        resolutions=(632,),
        sample_size=640,
        guidance=5.0,
        sample_steps=30,
    ),
    Recipe(
        "wan21-1b",
        "Wan 2.1 1.3B, trained on pictures",
        "wan21",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "L4",
        quantizes=False,
        rank=32,
        resolutions=(632,),
        sample_size=640,
        guidance=5.0,
        sample_steps=30,
    ),
    Recipe(
        "wan22",
        "Wan 2.2 14B, trained on pictures",
        "wan22_14b",
        "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16",
        "A100-80GB",
        timesteps="linear",
        low_vram=True,
        resolutions=(512, 768),
        sample_size=768,
    ),
    Recipe(
        "sd35-large",
        "Stable Diffusion 3.5 large",
        "sd3",
        "stabilityai/stable-diffusion-3.5-large",
        "L40S",
        timesteps="linear",
        resolutions=(1024,),
    ),
    Recipe(
        "sdxl",
        "Stable Diffusion XL",
        "sdxl",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "L40S",
        is_flow=False,
        quantizes=False,
        quantizes_text_encoder=False,
        rank=32,
        resolutions=(1024,),
        guidance=6.0,
    ),
    Recipe(
        "sd15",
        "Stable Diffusion 1.5",
        "sd1",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "L4",
        is_flow=False,
        quantizes=False,
        quantizes_text_encoder=False,
        resolutions=(512,),
        sample_size=512,
        guidance=6.0,
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_of(arch: str, weights: str = "") -> Recipe | None:
    """Give the recipe for an architecture: the one of these very weights, else the first; None when there is none."""
    of_arch = [recipe for recipe in _ALL if recipe.arch == arch]
    return next((recipe for recipe in of_arch if recipe.weights == weights), of_arch[0] if of_arch else None)
