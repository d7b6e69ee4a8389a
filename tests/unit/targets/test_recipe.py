"""The image as data: its commands are run here, with stand-ins for the network and for pip."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

import comfymodal
from comfymodal.targets.modal.names import (
    APP_KINDS,
    COMFYUI_PATH,
    COMFYUI_PYTHON,
    ENV_OF_ANY_ROLE,
    ENV_SETTINGS,
    TOOLKIT_PATH,
)
from comfymodal.targets.modal.recipe import (
    CONSTRAINTS,
    OPERATORS_SIDE,
    REGISTRY_SCRIPT,
    REQUIREMENTS,
    Step,
    container_env,
    image_steps,
    training_env,
    training_steps,
    travels,
)
from tests.unit.targets.modal_samples import COMMIT, IMAGE, REGISTRY_NODE, SPEC, TRAINING, with_image


def step_named(start: str, steps: Sequence[Step]) -> Step:
    (found,) = (step for step in steps if step.name.startswith(start))
    return found


@dataclass
class Sandbox:
    """Runs an image's commands with everything of the image moved under `root`, and a Python that only notes."""

    root: Path

    def __post_init__(self) -> None:
        self.python = self.root / "python"
        self.said = self.root / "said"
        self.python.write_text(f'#!/bin/sh\necho "$PWD|$PIP_CONSTRAINT|$*" >> {self.said}\n')
        self.python.chmod(0o755)

    def run(self, command: str) -> int:
        for place in ("/root", "/opt"):
            command = command.replace(place, str(self.root) + place)
        command = command.replace(COMFYUI_PYTHON, str(self.python))
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        return subprocess.run(["sh", "-c", command], cwd=self.root, env=environ, check=False).returncode

    def moved(self, path: str) -> Path:
        return Path(str(self.root) + path)

    def calls(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A repository with two commits; returns `file://...@first commit`."""
    folder = tmp_path / "ComfyUI-Things.git"

    def git(*words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    folder.mkdir()
    git("init", "--quiet")
    # What GitHub allows: any commit that can be reached may be asked for.
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    (folder / "requirements.txt").write_text("opencv-python\n")
    (folder / "install.py").write_text("")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    first = git("rev-parse", "HEAD")
    (folder / "requirements.txt").write_text("something-newer\n")
    git("commit", "--quiet", "-am", "second")
    return f"{folder.as_uri()}@{first}"


def test_the_steps_go_from_what_changes_least_to_what_changes_most() -> None:
    assert [(step.name, step.key) for step in image_steps(IMAGE)] == [
        ("system packages", ""),
        ("PyTorch", ""),
        ("ComfyUI 0.3.75", "comfyui.version"),
        ("Comfy registry", "comfyui.custom_nodes"),
        ("custom node comfyui-kjnodes@1.2.3", "comfyui.custom_nodes"),
        (f"custom node https://github.com/someone/ComfyUI-Things.git@{COMMIT}", "comfyui.custom_nodes"),
        ("Python packages", "comfyui.python_packages"),
    ]


def test_a_bare_image_has_no_steps_for_what_is_not_wanted() -> None:
    bare = with_image(custom_nodes=(), python_packages=()).image

    assert [step.name for step in image_steps(bare)] == ["system packages", "PyTorch", "ComfyUI 0.3.75"]


def test_every_command_is_one_line_that_a_shell_can_read() -> None:
    for step in image_steps(IMAGE):
        for command in step.commands:
            assert "\n" not in command
            assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0, command


def test_nothing_is_piped_from_the_network_into_a_shell() -> None:
    commands = [command for step in image_steps(IMAGE) for command in step.commands]

    assert not [command for command in commands if "curl" in command or "wget" in command or "| sh" in command]


def test_every_install_after_pytorch_goes_by_its_constraints() -> None:
    steps = image_steps(IMAGE)
    late = [command for step in steps[2:] for command in step.commands if "pip install" in command]

    assert len(late) == 4
    assert all(f"-c {CONSTRAINTS}" in command for command in late)


def test_comfyui_comes_from_the_tag_of_its_version() -> None:
    fetch, install = step_named("ComfyUI", image_steps(with_image(comfyui_version="0.45.2").image)).commands

    assert "fetch --quiet --depth 1 https://github.com/comfyanonymous/ComfyUI.git refs/tags/v0.45.2 " in fetch
    assert install.endswith(f"-r {COMFYUI_PATH}/requirements.txt")


@pytest.mark.parametrize("package", ["a==1; touch evil", "b @ https://host/b.whl", "$(touch evil)==1"])
def test_a_package_stays_one_word(package: str, sandbox: Sandbox) -> None:
    (command,) = step_named("Python", image_steps(with_image(python_packages=(package,)).image)).commands

    assert shlex.split(command)[-1] == package
    assert sandbox.run(command) == 0
    assert sandbox.calls()[0].endswith(f" {package}")
    assert not (sandbox.root / "evil").exists()


def test_a_git_node_is_at_its_commit_with_requirements_and_install_script(sandbox: Sandbox, repository: str) -> None:
    commands = step_named("custom node", image_steps(with_image(custom_nodes=(repository,)).image)).commands

    assert [sandbox.run(command) for command in commands] == [0, 0, 0, 0]
    folder = sandbox.moved(f"{COMFYUI_PATH}/custom_nodes/ComfyUI-Things")
    assert (folder / "requirements.txt").read_text() == "opencv-python\n"
    pip, script = sandbox.calls()
    assert pip.endswith(f"-c {sandbox.moved(CONSTRAINTS)} -r {folder}/requirements.txt")
    assert script == f"{folder}|{sandbox.moved(CONSTRAINTS)}|install.py"


def test_a_commit_that_is_not_there_fails_the_build(sandbox: Sandbox, repository: str) -> None:
    gone = f"{repository.rpartition('@')[0]}@{'f' * 40}"
    _, fetch, *_ = step_named("custom node", image_steps(with_image(custom_nodes=(gone,)).image)).commands

    assert sandbox.run(fetch) != 0


def test_a_failing_requirement_or_install_script_fails_the_build(sandbox: Sandbox, repository: str) -> None:
    commands = step_named("custom node", image_steps(with_image(custom_nodes=(repository,)).image)).commands
    for command in commands[:2]:
        assert sandbox.run(command) == 0
    sandbox.python.write_text("#!/bin/sh\nexit 3\n")

    assert [sandbox.run(command) for command in commands[2:]] == [3, 3]


def test_a_second_node_of_the_same_name_fails_the_build(sandbox: Sandbox, repository: str) -> None:
    again = f"file:///elsewhere/ComfyUI-Things@{COMMIT}"
    first, second = (
        step.commands
        for step in image_steps(with_image(custom_nodes=(repository, again)).image)
        if step.name.startswith("custom node")
    )
    for command in first:
        assert sandbox.run(command) == 0

    assert sandbox.run(second[0]) != 0


def test_a_registry_node_is_fetched_by_id_and_version(sandbox: Sandbox) -> None:
    steps = image_steps(with_image(custom_nodes=(REGISTRY_NODE,)).image)
    commands = step_named("custom node", steps).commands
    (place,) = step_named("Comfy registry", steps).files

    assert [sandbox.run(command) for command in commands] == [0, 0, 0, 0]
    folder = sandbox.moved(f"{COMFYUI_PATH}/custom_nodes/comfyui-kjnodes")
    assert place == REGISTRY_SCRIPT
    # Nothing was there to install, as the stand-in downloaded nothing.
    assert sandbox.calls() == [f"{sandbox.root}||{sandbox.moved(REGISTRY_SCRIPT)} comfyui-kjnodes 1.2.3 {folder}"]


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        (["numpy==2.1", "torch==2.13.0+cu130", "torchaudio==2.11.0+cu130", "torchvision==0.28.0+cu130"], 0),
        (["torch==2.13.0+cu130", "torchvision==0.28.0+cu130", "torchsde==0.2"], 1),
        (["numpy==2.1"], 1),
    ],
    ids=["all three", "one missing", "none"],
)
def test_pytorch_is_frozen_with_its_build_or_the_build_fails(sandbox: Sandbox, listed: list[str], code: int) -> None:
    sandbox.python.write_text("#!/bin/sh\n" + "".join(f"echo {line}\n" for line in listed))
    _, freeze = step_named("PyTorch", image_steps(IMAGE)).commands

    assert (sandbox.run(freeze) != 0) == bool(code)
    if not code:
        assert sandbox.moved(CONSTRAINTS).read_text().split() == listed[1:]


def test_the_environment_says_where_everything_is() -> None:
    found = container_env(SPEC)

    assert json.loads(found.pop(ENV_SETTINGS)) == {
        "project": "portraits",
        "board": "comfymodal-portraits",
        "volumes": {"models": "comfy-models", "inputs": "comfy-inputs", "outputs": "comfy-outputs"},
        "mounts": [],
        "arguments": ["--fast"],
        "boot_timeout_s": 600.0,
        "snapshot": "off",
    }
    assert found == {
        "HF_HUB_OFFLINE": "1",
        "COMFYUI_PATH": "/root/comfy/ComfyUI",
        "COMFYUI_PYTHON": "/usr/local/bin/python",
        "COMFYMODAL_VOLUME_MODELS": "/volumes/models",
        "COMFYMODAL_VOLUME_INPUTS": "/volumes/inputs",
        "COMFYMODAL_VOLUME_OUTPUTS": "/volumes/outputs",
        "COMFYMODAL_MOUNTS": "/volumes/mounts",
    }


def test_the_project_cannot_replace_what_containers_rely_on() -> None:
    found = container_env(with_image(env={"COMFYUI_PATH": "/elsewhere", ENV_SETTINGS: "{}"}))

    assert found["COMFYUI_PATH"] == COMFYUI_PATH
    assert json.loads(found[ENV_SETTINGS])["project"] == "portraits"


def test_the_settings_hold_no_single_quote() -> None:
    found = container_env(with_image(arguments=("--title", 'it\'s "mine"')))[ENV_SETTINGS]

    assert "'" not in found
    assert json.loads(found)["arguments"] == ["--title", 'it\'s "mine"']


@pytest.mark.parametrize(
    ("path", "goes"),
    [
        ("__init__.py", True),
        ("jobs/render.py", True),
        ("targets/modal/containers.py", True),
        ("cli/main.py", False),
        ("project/schema.py", False),
        ("jobs/notes.txt", False),
        ("jobs/__pycache__/render.cpython-311.pyc", False),
    ],
)
def test_only_what_containers_import_travels(path: str, goes: bool) -> None:
    assert travels(PurePosixPath(path)) is goes


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("storage/plan.py", {"sync"}),
        ("storage/library.py", {"sync", "train"}),
        ("jobs/sync.py", {"sync"}),
        ("jobs/train_publish.py", {"train"}),
        ("training/supervisor.py", {"train"}),
        ("training/dataset.py", set()),
        ("targets/modal/carrier.py", {"sync", "train"}),
        ("targets/modal/train_carrier.py", {"train"}),
        ("comfyui/warm.py", {"render"}),
        ("jobs/render.py", {"render"}),
        ("targets/modal/place.py", {"render", "sync", "train"}),
        ("operations/sync.py", set()),
    ],
)
def test_an_edit_replaces_only_the_containers_it_concerns(path: str, kinds: set[str]) -> None:
    assert (Path(comfymodal.__file__).parent / path).is_file()
    assert {kind for kind in APP_KINDS if travels(PurePosixPath(path), kind)} == kinds


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("render", "comfymodal.targets.modal.containers, comfymodal.jobs.render"),
        (
            "sync",
            "comfymodal.targets.modal.carrier, comfymodal.jobs.sync, comfymodal.jobs.download, comfymodal.jobs.tidy",
        ),
        ("train", "comfymodal.targets.modal.train_carrier, comfymodal.jobs.train"),
    ],
)
def test_containers_load_from_what_travels_alone(tmp_path: Path, kind: str, modules: str) -> None:
    travel(tmp_path, kind)
    heavy, _, where = loaded_with(modules, tmp_path)

    assert heavy == "[]"
    assert where == str(tmp_path / "comfymodal" / "__init__.py")
    assert not [name for name in OPERATORS_SIDE if (tmp_path / "comfymodal" / name).exists()]


def test_training_containers_get_nothing_that_they_do_not_load(tmp_path: Path) -> None:
    gone = {path.removesuffix("/__init__.py").removesuffix(".py") for path in travel(tmp_path, "train")}
    _, loaded, _ = loaded_with("comfymodal.targets.modal.train_carrier, comfymodal.jobs.train", tmp_path)

    names = {name.removeprefix("comfymodal.").replace(".", "/") for name in loaded.split()}
    # What differs belongs into `recipe.STAYS`, or `recipe.GOES`.
    assert gone - {"__init__"} == names - {"comfymodal"}


def travel(folder: Path, kind: str) -> list[str]:
    """Put what goes to the containers of this app there; the paths, relative to our package."""
    package = Path(comfymodal.__file__).parent
    found = [path for path in sorted(package.rglob("*.py")) if travels(path.relative_to(package), kind)]
    for path in found:
        place = folder / "comfymodal" / path.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return [path.relative_to(package).as_posix() for path in found]


def loaded_with(modules: str, folder: Path) -> list[str]:
    """Import from that folder; three lines: which heavy packages came along, which modules of ours, and from where."""
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        f"import {modules}\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('typer', 'rich', 'pydantic', 'yaml')])\n"
        "print(*[name for name in sys.modules if name.split('.')[0] == 'comfymodal'])\n"
        "print(comfymodal.__file__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_training_image_begins_as_a_render_image_does() -> None:
    steps = training_steps(TRAINING)

    assert steps[:2] == image_steps(IMAGE)[:2]
    assert [(step.name, step.key) for step in steps[2:]] == [
        ("packages of ai-toolkit", "training.requirements"),
        (f"ai-toolkit {COMMIT[:12]}", "training.toolkit_commit"),
    ]
    assert sum(step.minutes for step in steps) == 15
    for command in (command for step in steps for command in step.commands):
        assert "\n" not in command
        assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0, command


def test_the_toolkits_packages_are_those_of_the_project_and_move_no_pytorch(sandbox: Sandbox) -> None:
    step = step_named("packages", training_steps(replace(TRAINING, requirements=("a==1", "b @ https://host/b.whl"))))
    (command,) = step.commands

    assert step.texts == {REQUIREMENTS: "a==1\nb @ https://host/b.whl\n"}
    assert sandbox.run(command) == 0
    assert sandbox.calls()[0].endswith(f"-c {sandbox.moved(CONSTRAINTS)} -r {sandbox.moved(REQUIREMENTS)}")


def test_the_toolkit_is_at_its_commit_and_must_load(sandbox: Sandbox, repository: str) -> None:
    url, _, commit = repository.rpartition("@")
    fetch, smoke = step_named("ai-toolkit", training_steps(replace(TRAINING, toolkit_commit=commit))).commands
    sandbox.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    assert sandbox.run(fetch.replace("https://github.com/ostris/ai-toolkit.git", url)) == 0
    toolkit = sandbox.moved(TOOLKIT_PATH)
    assert (toolkit / "requirements.txt").read_text() == "opencv-python\n"
    assert sandbox.run(smoke) != 0
    (toolkit / "toolkit").mkdir()
    # As PyTorch without a GPU, and an architecture that asks for one while it is imported.
    (toolkit / "torch.py").write_text("class cuda:\n    @staticmethod\n    def current_device(): raise RuntimeError\n")
    found = "import torch; torch.cuda.get_device_properties(torch.cuda.current_device()).warp_size\n"
    found += "def get_all_extensions_process_dict(): return {names}\n"
    (toolkit / "toolkit" / "extension.py").write_text(found.format(names={"sd_trainer": 1}))
    assert sandbox.run(smoke) != 0
    (toolkit / "toolkit" / "extension.py").write_text(found.format(names={"diffusion_trainer": 1, "sd_trainer": 1}))
    assert sandbox.run(smoke) == 0


def test_a_training_containers_environment_is_the_same_for_every_project() -> None:
    found = training_env()

    assert (found["AI_TOOLKIT_PATH"], found["AI_TOOLKIT_PYTHON"]) == (TOOLKIT_PATH, COMFYUI_PYTHON)
    assert found["HF_HOME"] == f"{found[ENV_OF_ANY_ROLE['cache']]}/huggingface"
    # Any of tqdm's variables ends the trainer, or slows it down.
    assert not [name for name in found if name.startswith("TQDM")]
