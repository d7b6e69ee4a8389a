"""What a training needs: memory of the GPU and beside it, disk, time. Every figure says how sure it is.

Only a few were ever measured by others and published; the rest is arithmetic on the models' sizes. A measured step of
an earlier run beats all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Certainty = Literal["measured", "documented", "estimate"]
"""`measured` by a run of ours, `documented` by the trainer's makers or users for these very settings, else arithmetic
that may be off by a third (memory) or by half and double (time)."""

Verdict = Literal["fits", "tight", "too_small"]


@dataclass(frozen=True, slots=True)
class Documented:
    """A GPU on which somebody said it works, and with what. Conditions are upper bounds; None means any."""

    gb: float
    source: str
    bits: int = 8
    text_loaded: bool = True
    frames: int = 1
    resolution: int = 1024


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of one architecture's published weights.

    `parameters` (10^9) of what denoises, of all experts; `text` (10^9) of the text encoders. `edge`: pixels of a
    token's edge. `activation_gb` for one picture of 1024 x 1024 with gradient checkpointing. `forward_tflop` for such
    a picture where counting tokens says nothing (U-Nets). `lora_per_rank` (10^6 parameters).
    """

    parameters: float
    text: float
    activation_gb: float
    edge: int = 16
    experts: int = 1
    text_tokens: int = 512
    frame_group: int = 4
    """Frames of a video that share a token."""
    pictures: int = 1
    """How many pass through the model together: an edit's source beside what is learned."""
    forward_tflop: float | None = None
    lora_per_rank: float | None = None
    documented: tuple[Documented, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """The settings of a training that decide what it needs."""

    arch: str
    resolution: int = 1024
    """The highest of all datasets."""
    mean_area: float | None = None
    """Pixels of an average picture over all buckets; None: `resolution` squared."""
    batch_size: int = 1
    frames: int = 1
    bits: int = 16
    """Of a weight of the model; below 16 it is quantized."""
    text_bits: int = 16
    keeps_text_encoder: bool = True
    """False when its outputs are cached, or it is unloaded."""
    rank: int = 16
    is_full_finetune: bool = False
    has_checkpointing: bool = True
    has_small_optimizer: bool = True
    """States of 8 bits."""
    low_vram: bool = False
    model_name: str = ""

    @property
    def model(self) -> Model | None:
        """None for an architecture whose sizes are not known here."""
        if self.arch == "wan21" and "1.3b" in self.model_name.lower():
            return _WAN_SMALL
        return MODELS.get(self.arch)


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """GB (10^9 bytes) of GPU memory. `parts` are the arithmetic, also where `gb` is documented."""

    gb: float
    certainty: Certainty
    parts: Mapping[str, float]
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parts": {name: round(gb, 1) for name, gb in self.parts.items()}}


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """GB. `download` stays on the volume that caches models; `scratch` is local to the container; `volume` is what is
    kept of the run.
    """

    download: float
    scratch: float
    volume: float
    certainty: Certainty = "estimate"


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one step; with a certainty below measured it lies somewhere between `low` and `high`."""

    seconds: float
    low: float
    high: float
    certainty: Certainty


@dataclass(frozen=True, slots=True)
class Work:
    """What a whole run does. `samples`: pictures made on the way, in all; `items` are encoded before the first step."""

    steps: int
    samples: int = 0
    sample_steps: int = 20
    items: int = 0


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds of a whole run on a paid GPU, by part."""

    seconds: float
    low: float
    high: float
    certainty: Certainty
    parts: Mapping[str, float] = field(default_factory=dict)


def memory_need(load: Load) -> MemoryNeed | None:
    """GPU memory; None for an architecture of unknown size."""
    if (model := load.model) is None:
        return None
    parts = _memory_parts(load, model)
    for each in model.documented if not load.is_full_finetune else ():
        if _is_covered(load, each):
            return MemoryNeed(each.gb, "documented", parts, each.source)
    return MemoryNeed(sum(parts.values()), "estimate", parts)


def judge(need: MemoryNeed, vram_gb: float) -> Verdict:
    """Whether a GPU of so many GB holds it. An estimate wants a reserve, a documented figure is the card's own size."""
    if need.certainty != "estimate":
        return "fits" if vram_gb >= need.gb else "tight" if vram_gb >= 0.9 * need.gb else "too_small"
    return "fits" if vram_gb >= 1.15 * need.gb else "tight" if vram_gb >= 0.9 * need.gb else "too_small"


def cannot_train_on(gpu: str) -> str | None:
    """Why a GPU is of no use whatever its memory; None when nothing speaks against it."""
    return "it computes no bfloat16, which the trainer uses" if gpu.upper().startswith("T4") else None


def host_memory_gb(load: Load) -> int | None:
    """Main memory to ask for: weights pass through it before they are quantized, and a lack of it kills silently."""
    if (model := load.model) is None:
        return None
    needed = 1.5 * 2 * max(model.parameters, model.text) + 4
    return next((size for size in (16, 32, 64, 128) if needed <= size), 256)


def disk_need(load: Load, dataset_bytes: int, items: int, saves: int, samples: int = 0) -> DiskNeed | None:
    """Disk space. `items`: pictures times resolutions; `saves`: checkpoints that are kept."""
    if (model := load.model) is None:
        return None
    weights = _trained(load, model)
    lora = 2 * weights
    optimizer = (2 if load.has_small_optimizer else 8) * weights
    cached = items * 1e-3 * load.frames * (load.resolution / 1024) ** 2
    pictures = samples * 1e-3
    scratch = 2 * dataset_bytes / 1e9 + cached + (saves + 2) * lora + optimizer + pictures
    return DiskNeed(2 * (model.parameters + model.text) + 0.5, scratch, (saves + 1) * lora + 2 * optimizer + pictures)


def step_time(load: Load, gpu: str, measured_s: float | None = None) -> StepTime | None:
    """Seconds a step takes. `gpu` by Modal's name; `measured_s` of an earlier run with the same settings on it.

    The arithmetic: two operations a weight and token forward, twice that again for the second pass of checkpointing
    and the gradients; the weights themselves get none. The share of a GPU's peak that is reached comes from two
    reports: FLUX at 512 to 1024 pixels on an A40, 6.5 s (ai-toolkit issue 145); SDXL on a 3090, 1.2 s (kohya_ss 1730).
    """
    if measured_s is not None:
        return StepTime(measured_s, 0.9 * measured_s, 1.1 * measured_s, "measured")
    tflops = _SUSTAINED_TFLOPS.get(gpu.partition(":")[0].rstrip("!+").upper())
    if (model := load.model) is None or tflops is None:
        return None
    passes = 3 if load.has_checkpointing else 2
    seconds = passes * _forward_tflop(load, model) / tflops + 0.1
    return StepTime(seconds, seconds / 2, seconds * 2, "estimate")


def run_time(load: Load, step: StepTime, work: Work, *, is_cached: bool = False) -> RunTime | None:
    """Seconds from a container's start to the last file. `is_cached`: the model's files are on the volume already."""
    if (model := load.model) is None:
        return None
    gb = 2 * (model.parameters + model.text)
    # A forward pass is a third of a step, and guidance takes two of them a sample step.
    each = step.seconds / load.batch_size * 2 / 3 * work.sample_steps + 2
    parts = {
        "start": 60 + 2 * gb + (0 if is_cached else 5 * gb) + (40 if load.bits < 16 else 0),
        "caching": 0.2 * work.items,
        "steps": step.seconds * work.steps,
        "samples": each * work.samples,
    }
    seconds = sum(parts.values())
    other = seconds - parts["steps"]
    low, high = other / 2 + step.low * work.steps, other * 2 + step.high * work.steps
    return RunTime(seconds, low, high, step.certainty, parts)


def risk_s(step: StepTime, save_every: int) -> float:
    """The most work that a lost container costs: seconds between two checkpoints."""
    return step.seconds * save_every


def _memory_parts(load: Load, model: Model) -> dict[str, float]:
    trained = _trained(load, model)
    # Weights and gradients of 32 bits beside the optimizer's two states; a full fine-tune has them in 16.
    each = (2 if load.is_full_finetune else 8) + (2 if load.has_small_optimizer else 8)
    on_gpu = model.parameters / model.experts if load.low_vram and model.experts > 1 else model.parameters
    shown = (load.resolution / 1024) ** 2 * load.batch_size * model.pictures * _latent_frames(load, model)
    parts = {
        "model": on_gpu * (16 if load.is_full_finetune else load.bits) / 8,
        "text encoder": model.text * load.text_bits / 8 if load.keeps_text_encoder else 0.0,
        "trained weights": trained * each,
        "activations": model.activation_gb * shown * (1 if load.has_checkpointing else 6),
        "VAE": 0.5,
    }
    # What CUDA takes for itself, and what lies unused between blocks.
    return {**parts, "overhead": 1.5 + 0.05 * sum(parts.values())}


def _trained(load: Load, model: Model) -> float:
    """10^9 parameters that learn."""
    if load.is_full_finetune:
        return model.parameters
    per_rank = model.lora_per_rank or model.parameters * 1000 / 2200
    return load.rank * per_rank / 1000


def _is_covered(load: Load, each: Documented) -> bool:
    return (
        load.bits <= each.bits
        and (each.text_loaded or not load.keeps_text_encoder)
        and (load.text_bits <= max(8, each.bits) or not load.keeps_text_encoder)
        and load.frames <= each.frames
        and load.resolution <= each.resolution
        and load.batch_size == 1
        and load.rank <= 32
        and load.has_checkpointing
        and load.has_small_optimizer
    )


def _latent_frames(load: Load, model: Model) -> float:
    return 1 + (load.frames - 1) / model.frame_group


def _forward_tflop(load: Load, model: Model) -> float:
    area = (load.mean_area or load.resolution**2) * load.batch_size * model.pictures * _latent_frames(load, model)
    if model.forward_tflop is not None:
        return model.forward_tflop * area / 1024**2
    tokens = area / model.edge**2 + model.text_tokens * load.batch_size
    # Of several experts one works at a time.
    return 2 * model.parameters / model.experts * tokens / 1000


# Peak of dense bfloat16 by the makers' data sheets, times the share that two reports show (0.22); less where a batch of
# one leaves a fast card waiting.
_SUSTAINED_TFLOPS = {
    "L4": 0.22 * 121 * 0.7,
    "A10": 0.22 * 70,
    "L40S": 0.22 * 362 * 0.8,
    "A100-40GB": 0.22 * 312,
    "A100-80GB": 0.22 * 312,
    "A100": 0.22 * 312,
    "RTX-PRO-6000": 0.22 * 500 * 0.8,
    "H100": 0.17 * 989,
    "H200": 0.17 * 989,
    "B200": 0.12 * 2250,
    "B300": 0.12 * 2250,
}

_EXAMPLE = "ai-toolkit's example config for 24 GB"
_ON_24 = (Documented(24, _EXAMPLE),)
_WAN_SMALL = Model(1.3, 5.7, 0.9, text_tokens=512, documented=_ON_24)

MODELS: Mapping[str, Model] = {
    "sd1": Model(0.86, 0.12, 4.0, forward_tflop=3.2, lora_per_rank=0.6),
    "sd2": Model(0.87, 0.35, 4.0, forward_tflop=3.2, lora_per_rank=0.6),
    "sdxl": Model(2.57, 0.82, 4.0, forward_tflop=6.0, lora_per_rank=3.6),
    "ssd": Model(1.3, 0.82, 3.0, forward_tflop=4.0, lora_per_rank=2.0),
    "vega": Model(0.75, 0.82, 2.5, forward_tflop=3.0, lora_per_rank=1.2),
    "sd3": Model(8.1, 5.6, 1.6, documented=_ON_24),
    "pixart": Model(0.6, 4.8, 0.7, text_tokens=120),
    "pixart_sigma": Model(0.6, 4.8, 0.7, text_tokens=300),
    "auraflow": Model(6.8, 1.2, 1.9, text_tokens=256),
    "lumina2": Model(2.6, 2.6, 1.3, documented=(Documented(20, "ai-toolkit's example config", bits=16),)),
    "flux": Model(11.9, 4.9, 2.7, documented=_ON_24),
    "flex2": Model(8.2, 4.9, 2.2, documented=_ON_24),
    # Its own example warns that 1024 may not fit into 24 GB.
    "flux_kontext": Model(11.9, 4.9, 2.7, pictures=2, documented=(Documented(24, _EXAMPLE, resolution=768),)),
    "flux2": Model(32.0, 24.0, 5.0),
    "flux2_klein_4b": Model(4.0, 4.0, 1.8),
    "flux2_klein_9b": Model(9.0, 8.2, 2.4),
    "chroma": Model(8.9, 4.8, 2.7, documented=_ON_24),
    "hidream": Model(17.0, 13.6, 2.5, documented=(Documented(35.2, "ai-toolkit's example config for 48 GB"),)),
    "hidream_e1": Model(17.0, 13.6, 2.5, pictures=2),
    "omnigen2": Model(4.0, 3.8, 1.5, documented=_ON_24),
    "qwen_image": Model(20.4, 8.3, 3.0, documented=(Documented(24, _EXAMPLE, bits=3, text_loaded=False),)),
    "qwen_image_edit": Model(
        20.4, 8.3, 3.0, pictures=2, documented=(Documented(32, "ai-toolkit's example config for 32 GB", bits=3),)
    ),
    "qwen_image_edit_plus": Model(
        20.4, 8.3, 3.0, pictures=2, documented=(Documented(32, "ai-toolkit's example config for 32 GB", bits=3),)
    ),
    "zimage": Model(6.2, 4.0, 2.2),
    "cogview4": Model(6.4, 9.4, 2.3),
    "wan21": Model(14.3, 5.7, 3.4, documented=(Documented(24, _EXAMPLE, text_loaded=False),)),
    "wan21_i2v": Model(16.4, 5.7, 3.4),
    "wan22_14b": Model(
        28.6, 5.7, 3.4, experts=2, documented=(Documented(28, "ai-toolkit issue 787", text_loaded=False),)
    ),
    "wan22_14b_i2v": Model(28.6, 5.7, 3.4, experts=2),
    "wan22_5b": Model(5.0, 5.7, 0.45, edge=32),
    "ltx2": Model(19.0, 12.0, 0.75, edge=32, frame_group=8),
    "ltx2.3": Model(22.0, 12.0, 0.75, edge=32, frame_group=8),
}
"""Sizes as published with the weights. What is not here was not looked up: no estimate is better than a made-up one."""
