"""The architectures ai-toolkit knows, and which one a `model` block means. Tables and look-ups; reads no files.

An unknown name is no error there: it trains the model as Stable Diffusion 1.x. Names: `get_model_class` and the
`arch =` of every model class at 27a03a9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from comfymodal.training.config import nearest


@dataclass(frozen=True, slots=True)
class Arch:
    """What a config for one architecture must agree with."""

    name: str
    is_flow: bool = True
    """Flow matching: `noise_scheduler` and `sampler` must be `flowmatch`; otherwise `ddpm`."""
    layout: Literal["any", "folder"] = "any"
    """`folder`: weights are a diffusers folder or a Hugging Face repository, never one .safetensors of ComfyUI's."""
    is_edit: bool = False
    """Learns pairs: every dataset needs a `control_path`."""
    is_video: bool = False
    is_audio: bool = False


def _archs() -> dict[str, Arch]:
    found = [Arch(name, is_flow=False) for name in ("sd1", "sd2", "sdxl", "ssd", "vega", "pixart", "pixart_sigma")]
    found += [Arch(name) for name in ("sd3", "chroma", "chroma_radiance", "zeta_chroma", "flux2", "flux2_klein_4b")]
    found += [Arch(name) for name in ("flux2_klein_9b", "qwen_image", "zimage", "zimage_l2p", "krea2", "ideogram4")]
    found += [Arch(name) for name in ("hidream_o1", "anima", "ernie_image", "nucleus_image", "prx_pixel", "mageflow")]
    found += [Arch(name) for name in ("boogu_image", "auraflow", "f-lite", "omnigen2", "cogview4")]
    found += [Arch(name, layout="folder") for name in ("flux", "flex2", "lumina2", "hidream")]
    found += [Arch(name, layout="folder", is_edit=True) for name in ("flux_kontext", "hidream_e1")]
    edits = ("qwen_image_edit", "qwen_image_edit_plus", "boogu_image_edit", "mageflow_edit")
    found += [Arch(name, is_edit=True) for name in edits]
    videos = ("wan21", "wan21_i2v", "wan22_5b", "wan22_14b", "wan22_14b_i2v")
    found += [Arch(name, layout="folder", is_video=True) for name in videos]
    found += [Arch(name, is_video=True) for name in ("ltx2", "ltx2.3", "ltx2.5", "minimax_h3", "minimax_h3_ref2va")]
    found += [Arch(name, is_audio=True) for name in ("ace_step_15", "ace_step_15_xl")]
    return {arch.name: arch for arch in found}


ARCHS: Mapping[str, Arch] = _archs()

_ALIASES = {"flex1": "flux", "sd15": "sd1"}
"""Names the trainer itself takes for others: the first it maps, the second falls through to the same class."""

_WRONG_NAMES = {
    **dict.fromkeys(("kontext", "flux1_kontext", "flux_1_kontext"), "flux_kontext"),
    **dict.fromkeys(("flux1", "flux_1", "flux_dev", "flux1_dev", "flux_schnell", "flux1_schnell"), "flux"),
    **dict.fromkeys(("wan22", "wan2_2", "wan22_t2v", "wan2_2_14b"), "wan22_14b"),
    **dict.fromkeys(("wan", "wan2_1", "wan21_t2v", "wan21_14b", "wan21_1b"), "wan21"),
    **dict.fromkeys(("sd", "sd1_5", "sd_1_5", "stable_diffusion"), "sd1"),
    **dict.fromkeys(("sd3_5", "sd35"), "sd3"),
    **dict.fromkeys(("xl", "sd_xl", "stable_diffusion_xl", "pony", "illustrious"), "sdxl"),
    **dict.fromkeys(("z_image", "z_image_turbo", "zimage_turbo"), "zimage"),
    **dict.fromkeys(("qwen", "qwenimage"), "qwen_image"),
    **dict.fromkeys(("flux2_klein", "klein"), "flux2_klein_4b"),
}
"""Names that seem right, written with underscores."""

_FLAGS = {
    **{"is_v2": "sd2", "is_v3": "sd3", "is_xl": "sdxl", "is_pixart": "pixart", "is_pixart_sigma": "pixart_sigma"},
    **{"is_auraflow": "auraflow", "is_flux": "flux", "is_lumina2": "lumina2", "is_vega": "vega", "is_ssd": "ssd"},
}
"""The older way to say it, in the order the trainer asks."""

# Most particular first. A path says less than a repository's name, yet enough to notice what cannot be meant.
_GUESSES = tuple(
    (re.compile(pattern, re.IGNORECASE), arch)
    for pattern, arch in (
        (r"kontext", "flux_kontext"),
        (r"flux[._-]?2.*klein.*9b", "flux2_klein_9b"),
        (r"flux[._-]?2.*klein", "flux2_klein_4b"),
        (r"flux[._-]?2(?![0-9])", "flux2"),
        (r"flex[._-]?2", "flex2"),
        (r"flux|flex[._-]?1", "flux"),
        (r"qwen[._-]?image[._-]?edit[._-]?(2509|2511|plus)", "qwen_image_edit_plus"),
        (r"qwen[._-]?image[._-]?edit", "qwen_image_edit"),
        (r"qwen[._-]?image", "qwen_image"),
        (r"z[._-]?image", "zimage"),
        (r"chroma", "chroma"),
        (r"wan[._-]?2[._-]?2.*5b", "wan22_5b"),
        (r"wan[._-]?2[._-]?2.*i2v", "wan22_14b_i2v"),
        (r"wan[._-]?2[._-]?2", "wan22_14b"),
        (r"wan[._-]?2[._-]?1.*i2v", "wan21_i2v"),
        (r"wan[._-]?2[._-]?1", "wan21"),
        (r"lumina", "lumina2"),
        (r"hidream[._-]?e1", "hidream_e1"),
        (r"hidream[._-]?o1", "hidream_o1"),
        (r"hidream", "hidream"),
        (r"omnigen2", "omnigen2"),
        (r"krea[._-]?2", "krea2"),
        (r"stable[._-]?diffusion[._-]?3|sd[._-]?3", "sd3"),
        (r"sdxl|stable[._-]?diffusion[._-]?xl|sd[._-]?xl|illustrious|noobai|pony", "sdxl"),
        (r"stable[._-]?diffusion[._-]?2|sd[._-]?2[._-]", "sd2"),
        (r"stable[._-]?diffusion[._-]?v?1|sd[._-]?v?1[._-]?[45]|v1[._-]?5", "sd1"),
    )
)

GATED = (
    "black-forest-labs/FLUX.1-dev",
    "black-forest-labs/FLUX.1-Kontext-dev",
    "black-forest-labs/FLUX.2-dev",
    "black-forest-labs/FLUX.2-klein-base-9B",
    "stabilityai/stable-diffusion-3-medium-diffusers",
    "stabilityai/stable-diffusion-3.5-large",
    "stabilityai/stable-diffusion-3.5-medium",
    "Lightricks/LTX-2.5",
    "ideogram-ai/ideogram-4-fp8",
    "krea/Krea-2-Raw",
    "krea/Krea-2-Turbo",
)
"""Repositories that want a token and a click on their licence, as of 2026-08."""

HOMES: Mapping[str, str] = {
    "flux": "black-forest-labs/FLUX.1-dev",
    "flux_kontext": "black-forest-labs/FLUX.1-Kontext-dev",
    "flux2": "black-forest-labs/FLUX.2-dev",
    "flux2_klein_4b": "black-forest-labs/FLUX.2-klein-base-4B",
    "flux2_klein_9b": "black-forest-labs/FLUX.2-klein-base-9B",
    "chroma": "lodestones/Chroma1-Base",
    "qwen_image": "Qwen/Qwen-Image",
    "qwen_image_edit_plus": "Qwen/Qwen-Image-Edit-2509",
    "zimage": "Tongyi-MAI/Z-Image",
    "wan21": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "wan22_5b": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    "wan22_14b": "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16",
    "wan22_14b_i2v": "ai-toolkit/Wan2.2-I2V-A14B-Diffusers-bf16",
    "lumina2": "Alpha-VLLM/Lumina-Image-2.0",
    "hidream": "HiDream-ai/HiDream-I1-Full",
    "sd3": "stabilityai/stable-diffusion-3.5-large",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Where the base model of an architecture is found when nothing else is said."""


def arch_of(model: Mapping[str, Any]) -> str | None:
    """Give the name of the architecture a `model` block asks for, None when it says none or one that is not known."""
    written = model.get("arch")
    if isinstance(written, str):
        name = canonical(written)
        return name if name in ARCHS else None
    return next((arch for flag, arch in _FLAGS.items() if model.get(flag) is True), None)


def canonical(written: str) -> str:
    """Take off a tag (`zimage:turbo`) and follow the trainer's own aliases."""
    name = written.partition(":")[0]
    return _ALIASES.get(name, name)


def near_arch(written: str) -> str | None:
    """Give the architecture that an unknown name probably means."""
    folded = re.sub(r"[-. ]", "_", written.partition(":")[0].strip().casefold())
    if folded in ARCHS or folded in _WRONG_NAMES:
        return _WRONG_NAMES.get(folded, folded)
    return guess_arch(written) or nearest(folded, ARCHS)


def guess_arch(name_or_path: str) -> str | None:
    """Give the architecture that a model's name speaks of, None when it speaks of none."""
    return next((arch for pattern, arch in _GUESSES if pattern.search(name_or_path)), None)


def is_gated(repository: str) -> bool:
    """Whether Hugging Face hands out this repository only to accounts that accepted its licence."""
    return repository.casefold() in {name.casefold() for name in GATED}


def is_repository(text: str) -> bool:
    """Whether the text has the shape of a Hugging Face id, `owner/name`: it may also be a folder of that name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None and not looks_like_file(text)


def looks_like_file(text: str) -> bool:
    return text.casefold().endswith((".safetensors", ".ckpt", ".pt", ".pth", ".gguf", ".bin"))
