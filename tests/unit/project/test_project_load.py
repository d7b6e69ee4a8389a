from __future__ import annotations

import os
import stat
from collections.abc import Mapping
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
    assert settings.comfyui.model_dump() == {
        **{"url": None, "path": None, "python": None, "args": (), "discover": True},
        **{"version": None, "idle_stop": 900.0, "boot_timeout": 600.0},
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
