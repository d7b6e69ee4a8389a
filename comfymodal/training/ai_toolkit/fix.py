"""A corrected copy of a faulty config, for `--fix`: slips put right, what is missing taken from the recipe. Pure.

Only what has one sensible answer is changed; the rest is left to be reported again. Each change says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfymodal.training.ai_toolkit.archs import (
    ARCHS,
    HOMES,
    arch_of,
    guess_arch,
    is_repository,
    looks_like_file,
    near_arch,
)
from comfymodal.training.ai_toolkit.check import better_name
from comfymodal.training.ai_toolkit.check_keys import choices_of, mended
from comfymodal.training.ai_toolkit.expand import default_save_every, scheduler_of
from comfymodal.training.ai_toolkit.layout import name_fault
from comfymodal.training.ai_toolkit.schema import NESTED, PROCESS, TRAINS, TRAINS_OTHERWISE, Block, kind_of
from comfymodal.training.ai_toolkit.subject import Subject, key_of, schema_place, subject_of
from comfymodal.training.config import (
    MISSING,
    Changed,
    Config,
    Draft,
    KeyPath,
    as_list,
    as_mapping,
    find,
    nearest,
)
from comfymodal.training.recipes import Recipe, recipe_of

_TOP_ORDER = ("job", "config", "meta")
_ORDER = (
    *("type", "training_folder", "device", "trigger_word", "performance_log_every", "network", "save", "datasets"),
    *("train", "logging", "model", "sample"),
)
_BLOCKS = ("network", "save", "train", "model", "sample")
_PROMPTS = ("[trigger]", "[trigger], a photo taken outdoors", "[trigger], a close-up")
_PLAIN_PROMPTS = ("a photo taken outdoors", "a close-up portrait", "a wide landscape")


def fix_config(config: Config, *, default_name: str = "my_lora") -> Changed:
    """Mend what can be mended without asking. `notes` say what to look at before the corrected file is used."""
    draft = Draft.of(config, key_of)
    _frame(draft, default_name)
    subject = subject_of(draft.config, lambda _: "")
    if not subject.process:
        return Changed(draft.config, tuple(draft.changes))
    _keys(draft, subject.process_path, PROCESS)
    _kinds(draft, subject.process_path)
    subject = subject_of(draft.config, lambda _: "")
    if junk := [key for key in _BLOCKS if not isinstance(subject.process.get(key), (dict, type(None)))]:
        notes = tuple(f"{key} is no mapping of keys: mend it first" for key in junk)
        return Changed(_in_order(draft.config), tuple(draft.changes), notes)
    arch = _model(draft, subject)
    recipe = recipe_of(arch, str(draft.get(subject.at("model.name_or_path"), ""))) if arch else None
    _network(draft, subject, recipe)
    _train(draft, subject, arch, recipe)
    _save(draft, subject)
    _datasets(draft, subject, recipe)
    _sample(draft, subject, arch, recipe)
    return Changed(_in_order(draft.config), tuple(draft.changes), _notes(draft, subject))


def to_yaml(config: Config) -> str:
    """Write a config as YAML that reads back the same by the rules of YAML 1.1 and 1.2."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: Any, value: str) -> Any:
        is_odd = value.strip() != value or _looks_like_number(value)
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if is_odd else None)

    Dumper.add_representer(str, text)
    return yaml.dump(config, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def _looks_like_number(text: str) -> bool:
    # PyYAML writes `1e-4` without quotes, being of YAML 1.1; every reader of today makes it a number.
    try:
        float(text)
    except ValueError:
        return False
    return True


def _frame(draft: Draft, default_name: str) -> None:
    if draft.get(("job",)) != "extension":
        draft.set(("job",), "extension", "the only job that trains")
    if not isinstance(draft.get(("config",)), dict):
        draft.set(("config",), {}, "holds name and process")
    for key in ("name", "process"):
        if (value := find(draft.config, (key,))) is not MISSING and not draft.has(("config", key)):
            draft.remove((key,), "belongs under config")
            draft.set(("config", key), value, "belongs under config")
    name = draft.get(("config", "name"))
    if not isinstance(name, str) or name_fault(name):
        draft.set(("config", "name"), better_name(str(name or default_name)), "a name that files can have")
    _processes(draft)


def _processes(draft: Draft) -> None:
    path: KeyPath = ("config", "process")
    processes = draft.get(path)
    if isinstance(processes, dict):
        draft.set(path, [processes], "a list with one process")
    for index, process in enumerate(as_list(draft.get(path))):
        kind = as_mapping(process).get("type")
        if isinstance(process, dict) and kind not in (*TRAINS, *TRAINS_OTHERWISE):
            near = nearest(str(kind), TRAINS, cutoff=0.6) if kind else None
            draft.set((*path, index, "type"), near or "diffusion_trainer", "the trainer of networks")


def _keys(draft: Draft, path: KeyPath, block: Block) -> None:
    """Give keys that nobody reads the name they nearly have, where that is not taken, and go on below."""
    values = draft.get(path)
    for key in list(as_mapping(values)):
        if key in block:
            continue
        near = nearest(str(key), block, cutoff=0.75)
        if near and near not in values:
            value = values[key]
            draft.remove((*path, key), f"unknown key; {near} is meant")
            draft.set((*path, near), value, f"{key} is no key")
    for place, nested in NESTED.items():
        name, _, rest = place.partition(".")
        if len(path) == 3 and not rest and not name.endswith("[]") and isinstance(draft.get((*path, name)), dict):
            _keys(draft, (*path, name), nested)
    for index in range(len(as_list(draft.get((*path, "datasets")))) if len(path) == 3 else 0):
        _keys(draft, (*path, "datasets", index), NESTED["datasets[]"])


def _kinds(draft: Draft, path: KeyPath) -> None:
    """Make `"1e-4"` a number, `yes` true, and near misses of a choice what they nearly are."""
    for below, value in _leaves((), draft.get(path)):
        place = schema_place(below)
        kind = kind_of(place)
        if kind is None or value is None:
            continue
        draft.set((*path, *below), mended(kind, value), f"was read as {type(value).__name__}")
        choices = choices_of(place)
        if choices and isinstance(value, str) and value.lower() not in choices:
            near = nearest(value, choices, cutoff=0.6)
            draft.set((*path, *below), near or value, f"{value} is not known")


def _leaves(path: KeyPath, value: Any) -> list[tuple[KeyPath, Any]]:
    found: list[tuple[KeyPath, Any]] = [(path, value)] if path else []
    if isinstance(value, dict):
        found += [leaf for key, child in value.items() for leaf in _leaves((*path, key), child)]
    elif isinstance(value, list):
        found += [leaf for index, child in enumerate(value) for leaf in _leaves((*path, index), child)]
    return found


def _model(draft: Draft, subject: Subject) -> str | None:
    """Settle the architecture and the weights; gives the architecture, None when nothing tells it."""
    written, base = subject.model.get("arch"), subject.model.get("name_or_path")
    arch = arch_of(subject.model)
    if arch is None:
        arch = near_arch(written) if isinstance(written, str) else None
        arch = arch or (guess_arch(base) if isinstance(base, str) else None)
        if arch is None:
            return None
        draft.set(subject.at("model.arch"), arch, "without a name that it knows the trainer takes Stable Diffusion 1.x")
    home = HOMES.get(arch)
    needs_folder = isinstance(base, str) and ARCHS[arch].layout == "folder" and looks_like_file(base)
    is_guides = isinstance(base, str) and base.startswith("models/")
    if home and (not base or needs_folder or is_guides):
        draft.set(subject.at("model.name_or_path"), home, "the repository of this architecture")
    weights = draft.get(subject.at("model.name_or_path"))
    recipe = recipe_of(arch, str(weights))
    if recipe and recipe.adapter and recipe.weights == weights:
        draft.default(subject.at("model.assistant_lora_path"), recipe.adapter, "keeps the few steps of a turbo model")
    if recipe and recipe.quantizes and not {"quantize", "layer_offloading"} & subject.model.keys():
        draft.set(subject.at("model.quantize"), True, "half the memory, as the trainer's examples have it")
    return arch


def _network(draft: Draft, subject: Subject, recipe: Recipe | None) -> None:
    if not any(subject.process.get(key) for key in ("network", "adapter", "embedding", "decorator")):
        rank = recipe.rank if recipe else 16
        new: dict[str, Any] = {"type": "lora", "linear": rank, "linear_alpha": rank}
        draft.set(subject.at("network"), new, "without it the whole model would be trained")
        return
    network = as_mapping(subject.process.get("network"))
    said = network.get("rank", network.get("linear"))
    if isinstance(said, int) and not {"linear_alpha", "alpha"} & network.keys():
        draft.set(subject.at("network.linear_alpha"), said, "the trainer would take 1, a weak LoRA")


def _train(draft: Draft, subject: Subject, arch: str | None, recipe: Recipe | None) -> None:
    at = subject.at
    draft.default(at("train.steps"), recipe.steps if recipe else 2000, "the trainer's own is 1000")
    draft.default(at("train.lr"), recipe.lr if recipe else 1e-4, "the trainer's own is 1e-6")
    draft.default(at("train.batch_size"), 1, "said aloud")
    draft.default(at("train.optimizer"), "adamw8bit", "a quarter of the memory of adamw's state")
    draft.default(at("train.gradient_checkpointing"), True, "said aloud: memory")
    if arch is None:
        return
    is_flow = ARCHS[arch].is_flow
    draft.default(at("train.dtype"), "bf16", "the trainer's own is fp32")
    if is_flow and draft.get(at("train.dtype")) in ("fp16", "float16", "half"):
        draft.set(at("train.dtype"), "bf16", "fp16 overflows with this model")
    if is_flow != (draft.get(at("train.noise_scheduler"), "ddpm") == "flowmatch"):
        draft.set(at("train.noise_scheduler"), scheduler_of(is_flow), "how this model was trained")
    if is_flow and recipe:
        draft.default(at("train.timestep_type"), recipe.timesteps, "as the trainer's page has it for this model")
    if (subject.whole("train.gradient_accumulation") or 1) > 1:
        draft.remove(at("train.gradient_accumulation_steps"), "gradient_accumulation says it")


def _save(draft: Draft, subject: Subject) -> None:
    steps = draft.get(subject.at("train.steps"))
    every = draft.get(subject.at("save.save_every"))
    if isinstance(steps, int) and (not isinstance(every, int) or every < 1 or every >= steps):
        draft.set(subject.at("save.save_every"), default_save_every(steps), "what a killed run loses at most")
    draft.default(subject.at("save.dtype"), "bf16", "the dtype of the training")
    if not draft.get(subject.at("save.max_step_saves_to_keep")):
        draft.set(subject.at("save.max_step_saves_to_keep"), 4, "said aloud")
    name, folder = draft.get(("config", "name")), draft.get(subject.at("training_folder"))
    if isinstance(folder, str) and folder.rstrip("/").rpartition("/")[2] == name:
        draft.set(subject.at("training_folder"), "output", "the trainer adds the name")
    draft.default(subject.at("device"), "cuda", "said aloud")


def _datasets(draft: Draft, subject: Subject, recipe: Recipe | None) -> None:
    for index, _ in subject.datasets:
        at = subject.at(f"datasets[{index}]")
        draft.default((*at, "resolution"), list(recipe.resolutions) if recipe else [512], "the trainer's own is 512")
        draft.default((*at, "caption_ext"), "txt", "said aloud")
        draft.default((*at, "cache_latents_to_disk"), True, "each picture is encoded once")
        draft.remove((*at, "poi"), "no longer supported")


def _sample(draft: Draft, subject: Subject, arch: str | None, recipe: Recipe | None) -> None:
    at = subject.at
    if draft.get(at("train.disable_sampling")) is True:
        return
    sample: Mapping[str, Any] = as_mapping(draft.get(at("sample")))
    if not (sample.get("prompts") or sample.get("samples")):
        prompts = _PROMPTS if draft.get(at("trigger_word")) else _PLAIN_PROMPTS
        draft.set(at("sample.prompts"), list(prompts), "shows which save is best")
        draft.default(at("sample.seed"), 42, "pictures that can be compared")
        draft.default(at("sample.walk_seed"), True, "pictures that can be compared")
        draft.default(at("sample.sample_every"), draft.get(at("save.save_every"), 250), "one for each save")
        if recipe:
            _sample_size(draft, subject, recipe)
    scheduler = draft.get(at("train.noise_scheduler"), "ddpm")
    sampler = draft.get(at("sample.sampler"), "ddpm")
    if arch is not None and (scheduler == "flowmatch") != (sampler == "flowmatch"):
        draft.set(at("sample.sampler"), scheduler, "must go with the noise scheduler")


def _sample_size(draft: Draft, subject: Subject, recipe: Recipe) -> None:
    for key, value in (
        ("width", recipe.sample_size),
        ("height", recipe.sample_size),
        ("guidance_scale", recipe.guidance),
        ("sample_steps", recipe.sample_steps),
    ):
        draft.default(subject.at(f"sample.{key}"), value, "as the trainer's examples have it for this model")


def _in_order(config: Config) -> Config:
    """Put the keys of the file and of its process in the order that the trainer's examples have."""
    ordered = _ordered(config, _TOP_ORDER)
    processes = as_list(as_mapping(ordered.get("config")).get("process"))
    if processes:
        job = _ordered(ordered["config"], ("name", "process"))
        job["process"] = [_ordered(each, _ORDER) if isinstance(each, dict) else each for each in processes]
        ordered["config"] = job
    return ordered


def _ordered(block: Mapping[str, Any], order: tuple[str, ...]) -> Config:
    return {key: block[key] for key in (*(key for key in order if key in block), *block)}


def _notes(draft: Draft, subject: Subject) -> tuple[str, ...]:
    notes = []
    if not draft.get(subject.at("trigger_word")):
        notes.append("no trigger_word: the LoRA answers to what the captions say")
    base = draft.get(subject.at("model.name_or_path"))
    changed = {change.path for change in draft.changes}
    if subject.at("model.name_or_path") in changed and isinstance(base, str) and is_repository(base):
        notes.append(f"the base model is now {base}: change it if another one was meant")
    for index, dataset in subject.datasets:
        if folder := dataset.get("folder_path") or dataset.get("dataset_path"):
            notes.append(f"datasets[{index}] is {folder}: a folder beside the config, or volume:/folder")
    return tuple(notes)
