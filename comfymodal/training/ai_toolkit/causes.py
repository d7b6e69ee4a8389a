"""What ai-toolkit's error messages mean, and what helps; pure.

The signatures were taken from its runs and its source (0.12.26). The line after `Error running job:` is often useless
(a gated repository "does not appear to have a file named config.json"); the exceptions of the traceback tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from comfymodal.training.failures import Cause, Failure


@dataclass(frozen=True, slots=True)
class _Signature:
    cause: Cause
    pattern: re.Pattern[str]
    message: str
    """`{found}` is what the pattern's group `found` matched."""
    hint: str | None


def _signature(cause: Cause, pattern: str, message: str, hint: str | None = None) -> _Signature:
    return _Signature(cause, re.compile(pattern), message, hint)


# The first that any line bears decides: what is particular comes before what it causes.
_SIGNATURES = (
    _signature(
        "disk_full",
        r"No space left on device|\[Errno 28\]|Disk quota exceeded",
        "the disk the trainer writes to is full",
        "ask for more disk, or lower save.max_step_saves_to_keep and cache latents of fewer resolutions",
    ),
    _signature(
        "gpu_memory",
        r"OOM during training step \d+ times in a row",
        "the GPU's memory does not suffice for the training: four steps in a row were skipped",
        "lower resolution or batch_size, set model.quantize and model.low_vram, or take a larger GPU (--gpu)",
    ),
    _signature(
        "gpu_memory",
        r"OutOfMemoryError|CUDA out of memory|hipErrorOutOfMemory|CUDA error: out of memory",
        "the GPU's memory does not suffice for loading, caching or sampling",
        "set model.quantize and model.low_vram, make the samples smaller, or take a larger GPU (--gpu)",
    ),
    _signature(
        "gpu_fault",
        r"device-side assert|unspecified launch failure|uncorrectable ECC|\bXid\b|CUDA error: (?:an illegal|misalig)|"
        r"NVML: Driver|no CUDA-capable device",
        "the GPU failed",
        "train again: it goes on from the last checkpoint, most likely on another GPU",
    ),
    _signature(
        "gated",
        r"GatedRepoError|Cannot access gated repo|Access to model (?P<found>\S+) is restricted|"
        r"trying to access a gated repo",
        "the base model is gated: Hugging Face does not give it out to this token",
        "accept the model's licence on its Hugging Face page with the account of the token in training.secret",
    ),
    _signature(
        "offline",
        r"OfflineModeIsEnabled|We couldn't connect to|ConnectionError|NameResolutionError|Max retries exceeded",
        "Hugging Face cannot be reached",
        "train again when the network is back, or unset HF_HUB_OFFLINE",
    ),
    _signature(
        "model_not_found",
        r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier",
        "the base model is not on Hugging Face, or it is private and there is no token for it",
        "check model.name_or_path; a private model needs a token in training.secret",
    ),
    _signature(
        "model_not_found",
        r"pretrained_model_name_or_path \"(?P<found>[^\"]+)\" is neither a valid local path nor a valid repo id",
        "the base model {found} is neither a folder there nor a repository on Hugging Face",
        "check model.name_or_path",
    ),
    _signature(
        "offline",
        r"LocalEntryNotFoundError",
        "the base model is not in the cache and Hugging Face cannot be reached",
        "train again when the network is back",
    ),
    _signature(
        "model_not_found",
        r"(?P<found>[\w.-]+/[\w.-]+) does not appear to have a file named",
        "the base model {found} is not in the layout this architecture needs, or cannot be downloaded",
        "check model.name_or_path and model.arch; a gated model needs a token in training.secret",
    ),
    _signature(
        "no_modules",
        r"There are not any lora modules in this network",
        "the network was built with 0 modules: nothing would be trained",
        "check network.network_kwargs.only_if_contains and ignore_if_contains against model.arch",
    ),
    _signature(
        "dataset_empty",
        r"no images found in (?P<found>.+)",
        "no images were found in {found}",
        "check the dataset: .jpg, .jpeg, .png and .webp count, hidden files do not",
    ),
    _signature(
        "bad_checkpoint",
        r"SafetensorError|incomplete metadata, file not fully covered|Unsupported operand",
        "a file of weights is damaged: the checkpoint to go on from, or the base model",
        "train again: the checkpoint before is taken; if that fails as well, download the base model again",
    ),
    _signature(
        "dependencies",
        r"(?P<found>ModuleNotFoundError: .+|ImportError: .+|Diffusers is out of date|"
        r"Failed to import the diffusion_models module)",
        "the trainer's Python lacks something it needs ({found})",
        "deploy again, or install ai-toolkit's requirements where AI_TOOLKIT_PYTHON is",
    ),
    _signature(
        "config",
        r"(?P<found>config file must have.*|config file is invalid.*|Environment variable \w+ not set|"
        r"name_or_path must be specified|Unknown optimizer type .+|"
        r"expected str, bytes or os.PathLike object, not NoneType)",
        "ai-toolkit refuses the config: {found}",
        "check it without starting anything: comfymodal train CONFIG --dry-run",
    ),
    _signature(
        "file_missing",
        r"No such file or directory: (?P<found>'.+?'|\".+?\")",
        "{found} is not there",
        "check the paths of the config",
    ),
)

_WARNINGS = (
    (
        re.compile(r"^Failed to load optimizer state from (?P<found>.+)"),
        "optimizer_lost",
        "the optimizer's state could not be loaded: it starts afresh, and the loss will jump",
        None,
    ),
    (
        re.compile(r"^Error loading image, skipping and loading a different one: ?(?P<found>.*)"),
        "image_replaced",
        "an image could not be read while training and was replaced by another: {found}",
        "take it out of the dataset, or repair it",
    ),
    (
        re.compile(r"^Failed to import the diffusion_models module"),
        "models_missing",
        "the trainer's newer architectures could not be imported",
        "deploy again: its packages do not fit together",
    ),
)


def explain(said: str, exceptions: Sequence[str] = ()) -> Failure:
    """What the line after `Error running job:` and the last lines of tracebacks mean."""
    lines = [said, *exceptions]
    for signature in _SIGNATURES:
        for line in lines:
            if found := signature.pattern.search(line):
                return Failure(signature.cause, _filled(signature.message, found), signature.hint, said)
    return Failure("unknown", f"ai-toolkit failed: {said}", None, said)


def warning_in(line: str) -> tuple[str, str, str | None] | None:
    """Code, message and hint of a line that tells of something worth knowing; None for all others."""
    for pattern, code, message, hint in _WARNINGS:
        if found := pattern.match(line):
            return code, _filled(message, found), hint
    return None


def _filled(message: str, match: re.Match[str]) -> str:
    return message.replace("{found}", (match.groupdict().get("found") or "").strip())
