"""A short form as a full ai-toolkit config, and where each value of it came from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfymodal.training.config import Config, Key, KeyPath, Where
from comfymodal.training.recipes import RECIPES, Recipe
from comfymodal.training.short_form import ShortDataset, ShortForm

PROCESS: KeyPath = ("config", "process", 0)

_SMALLEST_SAVE_EVERY = 10
_DEFAULT_PROMPTS = ("[trigger]", "[trigger], a photo taken outdoors", "[trigger], a close-up")
_DEFAULT_PROMPTS_WITHOUT_TRIGGER = ("a photo taken outdoors", "a close-up portrait", "a wide landscape")


@dataclass(frozen=True, slots=True)
class Expanded:
    """A full config; `origins` maps a path of it to the key of the short form that says its value."""

    config: Config
    origins: dict[KeyPath, KeyPath]

    def where(self, where: Where) -> Where:
        """Give the place in the short form for a path of the full config; what a recipe said is placed at `model`."""

        def place(path: KeyPath) -> str:
            for length in range(len(path), 0, -1):
                if path[:length] in self.origins:
                    return where(self.origins[path[:length]] + path[length:])
            return where(("model",))

        return place


def expand(form: ShortForm) -> Expanded:
    """Fill in what the recipe of the form's model knows. `overrides` and `sweep` are left to who applies them."""
    recipe = RECIPES[form.model]
    steps = form.steps or recipe.steps
    process: dict[str, Any] = {
        "type": "diffusion_trainer",
        "training_folder": "output",
        "device": "cuda",
        **({"trigger_word": form.trigger} if form.trigger else {}),
        **({"training_seed": form.seed} if form.seed is not None else {}),
        "performance_log_every": 10,
        "network": _network(form, recipe),
        "save": {
            "dtype": "bf16",
            "save_every": form.save_every or default_save_every(steps),
            "max_step_saves_to_keep": form.keep or 4,
        },
        "datasets": [_dataset(form, recipe, dataset) for dataset in form.datasets],
        "train": _train(form, recipe, steps),
        "logging": {"log_every": 1, "use_ui_logger": True},
        "model": _model(form, recipe),
        "sample": _sample(form, recipe, steps),
    }
    config: Config = {
        "job": "extension",
        "config": {"name": form.name, "process": [process]} if form.name else {"process": [process]},
        "meta": {"name": "[name]", "version": "1.0"},
    }
    return Expanded(config, _origins(form))


def default_save_every(steps: int) -> int:
    """Save four times a run or more: what a killed run loses is at most the steps since the last save."""
    return max(min(250, steps // 4), min(_SMALLEST_SAVE_EVERY, steps))


def _network(form: ShortForm, recipe: Recipe) -> dict[str, Any]:
    rank = form.rank or recipe.rank
    alpha = form.alpha if form.alpha is not None else rank
    network: dict[str, Any] = {"type": "lora", "linear": rank, "linear_alpha": alpha}
    if recipe.arch == "hidream":
        # The experts of its mixture see too few pictures each; the trainer's own example leaves them alone.
        network["network_kwargs"] = {"ignore_if_contains": ["ff_i.experts", "ff_i.gate"]}
    return network


def _dataset(form: ShortForm, recipe: Recipe, dataset: ShortDataset) -> dict[str, Any]:
    resolution = dataset.resolution or form.resolution or recipe.resolutions
    return {
        "folder_path": dataset.path,
        "caption_ext": "txt",
        **({"default_caption": dataset.caption} if dataset.caption else {}),
        "caption_dropout_rate": form.caption_dropout if form.caption_dropout is not None else 0.05,
        "cache_latents_to_disk": True,
        "num_repeats": dataset.repeats or 1,
        "resolution": list(resolution),
    }


def _train(form: ShortForm, recipe: Recipe, steps: int) -> dict[str, Any]:
    return {
        "batch_size": form.batch or 1,
        "steps": steps,
        "gradient_accumulation": 1,
        "train_unet": True,
        "train_text_encoder": False,
        "gradient_checkpointing": True,
        "noise_scheduler": scheduler_of(recipe.is_flow),
        **({"timestep_type": recipe.timesteps} if recipe.is_flow else {}),
        **({"bypass_guidance_embedding": True} if recipe.bypasses_guidance_embedding else {}),
        "optimizer": "adamw8bit",
        "optimizer_params": {"weight_decay": 1e-4},
        "lr": form.lr or recipe.lr,
        "dtype": "bf16",
    }


def scheduler_of(is_flow: bool) -> str:
    return "flowmatch" if is_flow else "ddpm"


def _model(form: ShortForm, recipe: Recipe) -> dict[str, Any]:
    model: dict[str, Any] = {
        "name_or_path": form.weights or recipe.weights,
        "arch": recipe.arch,
        "quantize": recipe.quantizes,
        "quantize_te": recipe.quantizes_text_encoder,
        "low_vram": recipe.low_vram,
    }
    if recipe.quantizes:
        model["qtype"] = "qfloat8"
    if recipe.adapter:
        model["assistant_lora_path"] = recipe.adapter
    if recipe.arch == "wan22_14b":
        model["model_kwargs"] = {"train_high_noise": True, "train_low_noise": True}
    if recipe.arch == "hidream":
        # The repository leaves out one of the four text encoders; the gated original is not the only copy.
        model["model_kwargs"] = {"llama_model_path": "unsloth/Meta-Llama-3.1-8B-Instruct"}
    return model


def _sample(form: ShortForm, recipe: Recipe, steps: int) -> dict[str, Any]:
    defaults = _DEFAULT_PROMPTS if form.trigger else _DEFAULT_PROMPTS_WITHOUT_TRIGGER
    edge = form.sample_size or recipe.sample_size
    return {
        "sampler": scheduler_of(recipe.is_flow),
        "sample_every": form.sample_every or form.save_every or default_save_every(steps),
        "width": edge,
        "height": edge,
        "samples": [{"prompt": text} for text in form.prompts or defaults],
        "neg": "",
        "seed": 42 if form.seed is None else form.seed,
        "walk_seed": True,
        "guidance_scale": recipe.guidance,
        "sample_steps": recipe.sample_steps,
    }


_ORIGINS = {
    "trigger": ("trigger_word",),
    "rank": ("network", "linear"),
    "alpha": ("network", "linear_alpha"),
    "lr": ("train", "lr"),
    "batch": ("train", "batch_size"),
    "steps": ("train", "steps"),
    "save_every": ("save", "save_every"),
    "keep": ("save", "max_step_saves_to_keep"),
    "sample_every": ("sample", "sample_every"),
    "sample_size": ("sample", "width"),
    "weights": ("model", "name_or_path"),
    "seed": ("training_seed",),
}


def _origins(form: ShortForm) -> dict[KeyPath, KeyPath]:
    found: dict[KeyPath, KeyPath] = {
        (*PROCESS, *place): (key,) for key, place in _ORIGINS.items() if getattr(form, key) is not None
    }
    found[("config", "name")] = ("name",)
    found[(*PROCESS, "model", "arch")] = ("model",)
    found[(*PROCESS, "sample", "samples")] = ("prompts",)
    for index, dataset in enumerate(form.datasets):
        entry: KeyPath = (*PROCESS, "datasets", index)
        # Where the form has one folder, or several, this shows the nearest value above that exists.
        found[entry] = ("dataset", index)
        found[(*entry, "folder_path")] = ("dataset", index, "path")
        own: tuple[Key, ...] = ("dataset", index, "resolution")
        found[(*entry, "resolution")] = own if dataset.resolution else ("resolution",)
    return found
