"""How ai-toolkit reads a dataset: which files it takes, which bucket a picture goes to, what its config says of it.

Read in ai-toolkit 27a03a9: `toolkit/data_loader.py`, `toolkit/buckets.py`, `toolkit/dataloader_mixins.py`, and
`get_bucket_divisibility` of every model class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from comfymodal.training.buckets import Sharing, Size
from comfymodal.training.config import TrainingConfig
from comfymodal.training.dataset import DatasetSettings, Rules
from comfymodal.training.needs import Load

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".webm", ".mkv", ".wmv", ".m4v", ".flv")
SOUNDS = (".mp3", ".wav", ".flac", ".aac", ".ogg", ".m4a")

_MADE_HERE = frozenset({"_controls"})
"""Where it puts controls of its own; what lies in folders below is taken all the same."""
_PLACEHOLDERS = ("[trigger]", "[name]")

DIVISIBILITY = {
    **dict.fromkeys(("cogview4",), 8),
    **dict.fromkeys(("sd1", "sd2", "sdxl", "ssd", "vega", "pixart", "pixart_sigma", "auraflow", "lumina2"), 16),
    **dict.fromkeys(("flux_kontext", "flux2", "flux2_klein_4b", "flux2_klein_9b", "flex2", "f-lite", "omnigen2"), 16),
    **dict.fromkeys(("hidream", "hidream_e1", "zimage", "zimage_l2p", "wan21", "wan21_i2v", "ideogram4", "krea2"), 16),
    **dict.fromkeys(("wan22_14b", "wan22_14b_i2v", "prx_pixel", "mageflow", "mageflow_edit"), 16),
    **dict.fromkeys(("boogu_image", "boogu_image_edit"), 16),
    **dict.fromkeys(("flux", "sd3", "chroma", "chroma_radiance", "zeta_chroma", "hidream_o1", "anima"), 32),
    **dict.fromkeys(("qwen_image", "qwen_image_edit", "qwen_image_edit_plus", "ernie_image", "nucleus_image"), 32),
    **dict.fromkeys(("wan22_5b", "ltx2", "ltx2.3", "ltx2.5", "minimax_h3", "minimax_h3_ref2va"), 32),
}
"""Pixels by architecture. Of the older ones it is the VAE's, as their published weights have it."""

_CAPTION_TOKENS = {
    **dict.fromkeys(("sd1", "sd2", "sdxl", "ssd", "vega"), 77),
    **{"pixart": 120, "pixart_sigma": 300, "auraflow": 256, "lumina2": 256},
    **dict.fromkeys(("flux", "flux_kontext", "wan21", "wan21_i2v"), 512),
    **dict.fromkeys(("ltx2", "ltx2.3", "ltx2.5", "nucleus_image"), 1024),
}
_SOUND_ARCHS = ("ace_step_15", "ace_step_15_xl")


def rules_for(arch: str) -> Rules:
    """What is taken for one architecture, by its exact name. Raises KeyError for one that is not known."""
    if arch in _SOUND_ARCHS:
        return Rules((), SOUNDS, _MADE_HERE, partial(fit_bucket, divisibility=1), 1, _PLACEHOLDERS)
    pixels = DIVISIBILITY[arch]
    fit = partial(fit_bucket, divisibility=pixels)
    return Rules(PICTURES, VIDEOS, _MADE_HERE, fit, pixels, _PLACEHOLDERS, _CAPTION_TOKENS.get(arch))


def fit_bucket(width: int, height: int, resolution: int, divisibility: int) -> Size:
    """The bucket of a picture: as many pixels as it has, at most `resolution` squared, in its own proportions.

    Of the four ways to round both edges to whole blocks, the one whose area comes nearest and not above the limit;
    the first of two equals. Divisions and roots are in the trainer's order: the last bit decides on an edge.
    """
    most = resolution * resolution
    target = min(width * height, most)
    factor = (target / (width * height)) ** 0.5
    wide, high = (width * factor) / divisibility, (height * factor) / divisibility
    rounded = [
        (across(wide) * divisibility, down(high) * divisibility)
        for across in (math.floor, math.ceil)
        for down in (math.floor, math.ceil)
    ]
    allowed = [size for size in rounded if min(size) > 0 and size[0] * size[1] <= most]
    if not allowed:
        least = divisibility
        return max(least, math.floor(wide) * divisibility), max(least, math.floor(high) * divisibility)
    return min(allowed, key=lambda size: abs(size[0] * size[1] - target))


def settings_of(
    dataset: Mapping[str, Any], folder: Path, process: Mapping[str, Any], *, needs_controls: bool = False
) -> DatasetSettings:
    """Read one entry of `datasets` of a checked config. `folder` is where its files lie on this machine.

    Relative paths of masks and controls are the caller's to resolve first.
    """
    frames = int(dataset.get("num_frames") or 1)
    return DatasetSettings(
        folder=folder,
        resolutions=tuple(int(each) for each in _listed(dataset.get("resolution", 512))),
        caption_suffix=_suffix(dataset),
        default_caption=dataset.get("default_caption"),
        trigger=dataset.get("trigger_word") or process.get("trigger_word") or None,
        sharing=_sharing(dataset, process),
        scale=float(dataset.get("scale", 1.0)),
        is_square=bool(dataset.get("square_crop")),
        is_regular=bool(dataset.get("is_reg")),
        takes_media=frames > 1 or bool(dataset.get("auto_frame_count")),
        alpha_is_mask=bool(dataset.get("alpha_mask")),
        masks=Path(dataset["mask_path"]) if dataset.get("mask_path") else None,
        controls=tuple(Path(path) for path in _controls(dataset)),
        needs_controls=needs_controls,
    )


def load_of(config: TrainingConfig, mean_area: float | None = None) -> Load:
    """What a checked config asks of a GPU. `mean_area`: pixels of an average picture, where the buckets are known."""
    bits = bits_of(config.quantization) if config.is_quantized else 16
    return Load(
        arch=config.arch,
        resolution=max(config.resolutions, default=512),
        mean_area=mean_area,
        batch_size=max((dataset.batch_size for dataset in config.datasets), default=config.batch_size),
        frames=max((dataset.num_frames for dataset in config.datasets), default=1),
        bits=bits,
        text_bits=max(8, bits) if config.is_text_encoder_quantized else 16,
        keeps_text_encoder=config.trains_text_encoder or not config.caches_text_embeddings,
        rank=config.rank or 16,
        is_full_finetune=config.is_full_finetune,
        has_checkpointing=config.gradient_checkpointing,
        has_small_optimizer=_is_small(config.optimizer),
        low_vram=config.low_vram,
        model_name=config.base_model,
    )


def bits_of(qtype: str | None) -> int:
    """Bits of a weight by the name of a quantization: `qfloat8`, `float8`, `uint4`, `uint3|<path of an adapter>`."""
    name = (qtype or "qfloat8").partition("|")[0]
    digits = re.findall(r"\d+", name)
    return min(16, int(digits[0])) if digits else 16


def _is_small(optimizer: str) -> bool:
    """Whether its states are of 8 bits, or nearly none (Adafactor, Automagic)."""
    name = optimizer.lower()
    return "8" in name or name.startswith(("adafactor", "automagic"))


def _sharing(dataset: Mapping[str, Any], process: Mapping[str, Any]) -> Sharing:
    train = process.get("train") or {}
    repeats = max(1, int(dataset.get("num_repeats") or 1))
    flips = 2 ** sum(bool(dataset.get(axis)) for axis in ("flip_x", "flip_y"))
    batch_size = dataset.get("batch_size") or train.get("batch_size") or 1
    return Sharing(repeats * flips, int(batch_size), bool(dataset.get("buckets", True)))


def _suffix(dataset: Mapping[str, Any]) -> str:
    """`caption_type` is its older name, and is taken as it is: a missing dot is added only to the new one."""
    if older := dataset.get("caption_type"):
        return str(older)
    suffix = str(dataset.get("caption_ext", ".txt"))
    return suffix if not suffix or suffix.startswith(".") else f".{suffix}"


def _controls(dataset: Mapping[str, Any]) -> Sequence[str]:
    numbered = [path for key in ("control_path_1", "control_path_2", "control_path_3") if (path := dataset.get(key))]
    return numbered or [str(path) for path in _listed(dataset.get("control_path") or [])]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
