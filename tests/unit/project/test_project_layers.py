from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ProjectError
from comfymodal.project.layers import variables
from comfymodal.project.load import LoadedProject, load_project


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


FILE = "version: 1\nproject: from-file\ncomfyui:\n  idle_stop: 1m\n"


@pytest.mark.parametrize(
    ("text", "environ", "flags", "value", "origin"),
    [
        ("version: 1\n", {}, {}, "default", "default"),
        (FILE, {}, {}, "from-file", "file comfymodal.yaml:2"),
        (FILE, {"COMFYMODAL_PROJECT": "from-env"}, {}, "from-env", "environment COMFYMODAL_PROJECT"),
        (FILE, {"COMFYMODAL_PROJECT": "from-env"}, {"project": "from-flag"}, "from-flag", "flag"),
        (FILE, {}, {"project": "from-flag"}, "from-flag", "flag"),
        (FILE, {"COMFYMODAL_PROJECT": ""}, {"project": None}, "from-file", "file comfymodal.yaml:2"),
    ],
    ids=["default", "file", "environment", "flag over all", "flag over file", "empty and None are not given"],
)
def test_flag_over_environment_over_file_over_default(
    tmp_path: Path, text: str, environ: dict[str, str], flags: dict[str, Any], value: str, origin: str
) -> None:
    loaded = load(tmp_path, text, environ=environ, flags=flags)
    assert (loaded.settings.project, loaded.origins["project"]) == (value, origin)


def test_one_key_of_a_section_leaves_the_others(tmp_path: Path) -> None:
    loaded = load(tmp_path, FILE, environ={"COMFYMODAL_COMFYUI_DISCOVER": "false"})
    assert (loaded.settings.comfyui.idle_stop, loaded.settings.comfyui.discover) == (60.0, False)
    assert loaded.origins["comfyui.idle_stop"] == "file comfymodal.yaml:4"
    assert loaded.origins["comfyui.discover"] == "environment COMFYMODAL_COMFYUI_DISCOVER"
    assert loaded.origins["comfyui.boot_timeout"] == "default"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("COMFYMODAL_COMFYUI_URL", "http://a:1/", "http://a:1"),
        ("COMFYMODAL_COMFYUI_URL", "null", None),
        ("COMFYMODAL_COMFYUI_IDLE_STOP", "90", 90.0),
        ("COMFYMODAL_COMFYUI_IDLE_STOP", "15m", 900.0),
        ("COMFYMODAL_COMFYUI_IDLE_STOP", "never", None),
        ("COMFYMODAL_COMFYUI_DISCOVER", "false", False),
        ("COMFYMODAL_COMFYUI_ARGS", "--a 'b c' 8190", ("--a", "b c", "8190")),
        ("COMFYMODAL_COMFYUI_ARGS", '["--a", b c]', ("--a", "b c")),
        ("COMFYMODAL_COMFYUI_ARGS", "[]", ()),
        ("COMFYMODAL_RENDER_NAMING", "{stem}{ext}", "{stem}{ext}"),
        ("COMFYMODAL_PROJECT", "010", "010"),
        ("COMFYMODAL_VOLUMES_INPUTS_NAME", "true", "true"),
        ("COMFYMODAL_COMFYUI_PATH", "~", Path(os.path.expanduser("~"))),
        ("COMFYMODAL_TARGET", "modal", "modal"),
        ("COMFYMODAL_MODAL_ENVIRONMENT", "dev", "dev"),
        ("COMFYMODAL_VOLUMES_MODELS_VERSION", "1", 1),
        ("COMFYMODAL_COMFYUI_GPU", "l40s a100-80gb", ("L40S", "A100-80GB")),
        ("COMFYMODAL_COMFYUI_CUSTOM_NODES", "a@1.0 b@2", ("a@1.0", "b@2")),
        ("COMFYMODAL_COMFYUI_PYTHON_PACKAGES", "['x == 1', y==2]", ("x == 1", "y==2")),
        (
            "COMFYMODAL_COMFYUI_ENV",
            "{A: 12.10, B: 'x y', C: TRUE, D: 0x10}",
            {"A": "12.10", "B": "x y", "C": "TRUE", "D": "0x10"},
        ),
        ("COMFYMODAL_COMFYUI_ENV", "{}", {}),
        ("COMFYMODAL_COMFYUI_SECRETS", "hf-credentials", ("hf-credentials",)),
        ("COMFYMODAL_COMFYUI_SNAPSHOT", "off", "off"),
        ("COMFYMODAL_COMFYUI_MAX_CONTAINERS", "10", 10),
        ("COMFYMODAL_COMFYUI_TIMEOUT", "2h", 7200.0),
        ("COMFYMODAL_COMFYUI_STALL_TIMEOUT", "never", None),
        ("COMFYMODAL_COSTS_PER_RUN_USD", "2.50", Decimal("2.50")),
        ("COMFYMODAL_COSTS_PER_RUN_USD", "null", None),
    ],
)
def test_env_vars_are_read_by_the_kind_of_their_key(tmp_path: Path, variable: str, text: str, value: object) -> None:
    loaded = load(tmp_path, "version: 1\n", environ={variable: text})
    key = variables()[variable]
    found: Any = loaded.settings
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert loaded.origins[key] == f"environment {variable}"


def test_paths_from_env_vars_and_flags_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "version: 1\n")
    environ = {"COMFYMODAL_COMFYUI_PATH": "ComfyUI"}
    loaded = load_project(path, environ=environ, flags={"render.output_dir": Path("out")}, cwd=tmp_path)
    assert loaded.settings.comfyui.path == tmp_path / "ComfyUI"
    assert loaded.settings.render.output_dir == tmp_path / "out"


def test_every_key_but_version_has_its_own_env_var() -> None:
    assert len(set(variables().values())) == len(variables()) == 59
    assert "COMFYMODAL_VERSION" not in variables()


def test_misspelt_env_vars_are_warned_about(tmp_path: Path) -> None:
    environ = {
        "COMFYMODAL_COMFYUI_URI": "http://a",
        "COMFYMODAL_STATE_DIR": "/s",
        "COMFYMODAL_DATA_DIR": "/d",
        "COMFYMODAL_CONFIG": "c",
        "COMFYMODAL_SOMETHING_ELSE": "x",
        "COMFYUI_PATH": "/c",
    }
    warning = "COMFYMODAL_COMFYUI_URI is not a setting; did you mean COMFYMODAL_COMFYUI_URL"
    assert load(tmp_path, "version: 1\n", environ=environ).warnings == (warning,)


def test_mistakes_in_env_vars_and_flags_name_them(tmp_path: Path) -> None:
    environ = {"COMFYMODAL_COMFYUI_DISCOVER": "maybe", "COMFYMODAL_COMFYUI_ARGS": "'x"}
    flags = {"project": "A B", "render.namin": "x"}
    error = refusal(tmp_path, "version: 1\ntraning: {}\n", environ=environ, flags=flags)
    assert error.message == "comfymodal.yaml:2:1: traning: unknown key (and 4 more)"
    shown = {(one["variable"] or one["is_flag"], one["key"], one["message"]) for one in error.details["problems"][1:]}
    assert shown == {
        ("COMFYMODAL_COMFYUI_DISCOVER", "comfyui.discover", 'must be true or false, not "maybe"'),
        ("COMFYMODAL_COMFYUI_ARGS", "comfyui.args", "cannot be split into words: no closing quotation"),
        (True, "project", "must be 1 to 40 lower-case letters, digits and dashes, no dash first"),
        (True, "render.namin", "unknown key"),
    }


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"COMFYMODAL_COMFYUI_URL": "x"},
            "COMFYMODAL_COMFYUI_URL: comfyui.url: must be an http:// or https:// address",
        ),
        (
            {"COMFYMODAL_COMFYUI_ENV": "A=1"},
            "COMFYMODAL_COMFYUI_ENV: comfyui.env: must be a mapping in braces, for example {NAME: value}",
        ),
        ({"COMFYMODAL_COMFYUI_ENV": "{A: 1"}, "COMFYMODAL_COMFYUI_ENV: not valid YAML: "),
        (
            {"COMFYMODAL_COMFYUI_ENV": "{API_KEY: 1}"},
            "COMFYMODAL_COMFYUI_ENV: comfyui.env.API_KEY: looks like a secret; secrets are names, never values",
        ),
        ({"COMFYMODAL_COMFYUI_GPU": "L40S L41S"}, "COMFYMODAL_COMFYUI_GPU: comfyui.gpu[1]: L41S is not a GPU of Modal"),
        ({"COMFYMODAL_COMFYUI_ARGS": "[a"}, "COMFYMODAL_COMFYUI_ARGS: not valid YAML: "),
        ({"COMFYMODAL_COMFYUI_ARGS": "[5]"}, "COMFYMODAL_COMFYUI_ARGS: comfyui.args[0]: must be text, not 5"),
        ({"COMFYMODAL_COMFYUI_PATH": "a\udcffb"}, "COMFYMODAL_COMFYUI_PATH: comfyui.path: is not UTF-8 text"),
    ],
)
def test_an_env_var_stands_where_file_line_and_column_would(
    tmp_path: Path, environ: dict[str, str], message: str
) -> None:
    assert refusal(tmp_path, "version: 1\n", environ=environ).message.startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("comfyui.gpu", "h100:2", ("H100:2",)),
        ("comfyui.gpu", ["h100", "l40s"], ("H100", "L40S")),
        ("comfyui.env", {"A": 0.1, "B": True, "C": "x"}, {"A": "0.1", "B": "true", "C": "x"}),
        ("comfyui.max_containers", 7, 7),
        ("costs.per_run_usd", Decimal("0.10"), Decimal("0.10")),
        ("costs.per_run_usd", "0.10", Decimal("0.10")),
        ("target", "modal", "modal"),
    ],
)
def test_flags_set_what_the_file_can(tmp_path: Path, key: str, value: object, found: object) -> None:
    loaded = load(tmp_path, "version: 1\ncomfyui: {gpu: T4, env: {Z: 1}}\n", flags={key: value})
    at: Any = loaded.settings
    for name in key.split("."):
        at = getattr(at, name)
    assert (at, loaded.origins[key]) == (found, "flag")


def test_a_mistake_in_a_flag_names_its_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, "version: 1\n", flags={"comfyui.gpu": "L40"})
    assert error.message.startswith("flag: comfyui.gpu: L40 is not a GPU of Modal")
    error = refusal(tmp_path, "version: 1\n", flags={"comfyui.env": {"HF_TOKEN": "x"}})
    assert error.message == "flag: comfyui.env.HF_TOKEN: looks like a secret; secrets are names, never values"
