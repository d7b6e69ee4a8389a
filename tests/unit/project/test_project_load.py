from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ProjectError
from comfymodal.project.load import LoadedProject, find_project_file, load_project

REPOSITORY = Path(__file__).parents[3]


def write(folder: Path, text: str | bytes, name: str = "comfymodal.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(
    folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> LoadedProject:
    return load_project(write(folder, text), environ=environ or {}, flags=flags or {}, cwd=folder)


def refusal(
    folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        load(folder, text, environ=environ, flags=flags)
    return caught.value


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    loaded = load_project(None, environ={}, cwd=tmp_path)
    settings = loaded.settings
    assert (settings.version, settings.project, settings.target, loaded.path) == (1, "default", "local", None)
    assert settings.volumes.models.name == "comfy-models"
    assert settings.volumes.inputs.path is None
    assert settings.volumes.inputs.version == 2
    assert (settings.modal.environment, settings.modal.workspace, settings.costs.per_run_usd) == (None, None, None)
    assert settings.comfyui.model_dump() == {
        **{"url": None, "path": None, "python": None, "args": (), "discover": True},
        **{"version": None, "idle_stop": 900.0, "boot_timeout": 600.0, "stall_timeout": 900.0},
        **{"custom_nodes": (), "python_packages": (), "env": {}, "secrets": (), "gpu": ("L40S",), "snapshot": "off"},
        **{"timeout": 3600.0, "scaledown_window": 60.0},
        **{"min_containers": 0, "max_containers": 3, "buffer_containers": 0},
    }
    assert settings.render.output_dir == tmp_path / "outputs"
    assert settings.render.naming == "{stem}{ext}"
    assert set(loaded.origins.values()) == {"default"}


def test_a_full_file_is_read(tmp_path: Path) -> None:
    text = """\
version: 1
project: portraits
target: local
volumes:
  models: {name: my-models, path: /data/models}
  outputs: {path: out}
comfyui:
  url: HTTPS://gpu.example:8188/comfy/
  python: venv/../venv/bin/python
  args: ["--lowvram", --cpu]
  discover: false
  idle_stop: never
  boot_timeout: 1e2
render:
  output_dir: ~/pictures
  naming: "{workflow}/{stem}{ext}"
"""
    settings = load(tmp_path, text).settings
    assert settings.volumes.models.path == Path("/data/models")
    assert settings.volumes.outputs.path == tmp_path / "out"
    assert settings.volumes.outputs.name == "comfy-outputs"
    assert settings.comfyui.url == "HTTPS://gpu.example:8188/comfy"
    assert str(settings.comfyui.python) == f"{tmp_path}/venv/../venv/bin/python"
    assert settings.comfyui.args == ("--lowvram", "--cpu")
    assert settings.comfyui.discover is False
    assert settings.comfyui.idle_stop is None
    assert settings.comfyui.boot_timeout == 100.0
    assert settings.render.output_dir == Path(os.path.expanduser("~/pictures"))


MODAL = """\
version: 1
target: modal
modal: {environment: dev, workspace: studio-1}
volumes:
  models: {version: 1}
comfyui:
  version: 0.3.75
  custom_nodes:
  - was-node-suite-comfyui@1.0.2
  - https://github.com/kijai/ComfyUI-WanVideoWrapper@0123456789abcdef0123456789abcdef01234567
  python_packages:
  - sageattention==2.2.0
  - "flash-attn @ https://example.com/flash_attn-2.whl"
  - https://example.com/some-1.0-py3-none-any.whl#sha256=00
  - "triton[tests]==3.1"
  - thing @ git+https://github.com/a/thing@0123456789abcdef0123456789abcdef01234567
  env:
    TOKENIZERS_PARALLELISM: false
    CUDA_LEVEL: 12.10
    OMP_NUM_THREADS: 08
    PROMPT: "a b"
    EMPTY: ""
  secrets: [hf-credentials]
  gpu: [l40s, "a100-80gb:2"]
  timeout: 1d
  scaledown_window: 2s
  min_containers: 1
  max_containers: 3
  buffer_containers: 2
  snapshot: off
  stall_timeout: never
costs: {per_run_usd: 0.10}
"""


def test_a_full_file_for_modal_is_read(tmp_path: Path) -> None:
    loaded = load(tmp_path, MODAL)
    settings, comfyui = loaded.settings, loaded.settings.comfyui
    assert (settings.target, settings.modal.environment, settings.modal.workspace) == ("modal", "dev", "studio-1")
    assert (settings.volumes.models.version, settings.volumes.inputs.version) == (1, 2)
    assert comfyui.custom_nodes[0] == "was-node-suite-comfyui@1.0.2"
    assert len(comfyui.python_packages) == 5
    assert comfyui.env == {
        **{"TOKENIZERS_PARALLELISM": "false", "CUDA_LEVEL": "12.10", "OMP_NUM_THREADS": "08"},
        **{"PROMPT": "a b", "EMPTY": ""},
    }
    assert comfyui.gpu == ("L40S", "A100-80GB:2")
    assert (comfyui.timeout, comfyui.scaledown_window, comfyui.stall_timeout) == (86400.0, 2.0, None)
    assert (comfyui.min_containers, comfyui.max_containers, comfyui.buffer_containers) == (1, 3, 2)
    assert comfyui.snapshot == "off"
    assert settings.costs.per_run_usd == Decimal("0.1")
    assert loaded.warnings == ()
    assert loaded.origins["comfyui.env"] == "file comfymodal.yaml:17"


@pytest.mark.parametrize(("text", "snapshot"), [("off", "off"), ("'off'", "off"), ("cpu", "cpu"), ("gpu", "gpu")])
def test_an_unquoted_off_is_text(tmp_path: Path, text: str, snapshot: str) -> None:
    assert load(tmp_path, f"version: 1\ncomfyui: {{snapshot: {text}}}\n").settings.comfyui.snapshot == snapshot


@pytest.mark.parametrize(
    ("text", "shown"),
    [("2.50", "2.50"), ("'2.50'", "2.50"), ("3", "3"), ("1e-4", "0.0001"), ("0.1", "0.1"), (".5", "0.5")],
)
def test_dollars_are_exact_and_shown_as_text(tmp_path: Path, text: str, shown: str) -> None:
    costs = load(tmp_path, f"version: 1\ncosts: {{per_run_usd: {text}}}\n").settings.costs
    assert costs.per_run_usd == Decimal(shown)
    assert costs.model_dump(mode="json")["per_run_usd"] == shown


def test_settings_that_count_only_on_this_machine_are_warned_of_on_modal(tmp_path: Path) -> None:
    text = """\
version: 1
volumes: {models: {path: /data}}
comfyui: {url: "http://h:1", path: /c, python: /p, idle_stop: 1m, discover: false, boot_timeout: 5m}
"""
    assert load(tmp_path, text).warnings == ()
    names = ("discover", "idle_stop", "path", "python", "url")
    warnings = tuple(f"comfyui.{name} counts only on the local target" for name in names)
    assert load(tmp_path, text, flags={"target": "modal"}).warnings == warnings
    assert load(tmp_path, text, environ={"COMFYMODAL_TARGET": "modal"}).warnings == warnings
    # An env var is set for this machine, whatever the project.
    environ = {"COMFYMODAL_COMFYUI_URL": "http://h:1"}
    assert load(tmp_path, "version: 1\ntarget: modal\n", environ=environ).warnings == ()


def test_settings_for_modal_are_no_matter_on_this_machine(tmp_path: Path) -> None:
    assert load(tmp_path, MODAL, flags={"target": "local"}).warnings == ()


def test_a_venv_python_that_is_a_symlink_stays_one(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to("/usr/bin/env")
    settings = load(tmp_path, "version: 1\ncomfyui: {python: python}\n").settings
    assert settings.comfyui.python == tmp_path / "python"


def test_paths_are_relative_to_the_file_not_to_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "version: 1\nrender: {output_dir: out}\n")
    loaded = load_project(Path("sub/comfymodal.yaml"), environ={}, cwd=tmp_path)
    assert loaded.settings.render.output_dir == tmp_path / "sub" / "out"
    assert loaded.origins["render.output_dir"] == "file sub/comfymodal.yaml:2"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbfversion: 1\r\nproject: x\r\n").settings.project == "x"


def test_1e_4_is_a_number(tmp_path: Path) -> None:
    # Text would be refused as "not a duration"; the number is refused for its size.
    error = refusal(tmp_path, "version: 1\ncomfyui: {idle_stop: 1e-4}\n")
    assert error.message == "comfymodal.yaml:2:22: comfyui.idle_stop: must be at least 0.001s and at most 365d"


EXAMPLES = sorted((REPOSITORY / "configs").rglob("comfymodal.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shipped_examples_load(path: Path) -> None:
    assert load_project(path, environ={}, cwd=REPOSITORY).settings.version == 1


def test_an_example_is_shipped() -> None:
    assert EXAMPLES


def test_the_file_in_the_current_folder_is_found(tmp_path: Path) -> None:
    assert find_project_file(None, cwd=tmp_path) is None
    path = write(tmp_path, "version: 1\n", "comfymodal.yml")
    assert find_project_file(None, cwd=tmp_path) == path
    (tmp_path / "sub").mkdir()
    assert find_project_file(None, cwd=tmp_path / "sub") is None
    assert find_project_file(Path("../comfymodal.yml"), cwd=tmp_path / "sub") == tmp_path / "sub/../comfymodal.yml"
    write(tmp_path, "version: 1\n", "comfymodal.yaml")
    with pytest.raises(ProjectError, match=r"both comfymodal\.yaml and comfymodal\.yml are here"):
        find_project_file(None, cwd=tmp_path)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"^there is no project file x\.yaml$"):
        find_project_file(Path("x.yaml"), cwd=tmp_path)
    with pytest.raises(ProjectError, match=r"is a folder$"):
        find_project_file(tmp_path, cwd=Path("/"))
    with pytest.raises(ProjectError, match="there is no project file"):
        find_project_file(Path("a\0b"), cwd=tmp_path)


def test_a_file_outside_the_current_folder_is_named_as_given(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nx: 1\n")
    (tmp_path / "sub").mkdir()
    for given, shown in ((path, str(path)), (Path("../comfymodal.yaml"), "../comfymodal.yaml")):
        with pytest.raises(ProjectError) as caught:
            load_project(given, environ={}, cwd=tmp_path / "sub")
        assert caught.value.message == f"{shown}:2:1: x: unknown key"


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"^cannot read \.: is a directory$"):
        load_project(tmp_path, environ={}, cwd=tmp_path)
    with pytest.raises(ProjectError, match=r"^cannot read gone: no such file or directory$"):
        load_project(tmp_path / "gone", environ={}, cwd=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_one_message(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\n")
    path.chmod(stat.S_IWUSR)
    with pytest.raises(ProjectError, match=r"^cannot read comfymodal\.yaml: permission denied$"):
        load_project(path, environ={}, cwd=tmp_path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "#" * (1024 * 1024 + 1)).message.startswith("comfymodal.yaml: larger than 1 MiB")
