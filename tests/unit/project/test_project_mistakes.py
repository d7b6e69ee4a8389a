from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ProjectError
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


V = "version: 1\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (V + "comfyui:\n  idle_stopp: 1m\n", "3:3: comfyui.idle_stopp: unknown key", "did you mean `idle_stop`"),
        (V + "output_dir: x\n", "2:1: output_dir: unknown key", "`output_dir` belongs under `render`"),
        (V + "render: {target: x}\n", "2:10: render.target: unknown key", "`target` belongs at the top of the file"),
        (V + "idle_stopp: 3\n", "2:1: idle_stopp: unknown key", "did you mean `comfyui.idle_stop`"),
        (V + "render: {zz: 3}\n", "2:10: render.zz: unknown key", "keys here: output_dir, naming"),
        (V + "<<: {a: b}\n", "2:1: <<: unknown key", "keys here: version, project, target, volumes, comfyui, render"),
        (V + "project: Bad\n", "2:10: project: must be 1 to 40 lower-case letters, digits and dashes, no dash "
         "first", None),
        (V + "project: 010\n", "2:10: project: must be text, not 10", "put quotes around it"),
        (V + "target: modal\n", "2:9: target: must be 'local', not \"modal\"", None),
        (V + "volumes:\n  models: {name: -x}\n", "3:18: volumes.models.name: must be 1 to 64 letters, digits, dots, "
         "dashes and underscores", None),
        (V + "comfyui:\n", "2:9: comfyui: has no keys", "write its keys below it, indented, or remove the line"),
        (V + "comfyui: 5\n", "2:10: comfyui: must be a mapping of keys, not 5", None),
        (V + "comfyui:\n  args: --cpu\n", '3:9: comfyui.args: must be a list, not "--cpu"', None),
        (V + "comfyui:\n  args:\n  - --port\n  - 8190\n", "5:5: comfyui.args[1]: must be text, not 8190",
         "put quotes around it"),
        (V + "comfyui: {discover: yes}\n", '2:21: comfyui.discover: must be true or false, not "yes"',
         "yes, no, on and off are plain text here"),
        (V + "comfyui: {idle_stop: 1 hour}\n", "2:22: comfyui.idle_stop: must be a duration: 90s, 15m, 2h, 1d, 1h30m "
         "or a number of seconds", None),
        (V + "comfyui: {boot_timeout: never}\n", "2:25: comfyui.boot_timeout: must be a duration: 90s, 15m, 2h, 1d, "
         "1h30m or a number of seconds", None),
        (V + "comfyui: {version: 0.4}\n", "2:20: comfyui.version: must be text, not 0.4", "put quotes around it"),
        (V + "comfyui: {version: latest}\n", "2:20: comfyui.version: must be a version of ComfyUI, for example 0.3.75",
         None),
        (V + "comfyui: {url: localhost:8188}\n", "2:16: comfyui.url: must be an http:// or https:// address with a "
         "host, for example http://127.0.0.1:8188", None),
        (V + "comfyui: {url: 'http://me:pw@h'}\n", "2:16: comfyui.url: must not contain a user name or password: "
         "secrets are names, never values", None),
        (V + "comfyui: {url: 'http://h/?a=1'}\n", "2:16: comfyui.url: must be the base address without ? or #, for "
         "example http://127.0.0.1:8188", None),
        (V + "render:\n  naming: '{foo}'\n", "3:11: render.naming: has no field {foo}; fields: run_id, prompt, "
         "node_id, title, class_type, index, stem, ext, seed, workflow", None),
        (V + "render: {output_dir: ~}\n", "2:22: render.output_dir: must be a path; put quotes around it", None),
        (V + "render: {output_dir: ''}\n", "2:22: render.output_dir: must be a path", None),
        (V + "project: a\nproject: b\n", "3:1: project: duplicate key, first at line 2, column 1",
         "keep one of the two"),
        (V + "\tproject: a\n", "2:1: not valid YAML: found character '\\t' that cannot start any token",
         "indent with spaces; YAML refuses tabs"),
        (V + "---\nversion: 1\n", "2:1: a second document starts here",
         "a project file is one YAML document; remove `---`"),
        ("project: x\n", "1:1: version: is missing", "start the file with `version: 1`"),
        ("version: 2\nnew: 1\n", "1:10: version: 2 is made for a newer comfymodal; this one reads version 1",
         "update comfymodal"),
        ("version: 0\n", "1:10: version: must be 1, not 0", None),
        ("version: '1'\n", "1:10: version: must be the number 1, without quotes", None),
        ("version: true\n", "1:10: version: must be the number 1, without quotes", None),
        ("version: 1.0\n", "1:10: version: must be the number 1, without quotes", None),
        ("- a\n", "1:1: must be a mapping of keys", "start with `version: 1`"),
        (b"version: 1\nproject: \xff\n", "2:10: not UTF-8 text", "save the file as UTF-8"),
        ("version: 1\n".encode("utf-16"), "1:1: not UTF-8 text", "save the file as UTF-8"),
        (V + 'project: "\\ud800"\n', "2:10: project: is not UTF-8 text", None),
    ],
    ids=lambda value: value[-40:].encode("unicode_escape").decode() if isinstance(value, str) else None,
)  # fmt: skip
def test_a_mistake_has_its_place_and_a_hint(tmp_path: Path, text: str | bytes, message: str, hint: str | None) -> None:
    error = refusal(tmp_path, text)
    assert (error.message, error.hint) == (f"comfymodal.yaml:{message}", hint)
    (problem,) = error.details["problems"]
    assert f"{problem['file']}:{problem['line']}:{problem['column']}:" in error.message
    assert problem["hint"] == hint


@pytest.mark.parametrize("text", ["", "\n# a comment\n", "---\n"])
def test_an_empty_file_says_how_to_start(tmp_path: Path, text: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.message, error.hint) == ("comfymodal.yaml: the file is empty", "start with `version: 1`")


def test_every_mistake_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "version: 1\nrender: {x: 1}\nproject: A\ncomfyui:\n  args: 5\n  url: ftp://h\n"
    error = refusal(tmp_path, text)
    assert error.message == "comfymodal.yaml:2:10: render.x: unknown key (and 3 more)"
    assert [(one["line"], one["key"]) for one in error.details["problems"]] == [
        *((2, "render.x"), (3, "project"), (5, "comfyui.args"), (6, "comfyui.url"))
    ]
    assert set(error.details["problems"][0]) == {
        "file",
        "line",
        "column",
        "variable",
        "is_flag",
        "key",
        "message",
        "hint",
    }


# Put together here, so that no scanner takes this file for a leak.
SECRETS = ["ak-" + "a1B2" * 6, "as-" + "a1B2" * 6, "hf_" + "aBcD" * 8, "AKIA" + "ABCD" * 4, "K004" + "a1B/" * 6 + "abc"]


@pytest.mark.parametrize("secret", SECRETS, ids=["modal id", "modal secret", "hugging face", "aws", "b2"])
@pytest.mark.parametrize(
    "template",
    ["project: {}\n", "comfyui: {{args: [--token, {}]}}\n", "comfyui: {{url: 'http://h/{}'}}\n", "{}: 1\n", "k: {}\n"],
)
def test_secrets_are_refused_and_never_repeated(tmp_path: Path, secret: str, template: str) -> None:
    error = refusal(tmp_path, V + template.format(secret))
    assert secret not in str(error.to_dict())
    if not template.startswith("{}"):
        assert "secrets are names, never values" in str(error.to_dict())


def test_a_secret_in_an_env_var_is_refused_too(tmp_path: Path) -> None:
    error = refusal(tmp_path, V, environ={"COMFYMODAL_COMFYUI_ARGS": f"--token {SECRETS[2]}"})
    assert error.message.startswith("COMFYMODAL_COMFYUI_ARGS: comfyui.args[1]: looks like a token or key")
