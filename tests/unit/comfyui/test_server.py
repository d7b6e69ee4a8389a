from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from comfymodal.comfyui.server import (
    LEGACY_MODEL_FOLDERS,
    MODEL_FOLDERS,
    Launch,
    answers,
    build_argv,
    free_port,
    last_lines,
    needs_cpu_flag,
    read_from,
    renew_lists,
    start,
    write_model_paths,
)
from tests.doubles.comfy_nonsense import ANSWERS, nonsense_server
from tests.doubles.comfy_server import ComfyServer, comfy_server


def section(models: Path, folder: Path) -> dict[str, Any]:
    """ComfyUI's view: `yaml.safe_load` of the file."""
    with write_model_paths(models, folder).open() as stream:
        document = yaml.safe_load(stream)
    assert list(document) == ["comfymodal"]
    found = document["comfymodal"]
    assert isinstance(found, dict)
    return found


def test_every_kind_of_model_is_looked_for_under_the_volume_first(tmp_path: Path) -> None:
    found = section(tmp_path / "models", tmp_path)
    assert found["base_path"] == str(tmp_path / "models")
    assert found["is_default"] is True
    assert set(found) == {*MODEL_FOLDERS, "base_path", "is_default"}
    assert all(found[name].split("\n")[0] == name for name in MODEL_FOLDERS)


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("text_encoders", ["text_encoders", "clip"]),
        ("diffusion_models", ["diffusion_models", "unet"]),
        ("controlnet", ["controlnet", "t2i_adapter"]),
    ],
)
def test_older_names_of_a_folder_are_read_too(name: str, folders: list[str], tmp_path: Path) -> None:
    models = tmp_path / "models"
    for folder in folders:
        (models / folder).mkdir(parents=True)
    found = section(models, tmp_path)
    assert found[name].split("\n") == folders
    assert not {name for names in LEGACY_MODEL_FOLDERS.values() for name in names} & set(found)


def test_mounts_are_looked_through_after_the_volume_in_their_order(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("models", "first", "second")]
    for place, folder in zip(places, ("loras", "ipadapter", "clip"), strict=True):
        (place / folder).mkdir(parents=True)
    with write_model_paths(places[0], tmp_path, places[1:]).open() as stream:
        document = yaml.safe_load(stream)

    assert [one["base_path"] for one in document.values()] == [*map(str, places), str(tmp_path / "fresh")]
    assert [one.pop("is_default", False) for one in document.values()] == [True, False, False, False]
    # A folder that one of them has is read in all of them.
    assert all(one["ipadapter"] == "ipadapter" for one in document.values())
    assert all(one["text_encoders"].split("\n") == ["text_encoders", "clip"] for one in document.values())


def test_a_list_is_made_anew_because_the_time_of_a_folder_changes(tmp_path: Path) -> None:
    renew_lists(tmp_path, ["loras"])
    loras = tmp_path / "fresh" / "loras"
    os.utime(loras, (1, 1))
    renew_lists(tmp_path, ["loras", "clip"])

    assert loras.stat().st_mtime > 1
    assert (tmp_path / "fresh" / "clip").is_dir()


ODD_NAMES = [
    *("ultralytics", "IP Adapter", "a: b", "# no comment", "- dash", "{brace}", "[list]", "it's", 'say "hi"', "a\\b"),
    *("true", "null", "1e3", "0x10", "2026-11-21", "~", "&anchor", "*alias", "%tag", "@at", "!tag", "|", "a\tb"),
    *("modèles", "模型", "😀😀x", "\x7fdel", "\x85next", "\u2028line", "back\\ud83d\\ude00", "\ufeffbom", "🏳️‍🌈"),
    b"not-\xff-unicode".decode(errors="surrogateescape"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse some of these names")
def test_a_folder_of_any_name_is_offered_under_its_name(tmp_path: Path) -> None:
    models = tmp_path / "mödels 😀 'x' #"
    for name in ODD_NAMES:
        (models / name).mkdir(parents=True)
    found = section(models, tmp_path)
    assert found["base_path"] == str(models)
    assert {name: found.get(name) for name in ODD_NAMES} == {name: name for name in ODD_NAMES}
    # The file itself is plain ASCII: ComfyUI opens it in whatever encoding the system has.
    assert (tmp_path / "extra_model_paths.yaml").read_bytes().isascii()


@pytest.mark.parametrize("name", ["custom_nodes", "base_path", "is_default", ".hidden", "clip", "unet"])
def test_folders_that_mean_something_else_are_no_kind_of_model(name: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / name).mkdir(parents=True)
    found = section(models, tmp_path)
    assert set(found) == {*MODEL_FOLDERS, "base_path", "is_default"}
    assert (found["base_path"], found["is_default"]) == (str(models), True)


def test_files_beside_the_model_folders_are_no_kind_of_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "README.md").write_text("x")
    assert "README.md" not in section(tmp_path / "models", tmp_path)


def launch(**more: Any) -> Launch:
    given: dict[str, Any] = {
        "name": "comfyui-1",
        "argv": ("/venv/bin/python", "/comfy/main.py"),
        "arguments": ("--lowvram",),
        "cwd": "/comfy",
        "probes_device": False,
        "models": None,
        "idle_stop_s": None,
        "boot_timeout_s": 60.0,
    }
    return Launch(**{**given, **more})


def test_the_command_line_keeps_everything_in_the_engines_folder(tmp_path: Path) -> None:
    argv = build_argv(launch(arguments=("--front-end-root", "{folder}/web", "--lowvram")), folder=tmp_path, port=8199)
    assert argv == [
        *("/venv/bin/python", "/comfy/main.py", "--listen", "127.0.0.1", "--port", "8199"),
        *("--output-directory", str(tmp_path / "output"), "--temp-directory", str(tmp_path)),
        *("--max-upload-size", "16384", "--dont-print-server"),
        *("--front-end-root", str(tmp_path / "web"), "--lowvram"),
    ]
    assert list((tmp_path / "web").iterdir()) == []


def test_the_models_volume_is_named_on_the_command_line(tmp_path: Path) -> None:
    argv = build_argv(launch(models=str(tmp_path / "models")), folder=tmp_path, port=1)
    named = argv[argv.index("--extra-model-paths-config") + 1]
    assert yaml.safe_load(Path(named).read_text())["comfymodal"]["base_path"] == str(tmp_path / "models")


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "is_needed"),
    [
        pytest.param("echo False", True, id="no accelerator"),
        pytest.param("echo True", False, id="an accelerator"),
        pytest.param("echo warning; echo False", True, id="words before"),
        pytest.param("echo 'No module named torch' >&2; exit 1", False, id="no torch"),
        pytest.param("true", False, id="no answer"),
        pytest.param("printf '\\377\\376'", False, id="bytes"),
    ],
)
def test_cpu_is_asked_for_only_when_torch_says_so(text: str, is_needed: bool, tmp_path: Path) -> None:
    python = script(tmp_path, text)
    assert needs_cpu_flag(python) is is_needed
    argv = build_argv(launch(argv=(python, "main.py"), probes_device=True), folder=tmp_path, port=1)
    assert ("--cpu" in argv) is is_needed


def test_a_python_that_is_not_there_needs_no_flag() -> None:
    assert needs_cpu_flag("/no/such/python") is False


def test_a_launch_survives_its_file() -> None:
    import json

    given = launch(models="/m", idle_stop_s=1.5, mounts=("/a", "/b"))
    assert Launch.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    # One that an earlier release wrote.
    older = {key: value for key, value in launch().to_dict().items() if key != "mounts"}
    assert Launch.from_dict(json.loads(json.dumps(older))) == launch()


def test_a_started_process_writes_into_the_log_and_sees_no_foreign_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/foreign")
    monkeypatch.setenv("VIRTUAL_ENV", "/foreign")
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    script_text = "import os, sys; print(os.environ.get('PYTHONPATH'), os.environ.get('VIRTUAL_ENV'), os.getcwd())"
    started = start([sys.executable, "-c", script_text + "; sys.exit('bad')"], cwd=str(tmp_path), log=log)
    assert started.wait(30) == 1
    assert log.read_text() == f"before\nNone None {tmp_path.resolve()}\nbad\n"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        pytest.param(b"plain\n", "plain\n", id="plain"),
        pytest.param(b"\x1b[32mgreen\x1b[0m \x1b[1;31mred\x1b[m\x1b[K", "green red", id="colours"),
        pytest.param(b"a\r\nb\r\n", "a\nb\n", id="Windows"),
        pytest.param(b" 0%|\r 50%|\r100%|\n", " 0%|\n 50%|\n100%|\n", id="a progress bar"),
        pytest.param(b"\x1b[A\x1b[2Kup", "up", id="cursor"),
        pytest.param(b"\xff\xfe bytes", "\ufffd\ufffd bytes", id="no UTF-8"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_a_log_is_read_as_a_person_would(written: bytes, text: str, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(written)
    assert read_from(log, 0) == text


def test_a_log_is_read_from_a_position_on(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"eins zwei")
    assert (read_from(log, 5), read_from(log, 100), read_from(tmp_path / "none", 0)) == ("zwei", "", "")


def test_the_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number}\n\n  \n" for number in range(20_000)))
    assert last_lines(log, count=3) == "line 19997\nline 19998\nline 19999"
    assert last_lines(tmp_path / "none") == ""


def test_a_comfyui_answers() -> None:
    with comfy_server(ComfyServer()) as served:
        assert answers(served.url, timeout_s=5)


@pytest.mark.parametrize("answer", [*(name for name in ANSWERS if name != "drip"), None])
def test_nothing_else_answers(answer: str | None) -> None:
    if answer is None:
        assert not answers(f"http://127.0.0.1:{free_port()}", timeout_s=1)
        return
    with nonsense_server(answer) as served:
        assert not answers(served.url, timeout_s=0.2)


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    argv = [sys.executable, "-c", f"import socket; socket.create_server(('127.0.0.1', {port}))"]
    assert subprocess.run(argv, check=False, env=dict(os.environ)).returncode == 0
