from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotFoundError, ProjectError
from comfymodal.operations.config import ConfigRow, config_schema, show_config, validate_config
from comfymodal.project.keys import leaves, sections
from comfymodal.project.load import load_project
from comfymodal.project.schema import AS_WRITTEN, DEPLOYED, LOCAL_ONLY, MODAL_ONLY, Project


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
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}
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
        *("", "modal", "volumes", "volumes.models", "volumes.inputs", "volumes.outputs", "volumes.datasets"),
        *("volumes.training", "volumes.cache", "remotes.*", "sync.*", "mounts.*", "comfyui", "render", "training"),
        *("costs", "costs.tags.*", "costs.rentals.*", "notify.*"),
    ]
    assert sections()["sync.*"] == ("from", "to", "include", "exclude", "two_way")
    assert not [key for key in leaves() if key.startswith(("remotes", "sync", "mounts", "costs.tags", "notify"))]
    some = leaves({"remotes": ["b2"], "sync": ["a", "b"]})
    assert (some["remotes.b2.bucket"], some["sync.b.from"], some["sync.a.include"]) == ("text", "text", "list")
    assert some["sync.a.two_way"] == "scalar"
    assert "costs.rentals" not in leaves()
    rented = leaves({"costs.rentals": ["vast"]})
    assert (rented["costs.rentals.vast.usd_per_hour"], rented["costs.rentals.vast.speed"]) == ("text", "scalar")
    kinds = leaves()
    assert kinds["version"] == kinds["comfyui.idle_stop"] == kinds["comfyui.discover"] == "scalar"
    texts = ("project", "target", "comfyui.url", "comfyui.version", "render.naming")
    assert {kinds[key] for key in texts} == {"text"}
    assert kinds["comfyui.python"] == kinds["render.output_dir"] == "path"
    assert kinds["comfyui.args"] == kinds["comfyui.gpu"] == kinds["comfyui.custom_nodes"] == "list"
    assert kinds["comfyui.env"] == "mapping"
    assert kinds["costs.per_run_usd"] == kinds["comfyui.snapshot"] == kinds["modal.workspace"] == "text"
    assert kinds["comfyui.max_containers"] == kinds["volumes.models.version"] == "scalar"


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


def test_config_show_says_when_a_change_takes_effect(tmp_path: Path) -> None:
    def read_at(target: str) -> dict[str, str]:
        loaded = load_project(None, environ={"COMFYMODAL_TARGET": target}, cwd=tmp_path)
        return {row.key: row.read_at for row in show_config(loaded).rows}

    local, modal = read_at("local"), read_at("modal")
    assert set(local.values()) == {"run", ""}
    for keys, here, there in (
        (("comfyui.gpu", "comfyui.env", "comfyui.timeout", "volumes.models.version"), "", "deploy"),
        (("comfyui.version", "comfyui.args", "comfyui.boot_timeout", "volumes.models.name"), "run", "deploy"),
        (("comfyui.url", "comfyui.idle_stop", "volumes.models.path"), "run", ""),
        (("modal.environment", "costs.per_run_usd"), "", "run"),
        (("target", "project", "comfyui.stall_timeout", "render.output_dir"), "run", "run"),
    ):
        assert {key: (local[key], modal[key]) for key in keys} == dict.fromkeys(keys, (here, there))


def test_tables_of_keys_name_keys_there_are() -> None:
    every = leaves({place: ["*"] for place in ("remotes", "sync", "mounts", "costs.tags", "costs.rentals")})
    assert {*DEPLOYED, *LOCAL_ONLY, *MODAL_ONLY, *AS_WRITTEN} <= set(every)
    assert not LOCAL_ONLY & (DEPLOYED | MODAL_ONLY)


def test_config_show_lists_modals_settings_as_json(tmp_path: Path) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_text("version: 1\ncomfyui: {gpu: h100:2, env: {A: 1}, timeout: 90m}\ncosts: {per_run_usd: 2.50}\n")
    values = {row.key: row.value for row in show_config(load_project(path, environ={}, cwd=tmp_path)).rows}
    assert json.loads(json.dumps(values)) == values
    assert (values["comfyui.gpu"], values["comfyui.env"], values["comfyui.timeout"]) == (
        ["H100:2"],
        {"A": "1"},
        "1h30m",
    )
    assert values["costs.per_run_usd"] == "2.50"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        *(("a-b@1.0.2", True), (f"https://h/a@{'0a' * 20}", True), ("a", False), ("A@1", False)),
        *(("https://h/a@main", False), ("a@latest", False), (f"http://h/a@{'0a' * 20}", False)),
    ],
)
def test_the_json_schema_knows_pinned_nodes(text: str, fits: bool) -> None:
    items = config_schema()["$defs"]["ComfyUI"]["properties"]["custom_nodes"]["items"]
    assert bool(re.search(items["pattern"], text)) is fits


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
