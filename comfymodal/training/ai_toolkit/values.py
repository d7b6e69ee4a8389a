"""What a checked ai-toolkit config says, in the words any trainer has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfymodal.training.ai_toolkit.archs import arch_of
from comfymodal.training.ai_toolkit.subject import Subject, subject_of
from comfymodal.training.config import (
    Config,
    SamplePrompt,
    TrainingConfig,
    TrainingDataset,
    as_list,
    as_mapping,
)

_DEFAULT_EDGE = 512
_EXTRA_MODELS = (
    *("assistant_lora_path", "inference_lora_path", "lora_path", "te_name_or_path", "extras_name_or_path", "vae_path"),
    *("unet_path", "refiner_name_or_path", "unconditional_lora_path", "accuracy_recovery_adapter"),
)


def read_values(config: Config) -> TrainingConfig:
    """Read a config that `check_config` found no errors in; of others the result means nothing."""
    subject = subject_of(config, lambda _: "")
    network, model = as_mapping(subject.process.get("network")), subject.model
    rank = network.get("rank", network.get("linear", 4)) if network else None
    sample_every = subject.whole("sample.sample_every")
    prompts = _prompts(subject)
    seed = subject.process.get("training_seed", config["config"].get("training_seed"))
    quantize = model.get("quantize", False)
    return TrainingConfig(
        engine="ai-toolkit",
        name=str(config["config"].get("name", "")),
        arch=arch_of(model) or "sd1",
        base_model=str(model.get("name_or_path", "")),
        extra_models=_extra_models(model),
        is_full_finetune=not network and not any(subject.process.get(key) for key in ("adapter", "embedding")),
        rank=rank,
        alpha=network.get("linear_alpha", network.get("alpha", 1.0)) if network else None,
        steps=subject.whole("train.steps") or 0,
        save_every=subject.whole("save.save_every") or 0,
        keep_saves=subject.whole("save.max_step_saves_to_keep") or 0,
        batch_size=subject.whole("train.batch_size") or 1,
        gradient_accumulation=subject.whole("train.gradient_accumulation") or 1,
        lr=subject.number("train.lr") or 0.0,
        optimizer=subject.text("train.optimizer") or "",
        dtype=subject.text("train.dtype") or "",
        is_quantized=quantize is True,
        is_text_encoder_quantized=model.get("quantize_te", quantize) is True,
        quantization=str(subject.value("model.qtype")).partition("|")[0] if quantize else None,
        low_vram=model.get("low_vram") is True,
        gradient_checkpointing=subject.value("train.gradient_checkpointing") is True,
        trains_text_encoder=subject.value("train.train_text_encoder") is True,
        caches_text_embeddings=subject.value("train.cache_text_embeddings") is True,
        uses_ema=subject.value("train.ema_config.use_ema") is True,
        trigger_word=subject.text("trigger_word"),
        seed=seed if isinstance(seed, int) else None,
        datasets=tuple(_dataset(subject, dataset) for _, dataset in subject.datasets),
        sample_every=sample_every if prompts else None,
        sample_steps=subject.whole("sample.sample_steps") or 0,
        sample_prompts=prompts,
        samples_at_start=bool(prompts) and subject.value("train.skip_first_sample") is not True,
    )


def _extra_models(model: Mapping[str, Any]) -> tuple[str, ...]:
    found = [model.get(key) for key in _EXTRA_MODELS]
    found += as_mapping(model.get("model_paths")).values()
    found += [as_mapping(model.get("model_kwargs")).get("llama_model_path"), str(model.get("qtype")).partition("|")[2]]
    base = model.get("name_or_path")
    return tuple(dict.fromkeys(text for text in found if isinstance(text, str) and text and text != base))


def _prompts(subject: Subject) -> tuple[SamplePrompt, ...]:
    if subject.value("train.disable_sampling") is True:
        return ()
    sample = as_mapping(subject.process.get("sample"))
    width, height = subject.whole("sample.width") or _DEFAULT_EDGE, subject.whole("sample.height") or _DEFAULT_EDGE
    # As there: `samples` wins where both are given.
    items = sample["samples"] if "samples" in sample else [{"prompt": text} for text in as_list(sample.get("prompts"))]
    found = [as_mapping(item) for item in as_list(items)]
    return tuple(
        SamplePrompt(str(item["prompt"]), item.get("width", width), item.get("height", height), item.get("seed"))
        for item in found
        if item.get("prompt") is not None
    )


def _dataset(subject: Subject, dataset: Mapping[str, Any]) -> TrainingDataset:
    resolution = dataset.get("resolution", _DEFAULT_EDGE)
    extension = str(dataset.get("caption_type") or dataset.get("caption_ext", ".txt"))
    beside = ("control_path", "control_path_1", "control_path_2", "control_path_3", "mask_path", "inpaint_path")
    folders = [folder for key in beside for folder in _texts(dataset.get(key))]
    return TrainingDataset(
        path=str(dataset.get("folder_path") or dataset.get("dataset_path") or ""),
        resolutions=tuple(resolution) if isinstance(resolution, list) else (resolution,),
        batch_size=dataset.get("batch_size") or subject.whole("train.batch_size") or 1,
        num_repeats=dataset.get("num_repeats", 1),
        caption_ext=extension if extension.startswith(".") else f".{extension}",
        default_caption=dataset.get("default_caption"),
        trigger_word=dataset.get("trigger_word") or subject.text("trigger_word"),
        is_reg=dataset.get("is_reg") is True,
        num_frames=dataset.get("num_frames", 1),
        caches_latents=dataset.get("cache_latents") is True or dataset.get("cache_latents_to_disk") is True,
        has_buckets=dataset.get("buckets", True) is True,
        beside=tuple(folders),
    )


def _texts(value: Any) -> list[str]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str) and entry]
