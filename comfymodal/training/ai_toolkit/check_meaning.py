"""What the values of a config mean together: what would train the wrong thing, fail late, or lose work. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from comfymodal.training.ai_toolkit.archs import (
    ARCHS,
    HOMES,
    arch_of,
    guess_arch,
    is_gated,
    is_repository,
    looks_like_file,
    near_arch,
)
from comfymodal.training.ai_toolkit.paths import path_uses
from comfymodal.training.ai_toolkit.subject import Subject
from comfymodal.training.config import Problem, as_list, as_mapping, shown
from comfymodal.training.recipes import recipe_of

_HALF = ("fp16", "float16", "half")
_SINGLE = ("fp32", "float32", "float", "single")
_HIGH_LR = 5e-4
_ONE_LR = ("prodigy", "dadaptation")
"""Optimizers that find the rate themselves and want 1.0."""

_MOST_SAVES = 50
_TRAINER_FOLDERS = ("/workspace/", "/root/ai-toolkit/", "/app/ai-toolkit/", "/content/")
"""Folders of other machines, which guides and notebooks are full of."""

_NO_RESUME = ("_LoRA", "_refiner", "_t2i", "_cn")


def check_meaning(subject: Subject, *, allow_full_finetune: bool = False) -> Iterator[Problem]:
    """Find what each value alone would not show."""
    if not subject.process:
        return  # what is missing is said by the frame's check
    yield from _check_network(subject, allow_full_finetune=allow_full_finetune)
    yield from _check_model(subject)
    yield from _check_datasets(subject)
    yield from _check_train(subject)
    yield from _check_scheduler(subject)
    yield from _check_saves(subject)
    yield from _check_samples(subject)
    yield from _check_paths(subject)


def _check_network(subject: Subject, *, allow_full_finetune: bool) -> Iterator[Problem]:
    trains_else = any(subject.process.get(key) for key in ("adapter", "embedding", "decorator"))
    if subject.process.get("network") is None and not trains_else:
        if not allow_full_finetune:
            hint = "`network: {type: lora, linear: 16, linear_alpha: 16}`, or --full-finetune if you mean it"
            message = "is missing: without it the whole model is trained, not a LoRA (several times the memory)"
            yield subject.problem("no_network", "network", message, hint)
        return
    network = as_mapping(subject.process.get("network"))
    if network and not {"linear", "rank"} & network.keys():
        yield subject.warning("low_rank", "network", "says no rank: the trainer takes 4", "`linear: 16`")
    rank = network.get("rank", network.get("linear"))
    if isinstance(rank, int) and rank > 1 and not {"linear_alpha", "alpha"} & network.keys():
        message = f"says no alpha: the trainer takes 1, which scales what is learned to 1/{rank}"
        yield subject.warning("low_alpha", "network", message, f"`linear_alpha: {rank}`")
    if "rank" in network and "linear" in network and network["rank"] != network["linear"]:
        message = f"rank {shown(network['rank'])} wins over linear {shown(network['linear'])}"
        yield subject.problem("contradiction", "network.rank", message, "keep one of the two")


def _check_model(subject: Subject) -> Iterator[Problem]:
    model, name = subject.model, subject.model.get("name_or_path")
    if not isinstance(subject.process.get("model"), dict):
        yield subject.problem("no_model", "model", "is missing", "`model: {name_or_path: ..., arch: ...}`")
        return
    if name is None or name == "":
        home = HOMES.get(arch_of(model) or "")
        hint = f"`name_or_path: {home}`" if home else "a Hugging Face id or a path"
        yield subject.problem("no_base_model", "model.name_or_path", "is missing", hint)
    yield from _check_arch(subject, name if isinstance(name, str) else "")
    if isinstance(name, str) and name:
        yield from _check_weights(subject, name)
    yield from _check_memory(subject)
    for key in ("attn_masking", "split_model_over_gpus"):
        # Asked before `arch` is translated to the older flags, so that `arch: flux` does not count.
        if model.get(key) is True and model.get("is_flux") is not True:
            hint = "remove it, or add `is_flux: true` if the model is FLUX.1"
            yield subject.problem("contradiction", f"model.{key}", "works with `is_flux: true` only", hint)
    has_ara = model.get("accuracy_recovery_adapter") or "|" in str(model.get("qtype"))
    if has_ara and model.get("assistant_lora_path"):
        message = "cannot be used together with an accuracy recovery adapter (in qtype)"
        yield subject.problem("contradiction", "model.assistant_lora_path", message, "keep one of the two")


def _check_arch(subject: Subject, name: str) -> Iterator[Problem]:
    written, guess = subject.model.get("arch"), guess_arch(name)
    known = arch_of(subject.model)
    if isinstance(written, str) and known is None:
        near = near_arch(written)
        hint = f"did you mean `{near}`?" if near else f"architectures: {', '.join(sorted(ARCHS))}"
        message = f"{shown(written)} is not known: the trainer would take the model for Stable Diffusion 1.x"
        yield subject.problem("unknown_arch", "model.arch", message, hint)
    elif known is None and not isinstance(written, str):
        message = "is missing: the trainer would take the model for Stable Diffusion 1.x"
        yield subject.problem("no_arch", "model.arch", message, f"`arch: {guess}`" if guess else "`arch: sd1` if it is")
    elif guess is not None and known is not None and _family(guess) != _family(known):
        message = f"{known}, yet {shown(name)} sounds like {guess}"
        yield subject.warning("odd_arch", "model.arch", message, f"`arch: {guess}` if it is")


def _check_memory(subject: Subject) -> Iterator[Problem]:
    recipe = recipe_of(subject.arch.name, str(subject.model.get("name_or_path"))) if subject.arch else None
    if recipe is not None and recipe.quantizes and not {"quantize", "layer_offloading"} & subject.model.keys():
        message = f"is missing: the weights of {recipe.title} stay at 16 bits, twice the memory of quantized ones"
        yield subject.warning("no_quantize", "model.quantize", message, "`quantize: true`, or `false` if you mean it")


def _family(arch: str) -> str:
    return arch.partition("_")[0].rstrip("0123456789.") if arch not in ("flux2", "sd1", "sd2", "sd3") else arch


def _check_weights(subject: Subject, name: str) -> Iterator[Problem]:
    arch = subject.arch
    home = HOMES.get(arch.name if arch else guess_arch(name) or "")
    if arch is not None and arch.layout == "folder" and looks_like_file(name):
        message = f"{shown(name)} is one file; {arch.name} wants a diffusers folder or a Hugging Face repository"
        hint = f"`name_or_path: {home}`: what ComfyUI loads does not serve here" if home else None
        yield subject.problem("wrong_layout", "model.name_or_path", message, hint)
    elif name.startswith("models/"):
        message = f"{shown(name)} is a folder of a trainer's machine, and has the shape of a Hugging Face id"
        hint = f"`name_or_path: {home}`" if home else "a Hugging Face id"
        hint += f", volume:/folder of the models volume, or ./{name} of this machine"
        yield subject.problem("guide_path", "model.name_or_path", message, hint)
    recipe = recipe_of(arch.name, name) if arch else None
    if recipe and recipe.weights == name and recipe.adapter and not subject.model.get("assistant_lora_path"):
        message = f"is missing: {recipe.title} is distilled, and training without an adapter undoes its few steps"
        hint = f"`assistant_lora_path: {recipe.adapter}`"
        yield subject.warning("no_adapter", "model.assistant_lora_path", message, hint)
    if is_repository(name) and is_gated(name):
        message = f"{name} is gated: it needs a Hugging Face token whose account accepted the licence"
        hint = f"https://huggingface.co/{name}"
        yield subject.warning("gated", "model.name_or_path", message, hint)


def _check_datasets(subject: Subject) -> Iterator[Problem]:
    datasets = subject.process.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        hint = "`datasets: [{folder_path: ./pictures, resolution: [512, 768, 1024]}]`"
        yield subject.problem("no_datasets", "datasets", "must be a list with one dataset or more", hint)
        return
    for index, dataset in subject.datasets:
        at = f"datasets[{index}]"
        if not dataset.get("folder_path") and not dataset.get("dataset_path"):
            yield subject.problem("no_folder", f"{at}.folder_path", "is missing", "the folder with the pictures")
        if dataset.get("poi") is not None:
            message = "is no longer supported by the trainer"
            yield subject.problem("contradiction", f"{at}.poi", message, "remove it")
        if dataset.get("resolution") is None and (arch := subject.arch) and arch.name not in ("sd1", "sd2"):
            hint = "`resolution: [512, 768, 1024]`"
            yield subject.warning("low_resolution", at, "says no resolution: the trainer takes 512", hint)
        yield from _check_pairs(subject, index)
    caching = [dataset.get("cache_text_embeddings") is True for _, dataset in subject.datasets]
    if any(caching) and not all(caching):
        message = "must be true for all datasets or for none"
        at = f"datasets[{caching.index(False)}].cache_text_embeddings"
        yield subject.problem("contradiction", at, message)


def _check_pairs(subject: Subject, index: int) -> Iterator[Problem]:
    arch, dataset = subject.arch, as_mapping(as_list(subject.process.get("datasets"))[index])
    controls = ("control_path", "control_path_1", "control_path_2", "control_path_3", "control_from_same_folder")
    if arch is not None and arch.is_edit and not any(dataset.get(key) for key in controls):
        message = f"is missing: {arch.name} learns from pairs of pictures"
        hint = "the folder with the pictures before the edit, of the same names"
        yield subject.problem("no_controls", f"datasets[{index}].control_path", message, hint)
    frames = dataset.get("num_frames")
    if isinstance(frames, int) and frames > 1 and arch is not None and not arch.is_video:
        message = f"{frames} frames, yet {arch.name} makes pictures"
        yield subject.problem("contradiction", f"datasets[{index}].num_frames", message, "`num_frames: 1`")
    drops = dataset.get("caption_dropout_rate")
    caches = dataset.get("cache_text_embeddings") or subject.value("train.cache_text_embeddings")
    if caches is True and isinstance(drops, (int, float)) and drops > 0:
        message = "has no effect while text embeddings are cached"
        yield subject.warning("no_effect", f"datasets[{index}].caption_dropout_rate", message)


def _check_train(subject: Subject) -> Iterator[Problem]:
    for key, hint in (("steps", "`steps: 2000`: the trainer takes 1000"), ("lr", "`lr: 1e-4`: the trainer takes 1e-6")):
        if not subject.has(f"train.{key}"):
            yield subject.warning(f"no_{key}", f"train.{key}", "is missing", hint)
    yield from _check_dtype(subject)
    optimizer, rate = subject.text("train.optimizer") or "", subject.number("train.lr")
    if rate is not None and rate == 0:
        yield subject.problem("bad_value", "train.lr", "must be above 0: nothing would be learned")
    finds_rate = optimizer.lower().startswith(_ONE_LR)
    if finds_rate and rate is not None and rate < 0.1:
        message = f"{rate:g} with {optimizer}, which finds the rate itself"
        yield subject.warning("odd_lr", "train.lr", message, "`lr: 1.0`")
    if not finds_rate and rate is not None and rate >= _HIGH_LR:
        message = f"{rate:g} is high for a LoRA: most end in noise or NaN"
        yield subject.warning("odd_lr", "train.lr", message, "`lr: 1e-4` is where to start")
    accumulation = subject.whole("train.gradient_accumulation") or 1
    if accumulation > 1 and subject.whole("train.gradient_accumulation_steps") != 1:
        message = "cannot be used together with gradient_accumulation"
        yield subject.problem("contradiction", "train.gradient_accumulation_steps", message, "remove it")
    yield from _check_pairs_of_options(subject)
    yield from _check_text_encoder(subject)


def _check_pairs_of_options(subject: Subject) -> Iterator[Problem]:
    for one, other in (
        ("diff_output_preservation", "blank_prompt_preservation"),
        ("bypass_guidance_embedding", "do_guidance_loss"),
    ):
        if subject.value(f"train.{one}") is True and subject.value(f"train.{other}") is True:
            message = f"cannot be used together with {one}"
            yield subject.problem("contradiction", f"train.{other}", message, "keep one of the two")


def _check_text_encoder(subject: Subject) -> Iterator[Problem]:
    name = subject.arch.name if subject.arch else None
    if name in ("qwen_image_edit", "boogu_image_edit") and subject.value("train.unload_text_encoder") is True:
        message = f"cannot be used with {name}: its control pictures are part of the text embedding"
        yield subject.problem("contradiction", "train.unload_text_encoder", message, "`cache_text_embeddings: true`")
    trains = subject.value("train.train_text_encoder") is True
    if trains and (subject.value("train.unload_text_encoder") or subject.value("train.cache_text_embeddings")):
        message = "cannot be trained while it is unloaded or its embeddings are cached"
        yield subject.problem("contradiction", "train.train_text_encoder", message, "`train_text_encoder: false`")
    elif trains and subject.arch is not None and subject.arch.is_flow:
        message = f"is not known to work with {name}"
        yield subject.warning("odd_text_encoder", "train.train_text_encoder", message, "`train_text_encoder: false`")


def _check_dtype(subject: Subject) -> Iterator[Problem]:
    dtype, arch = subject.text("train.dtype") or "", subject.arch
    if dtype in _SINGLE and (arch is None or arch.name != "sd1"):
        said = "says no dtype: the trainer takes fp32" if not subject.has("train.dtype") else dtype
        message = f"{said}, which needs twice the memory of bf16"
        at = "train.dtype" if subject.has("train.dtype") else "train"
        yield subject.warning("wide_dtype", at, message, "`dtype: bf16`")
    if dtype in _HALF:
        message = f"{dtype} overflows where bf16 does not"
        if arch is not None and arch.is_flow:
            yield subject.problem("bad_dtype", "train.dtype", f"{message}, and {arch.name} is one", "`dtype: bf16`")
        else:
            yield subject.warning("odd_dtype", "train.dtype", message, "`dtype: bf16`")


def _check_scheduler(subject: Subject) -> Iterator[Problem]:
    arch = subject.arch
    scheduler, sampler = subject.text("train.noise_scheduler"), subject.text("sample.sampler")
    if arch is not None and scheduler is not None:
        right = "flowmatch" if arch.is_flow else "ddpm"
        # Other noise schedules train a ddpm model too; flowmatch on one, or another on a flow model, trains noise.
        if arch.is_flow != (scheduler == "flowmatch"):
            said = scheduler if subject.has("train.noise_scheduler") else f"is missing: the trainer takes {scheduler}"
            message = f"{said}, yet {arch.name} is trained with {right}"
            yield subject.problem("wrong_scheduler", "train.noise_scheduler", message, f"`noise_scheduler: {right}`")
    if scheduler is None or sampler is None or not _makes_samples(subject):
        return
    if (scheduler == "flowmatch") != (sampler == "flowmatch"):
        said = sampler if subject.has("sample.sampler") else f"is missing: the trainer takes {sampler}"
        message = f"{said}, which must go with noise_scheduler {scheduler}: the samples would be noise"
        yield subject.problem("wrong_sampler", "sample.sampler", message, f"`sampler: {scheduler}`")


def _check_saves(subject: Subject) -> Iterator[Problem]:
    steps, every = subject.whole("train.steps"), subject.whole("save.save_every")
    if steps is None or every is None or every < 1:
        return
    place = "save.save_every" if subject.has("save.save_every") else "save"
    advice = f"`save_every: {max(1, min(250, steps // 4))}`"
    if every >= steps:
        said = f"{every}" if subject.has("save.save_every") else f"says no save_every: the trainer takes {every}"
        message = f"{said}, and the run has {steps} steps: nothing is saved before its end"
        yield subject.warning("no_saves", place, message, advice)
    elif steps // every > _MOST_SAVES:
        yield subject.warning("many_saves", place, f"{every} means {steps // every} saves, each a pause", advice)
    if subject.whole("save.max_step_saves_to_keep") == 0:
        message = "0 deletes every checkpoint as soon as it is written"
        yield subject.problem("bad_value", "save.max_step_saves_to_keep", message, "`max_step_saves_to_keep: 4`")
    if subject.value("save.push_to_hub") is True and not subject.text("save.hf_repo_id"):
        hint = "`hf_repo_id: you/name`, or `push_to_hub: false`"
        yield subject.problem("no_hub_repository", "save.push_to_hub", "needs hf_repo_id", hint)


def _makes_samples(subject: Subject) -> bool:
    sample = as_mapping(subject.process.get("sample"))
    has_prompts = bool(sample.get("prompts") or sample.get("samples"))
    return has_prompts and subject.value("train.disable_sampling") is not True


def _check_samples(subject: Subject) -> Iterator[Problem]:
    if subject.value("train.disable_sampling") is True:
        return
    if not _makes_samples(subject):
        at = "sample" if subject.has("sample") else subject.process_path
        hint = '`sample: {prompts: ["[trigger] at the beach"], sample_every: 250}`'
        yield subject.warning("no_samples", at, "says no prompts: nothing will show which save is best", hint)
        return
    sample = as_mapping(subject.process.get("sample"))
    prompts = as_list(sample.get("samples") or sample.get("prompts"))
    every, steps = subject.whole("sample.sample_every") or 0, subject.whole("train.steps") or 0
    denoise = subject.whole("sample.sample_steps") or 0
    # A step of sampling is a forward pass, one of training about three: forward, backward, checkpointing's again.
    if 0 < every < steps and len(prompts) * denoise > 3 * every:
        message = f"{len(prompts)} prompts of {denoise} steps every {every} steps cost more than the training"
        yield subject.warning("many_samples", "sample", message, "fewer prompts, or a larger sample_every")


def _check_paths(subject: Subject) -> Iterator[Problem]:
    for use in path_uses(subject):
        hint = "a folder of this machine, or volume:/folder of the volume"
        if use.text.startswith(_TRAINER_FOLDERS):
            yield subject.problem("guide_path", use.path, f"{shown(use.text)} is a folder of another machine", hint)
        elif "\\" in use.text or (len(use.text) > 1 and use.text[1] == ":" and use.text[0].isalpha()):
            message = f"{shown(use.text)} is a Windows path"
            yield subject.warning("windows_path", use.path, message, "it is found from a Windows machine only")
    yield from _check_folder(subject)


def _check_folder(subject: Subject) -> Iterator[Problem]:
    folder, name = subject.text("training_folder"), as_mapping(subject.config.get("config")).get("name")
    if folder and isinstance(name, str) and folder.rstrip("/").rpartition("/")[2] == name:
        message = f"{shown(folder)}: the trainer adds the name, so that results would lie in {folder}/{name}"
        yield subject.warning("doubled_name", "training_folder", message, "results go to the training volume here")
    if folder and any(part in folder for part in _NO_RESUME):
        message = f"{shown(folder)} would switch off resuming; another folder is used here"
        yield subject.warning("no_resume", "training_folder", message)
