from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotFoundError, ProjectError
from comfymodal.operations.config import ConfigRow, config_schema, show_config, validate_config
from comfymodal.project.load import load_project
from comfymodal.project.schema import Project, leaves, sections


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema["$defs"].values()]


def test_the_json_schema_is_closed_and_describes_every_key() -> None:
    schema = config_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:comfymodal:project:1"
    assert schema["title"] == "comfymodal project file"
    assert schema["required"] == ["version"]
    for part in objects(schema):
        assert part["additionalProperties"] is False
        for name, field in part["properties"].items():
            assert field["description"], name
            assert "title" not in field


def test_defaults_in_the_json_schema_are_those_of_the_code() -> None:
    comfyui = config_schema()["$defs"]["ComfyUI"]["properties"]
    shown = Project(version=1).comfyui.model_dump(mode="json")
    assert {name: field["default"] for name, field in comfyui.items()} == shown
    assert (shown["idle_stop"], shown["boot_timeout"]) == ("15m", "10m")


@pytest.mark.parametrize(
    ("text", "fits"), [("15m", True), ("1h30m", True), ("", False), ("15", False), ("1m1h", False)]
)
def test_durations_in_the_json_schema_have_a_pattern(text: str, fits: bool) -> None:
    forms = config_schema()["$defs"]["ComfyUI"]["properties"]["idle_stop"]["anyOf"]
    assert bool(re.search(forms[0]["pattern"], text)) is fits
    assert {"const": "never"} in forms


def test_places_and_keys_come_from_the_models() -> None:
    assert list(sections()) == [
        *("", "volumes", "volumes.models", "volumes.inputs", "volumes.outputs", "comfyui", "render")
    ]
    kinds = leaves()
    assert kinds["version"] == kinds["comfyui.idle_stop"] == kinds["comfyui.discover"] == "scalar"
    texts = ("project", "target", "comfyui.url", "comfyui.version", "render.naming")
    assert {kinds[key] for key in texts} == {"text"}
    assert kinds["comfyui.python"] == kinds["render.output_dir"] == "path"
    assert kinds["comfyui.args"] == "list"


def test_config_show_lists_every_setting_as_json_with_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_text("version: 1\ncomfyui: {idle_stop: 5400, boot_timeout: 1m}\n")
    shown = show_config(load_project(path, environ={"COMFYMODAL_COMFYUI_ARGS": "-a -b"}, cwd=tmp_path))
    assert [row.key for row in shown.rows] == list(leaves())
    assert shown.path == str(path)
    rows = {row.key: row for row in shown.rows}
    line = "file comfymodal.yaml:2"
    assert rows["comfyui.idle_stop"] == ConfigRow("comfyui.idle_stop", "1h30m", line, "run")
    assert rows["comfyui.boot_timeout"].value == "1m"
    assert rows["comfyui.args"].value == ["-a", "-b"]
    assert rows["comfyui.args"].origin == "environment COMFYMODAL_COMFYUI_ARGS"
    assert rows["render.output_dir"] == ConfigRow("render.output_dir", str(tmp_path / "outputs"), "default", "run")
    never = load_project(None, environ={"COMFYMODAL_COMFYUI_IDLE_STOP": "never"}, cwd=tmp_path)
    assert {row.key: row.value for row in show_config(never).rows}["comfyui.idle_stop"] == "never"


def test_config_validate_checks_the_file_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_text("version: 1\nproject: Bad\n")
    with pytest.raises(ProjectError, match="2:10: project"):
        validate_config(None, environ={"COMFYMODAL_PROJECT": "good"}, cwd=tmp_path)
    path.write_text("version: 1\nproject: good\n")
    validated = validate_config(None, environ={}, cwd=tmp_path)
    assert (validated.path, validated.project, validated.warnings) == (str(path), "good", ())
    with pytest.raises(ProjectError, match="COMFYMODAL_PROJECT"):
        validate_config(None, environ={"COMFYMODAL_PROJECT": "Bad"}, cwd=tmp_path)


def test_config_validate_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no comfymodal"):
        validate_config(None, environ={}, cwd=tmp_path)
