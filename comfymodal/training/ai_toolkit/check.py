"""Every mistake in an ai-toolkit config that can be known before a machine is paid for. Pure: no files, no target.

`check_config` is the door. What is about keys and kinds is in `check_keys`, what a value means in `check_meaning`.
Sources: `toolkit/config.py`, `jobs/BaseJob.py` and `validate_configs` at 27a03a9, and runs of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from comfymodal.training.ai_toolkit.check_keys import check_keys, check_secrets
from comfymodal.training.ai_toolkit.check_meaning import check_meaning
from comfymodal.training.ai_toolkit.layout import name_fault
from comfymodal.training.ai_toolkit.schema import TRAINS, TRAINS_OTHERWISE
from comfymodal.training.ai_toolkit.subject import Subject, subject_of
from comfymodal.training.config import Problem, Where, as_mapping, nearest, shown

_PROJECT_KEYS = frozenset({"project", "target", "modal", "volumes", "remotes", "mounts", "sync", "comfyui", "render"})


def check_config(config: Any, where: Where, *, allow_full_finetune: bool = False) -> list[Problem]:
    """Find all that is wrong with a native config, errors and warnings, in the order of the file's blocks."""
    if not isinstance(config, dict):
        message = f"must be a mapping of keys, not {shown(config)}"
        return [Problem("not_a_mapping", (), where(()), "", message, "start with `job: extension`")]
    subject = subject_of(config, where)
    found = [*_check_frame(subject), *_check_name(subject), *_check_processes(subject)]
    found += [*check_keys(subject), *check_meaning(subject, allow_full_finetune=allow_full_finetune)]
    return [*found, *check_secrets(subject)]


def is_native(tree: Any) -> bool:
    """Whether parsed YAML or JSON is meant as an ai-toolkit config, sound or not, and not as a short form."""
    return isinstance(tree, dict) and not {"job", "config", "process"}.isdisjoint(tree)


def is_project_file(tree: Any) -> bool:
    """Whether parsed YAML is a project file of ours, given where a training config belongs."""
    if not isinstance(tree, dict) or is_native(tree) or "dataset" in tree:
        return False
    return isinstance(tree.get("version"), int) and not _PROJECT_KEYS.isdisjoint(tree)


def better_name(name: str) -> str:
    """Make a name that the trainer can use out of one that it does not."""
    clean = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:60] or "my_lora"
    return clean if name_fault(clean) is None else f"{clean}_lora"


def _check_frame(subject: Subject) -> Iterator[Problem]:
    config = subject.config
    job = config.get("job")
    if job is None:
        hint = "put `job: extension` at the top of the file"
        message = "is missing: the trainer ends with `config file must have a job key`"
        yield subject.problem("no_job", ("job",), message, hint)
    elif job != "extension":
        yield subject.problem("bad_job", ("job",), f"must be extension, not {shown(job)}", _hint_of_job(job))
    if not isinstance(config.get("config"), dict):
        hint = "`name` and `process` belong under `config`"
        yield subject.problem("no_config", ("config",), "must be a mapping with `name` and `process`", hint)


def _hint_of_job(job: object) -> str:
    if job == "train":
        return "`job: train` knows none of the trainers of today"
    return "only `job: extension` trains"


def _check_name(subject: Subject) -> Iterator[Problem]:
    if not isinstance(subject.config.get("config"), dict):
        return
    name, path = subject.config["config"].get("name"), ("config", "name")
    if name is None:
        yield subject.problem("no_name", path, "is missing", "`name: my_lora_v1`, or --name my_lora_v1")
    elif not isinstance(name, str):
        yield subject.problem("bad_name", path, f"must be text, not {shown(name)}", "put quotes around it")
    elif "[name]" in name:
        yield subject.problem("no_name", path, "waits for a name", "--name my_lora_v1")
    elif reason := name_fault(name):
        yield subject.problem("bad_name", path, f"{shown(name)}: {reason}", f"`name: {better_name(name)}`")


def _check_processes(subject: Subject) -> Iterator[Problem]:
    if not isinstance(subject.config.get("config"), dict):
        return
    processes, path = subject.config["config"].get("process"), ("config", "process")
    if not isinstance(processes, list) or not processes:
        hint = "`process:` holds a list; its entry starts with `- type: diffusion_trainer`"
        yield subject.problem("no_process", path, "must be a list with one process", hint)
        return
    for index, process in enumerate(processes):
        if not isinstance(process, dict):
            yield subject.problem("no_process", (*path, index), f"must be a mapping of keys, not {shown(process)}")
        else:
            yield from _check_type(subject, (*path, index), process.get("type"))
    if sum(as_mapping(process).get("type") in TRAINS for process in processes) > 1:
        hint = "make a file of each: a run has one checkpoint to go on from"
        yield subject.problem("many_processes", path, "has several processes that train", hint)


def _check_type(subject: Subject, path: tuple[str | int, ...], name: object) -> Iterator[Problem]:
    at = (*path, "type")
    if name in TRAINS:
        return
    if name is None:
        yield subject.problem("no_type", at, "is missing", "`type: diffusion_trainer`")
    elif name in TRAINS_OTHERWISE:
        hint = "types that do: diffusion_trainer, sd_trainer"
        yield subject.problem("unsupported_type", at, f"{shown(name)} trains in a way that is not known here", hint)
    else:
        near = nearest(str(name), TRAINS, cutoff=0.6)
        hint = f"did you mean `{near}`?" if near else "types that train: diffusion_trainer, sd_trainer"
        yield subject.problem("unknown_type", at, f"{shown(name)} is no process that trains a network", hint)
