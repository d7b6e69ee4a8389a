"""The keys an ai-toolkit config may have, by block, with the kind of value each wants. Tables only; checks nothing.

ai-toolkit 27a03a9 (0.12.26), `toolkit/config_modules.py` and `jobs/process/`. It reads with `kwargs.get`: a key that
is not here is ignored without a word, and a value of another kind fails late or means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["flag", "whole", "number", "text", "texts", "wholes", "mapping", "mappings", "any"]
"""`texts` and `wholes`: one, or a list. `any`: not judged."""

Block = Mapping[str, Kind]


def _block(**names: str) -> Block:
    """Read `flag="a b c", whole="d"` into {name: kind}."""
    return {name: kind for kind, line in names.items() for name in line.split()}  # type: ignore[misc]


TOP = _block(text="job", mapping="config meta")

JOB = _block(text="name device training_folder log_dir", whole="training_seed", mappings="process")

PROCESS = _block(
    text="type name training_folder device trigger_word log_dir sqlite_db_path lorm_extract_mode",
    whole="performance_log_every training_seed",
    number="lorm_extract_mode_param",
    flag="torch_profiler do_lorm",
    mapping="network save train model sample first_sample logging guidance embedding adapter decorator slider",
    mappings="datasets",
)

NETWORK = _block(
    text="type pretrained_lora_path",
    whole="rank linear conv lokr_factor",
    number="alpha linear_alpha conv_alpha dropout",
    flag="transformer_only lokr_full_rank old_lokr_format split_multistage_loras layer_offloading all_layers",
    mapping="network_kwargs lorm",
)

NETWORK_KWARGS = _block(texts="only_if_contains ignore_if_contains")
"""Others pass too: they reach the network class as they are."""

SAVE = _block(
    whole="save_every max_step_saves_to_keep",
    text="dtype save_format hf_repo_id",
    flag="push_to_hub hf_private",
)

LOGGING = _block(whole="log_every", flag="verbose use_wandb use_ui_logger", text="project_name run_name")

EMA = _block(flag="use_ema use_feedback", number="ema_decay param_multiplier")

TRAIN = _block(
    text=(
        "noise_scheduler content_or_style optimizer lr_scheduler dtype attention_backend adapter_assist_name_or_path"
        " adapter_assist_type negative_prompt loss_target diff_output_preservation_class loss_type timestep_type"
        " latent_feature_extractor_path diffusion_feature_extractor_path guidance_loss_schedule unconditional_prompt"
    ),
    whole=(
        "steps min_denoising_steps max_denoising_steps batch_size start_step max_negative_prompts num_train_timesteps"
        " gradient_accumulation_steps gradient_accumulation next_sample_timesteps optimal_noise_pairing_samples"
        " switch_boundary_every"
    ),
    number=(
        "lr unet_lr text_encoder_lr refiner_lr embedding_lr adapter_lr min_snr_gamma snr_gamma noise_offset"
        " weight_jitter merge_network_on_save_strength max_grad_norm noise_multiplier target_noise_multiplier"
        " random_noise_multiplier batch_noise_correction_scale signal_amplification_strength"
        " signal_correction_noise_scale random_noise_shift img_multiplier noisy_latent_multiplier latent_multiplier"
        " reg_weight prompt_dropout_prob match_adapter_chance inverted_mask_prior_multiplier"
        " diff_output_preservation_multiplier blank_prompt_preservation_multiplier cfg_scale max_cfg_scale cfg_rescale"
        " correct_pred_norm_multiplier pred_scaler prompt_saturation_chance target_norm_std_value"
        " paramiter_swapping_factor latent_feature_loss_weight diffusion_feature_extractor_weight"
        " differential_guidance_scale audio_loss_multiplier max_loss"
    ),
    flag=(
        "xformers sdp train_unet train_text_encoder train_refiner train_turbo show_turbo_outputs learnable_snr_gos"
        " skip_first_sample force_first_sample gradient_checkpointing merge_network_on_save free_u"
        " do_signal_correction_noise do_batch_noise_correction do_signal_amplification adaptive_scaling_factor"
        " match_noise_norm short_and_long_captions short_and_long_captions_encoder_split single_item_batching"
        " match_adapter_assist inverted_mask_prior diff_output_preservation blank_prompt_preservation"
        " standardize_images standardize_latents dynamic_noise_offset do_cfg do_random_cfg correct_pred_norm"
        " t0_loss_target t0_velocity_equiv_weight do_fft_loss do_fft_velocity_equiv_weight do_prior_divergence"
        " linear_timesteps linear_timesteps2 disable_sampling unload_text_encoder cache_text_embeddings"
        " do_paramiter_swapping bypass_guidance_embedding force_consistent_noise blended_blur_noise do_guidance_loss"
        " do_guidance_loss_cfg_zero do_differential_guidance do_blank_stabilization max_loss_debug"
    ),
    mapping="optimizer_params lr_scheduler_params ema_config validation_config",
    any="target_norm_std guidance_loss_target",
)

MODEL = _block(
    text=(
        "name_or_path dtype vae_path refiner_name_or_path lora_path assistant_lora_path inference_lora_path"
        " unconditional_lora_path latent_space_version unet_path vae_device vae_dtype te_device te_dtype qtype"
        " qtype_te te_name_or_path arch extras_name_or_path accuracy_recovery_adapter compile_mode"
    ),
    flag=(
        "is_v2 is_xl is_pixart is_pixart_sigma is_auraflow is_v3 is_flux is_lumina2 use_flux_cfg is_ssd is_vega"
        " is_v_pred use_text_encoder_1 use_text_encoder_2 experimental_xl quantize quantize_te low_vram attn_masking"
        " split_model_over_gpus auto_memory layer_offloading compile block_compile compile_fullgraph compile_dynamic"
        " in_context"
    ),
    number=(
        "refiner_start_at split_model_other_module_param_count_scale layer_offloading_transformer_percent"
        " layer_offloading_text_encoder_percent"
    ),
    whole="text_encoder_bits unet_sample_size cache_size_limit",
    texts="ignore_if_contains only_if_contains",
    mapping="quantize_kwargs model_kwargs model_paths",
)

DATASET = _block(
    text=(
        "type folder_path dataset_path default_caption trigger_word diff_output_preservation_class caption_ext"
        " mask_path unconditional_path poi caption_type guidance_type control_path_1 control_path_2 control_path_3"
    ),
    texts="random_triggers augments control_path inpaint_path clip_image_path controls",
    whole=(
        "batch_size random_triggers_max bucket_tolerance keep_tokens num_controls_from_same_folder num_repeats"
        " num_workers prefetch_factor cache_latents_num_workers num_frames fps"
    ),
    wholes="resolution control_transparent_color",
    number="scale network_weight token_dropout_rate caption_dropout_rate mask_min_value loss_multiplier",
    flag=(
        "diff_output_preservation random_scale random_crop buckets is_reg prior_reg shuffle_tokens flip_x flip_y"
        " control_from_same_folder full_size_control_images alpha_mask invert_mask use_short_captions cache_latents"
        " cache_latents_to_disk cache_tensors_to_disk cache_clip_vision_to_disk cache_text_embeddings"
        " load_image_when_caching_latents standardize_images shuffle_augmentations clip_image_from_same_folder"
        " clip_image_shuffle_augmentations square_crop replay_transforms shrink_video_to_frames auto_frame_count"
        " trim_auto_frame_count_tail debug fast_image_size do_i2v do_audio audio_preserve_pitch audio_normalize"
    ),
    any="augmentations clip_image_augmentations replacements extra_values",
)

SAMPLE = _block(
    text="sampler format",
    whole="sample_every sample_start_step width height seed sample_steps num_frames fps",
    number=("guidance_scale network_multiplier guidance_rescale adapter_conditioning_scale refiner_start_at"),
    flag="walk_seed do_cfg_norm",
    texts="prompts",
    mappings="samples",
    any="neg extra_values",
)

SAMPLE_ITEM = _block(
    text="prompt ctrl_img ctrl_img_1 ctrl_img_2 ctrl_img_3",
    whole="width height seed sample_steps fps num_frames ctrl_idx",
    number="guidance_scale",
    flag="do_cfg_norm",
    any="neg network_multiplier",
)

NESTED: Mapping[str, Block] = {
    "network": NETWORK,
    "network.network_kwargs": NETWORK_KWARGS,
    "save": SAVE,
    "train": TRAIN,
    "train.ema_config": EMA,
    "model": MODEL,
    "datasets[]": DATASET,
    "sample": SAMPLE,
    "sample.samples[]": SAMPLE_ITEM,
    "first_sample": SAMPLE,
    "first_sample.samples[]": SAMPLE_ITEM,
    "logging": LOGGING,
}
"""The blocks of a process by their place in it. What is below any other key is not judged."""

OPEN = frozenset({"network.network_kwargs"})
"""Blocks in which other keys are passed on instead of ignored."""

TRAINS = ("diffusion_trainer", "sd_trainer", "ui_trainer")
"""Process types that train a network and can be run here."""

TRAINS_OTHERWISE = (
    "textual_inversion_trainer",
    "concept_slider",
    "ultimate_slider_trainer",
    "image_reference_slider_trainer",
    "concept_replacer",
)
"""Process types that train too, with keys and outputs that are not known here."""

DTYPES = ("fp32", "float32", "float", "single", "fp16", "float16", "half", "bf16", "bfloat16")
_FLOAT8 = ("float8", "e4m3fn", "8bit")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "network.type": ("lora", "locon", "lokr", "lorm", "dora", "lycoris", "fullrank"),
    "save.dtype": (*DTYPES, *_FLOAT8),
    "save.save_format": ("safetensors", "diffusers"),
    "train.dtype": DTYPES,
    "train.content_or_style": ("balanced", "style", "content"),
    "train.lr_scheduler": ("constant", "constant_with_warmup", "cosine", "cosine_with_restarts", "linear", "step"),
    "train.loss_type": ("mse", "mae", "pseudo_huber", "wavelet", "stepped", "mean_flow"),
    "train.noise_scheduler": (
        *("ddpm", "ddim", "pndm", "lms", "k_lms", "euler", "k_euler", "euler_a", "dpmsolver", "dpmsolver++"),
        *("k_dpmsolver", "k_dpmsolver++", "dpmsingle", "heun", "dpm_2", "dpm_2_a", "lcm", "custom_lcm", "mean_flow"),
        "flowmatch",
    ),
    "train.optimizer": (
        *("adamw", "adamw8bit", "adamw8", "adam", "adam8bit", "adam8", "lion", "lion8bit", "ademamix8bit"),
        *("adagrad", "adafactor", "prodigy", "prodigyopt", "prodigy8bit", "automagic", "automagic2", "automagic3"),
        *("automagicexperiment", "dadaptation", "dadaptationadam", "dadaptationlion"),
    ),
    "train.timestep_type": (
        *("sigmoid", "linear", "weighted", "shift", "flux_shift", "lumina2_shift", "lognorm_blend", "next_sample"),
        *("one_step", "two_step", "four_step", "eight_step"),
    ),
    "sample.format": ("jpg", "png", "webp"),
}
"""Legal values by place; those of `sample.sampler` are those of `train.noise_scheduler`."""

AT_LEAST: Mapping[str, float] = {
    **dict.fromkeys(("train.steps", "train.batch_size", "train.gradient_accumulation"), 1),
    **dict.fromkeys(("network.linear", "network.rank", "network.conv", "save.save_every"), 1),
    **dict.fromkeys(("datasets[].batch_size", "datasets[].num_repeats", "datasets[].num_frames"), 1),
    **dict.fromkeys(("sample.sample_every", "sample.sample_steps", "sample.num_frames", "sample.fps"), 1),
    **dict.fromkeys(("save.max_step_saves_to_keep", "train.start_step", "train.lr"), 0),
    **dict.fromkeys(("datasets[].resolution", "sample.width", "sample.height"), 64),
    **dict.fromkeys(("sample.samples[].width", "sample.samples[].height"), 64),
}

NEVER_EMPTY = frozenset(f"datasets[].{key}" for key in ("resolution", "num_repeats", "num_frames", "scale"))
"""Where `null` or an empty list takes the place of the trainer's default, and there is nothing it could do with it."""

DEFAULTS: Mapping[str, Any] = {
    "network.linear": 4,
    "network.alpha": 1.0,
    "network.type": "lora",
    "save.save_every": 1000,
    "save.dtype": "float16",
    "save.max_step_saves_to_keep": 5,
    "train.steps": 1000,
    "train.batch_size": 1,
    "train.gradient_accumulation": 1,
    "train.gradient_accumulation_steps": 1,
    "train.gradient_checkpointing": True,
    "train.lr": 1e-6,
    "train.optimizer": "adamw",
    "train.dtype": "fp32",
    "train.noise_scheduler": "ddpm",
    "train.timestep_type": "sigmoid",
    "train.lr_scheduler": "constant",
    "sample.sampler": "ddpm",
    "sample.sample_every": 100,
    "sample.sample_steps": 20,
    "sample.width": 512,
    "sample.height": 512,
    "model.qtype": "qfloat8",
}
"""What the trainer takes where the config says nothing, for the keys that are asked for here."""


def kind_of(place: str) -> Kind | None:
    """Give the kind of value at `train.lr`, `datasets[].resolution`, ...; None for a place that is not known."""
    block, _, name = place.rpartition(".")
    return (NESTED.get(block, {}) if block else PROCESS).get(name)


def places() -> list[str]:
    """Every place in a process that is known, `type`, `train.lr`, `datasets[].resolution`."""
    nested = [f"{block}.{name}" for block, names in NESTED.items() for name in names]
    return [*PROCESS, *nested]
