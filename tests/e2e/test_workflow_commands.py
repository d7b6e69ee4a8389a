"""`workflow show` and `workflow check` on the real engine: what they tell, and when they need one to run."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.catalog import fetch_engine_catalog, is_current, read_catalog
from comfymodal.comfyui.server import Launch
from tests.conftest import HELLO, WORKFLOWS, Cli, Done, stop_engines
from tests.doubles.fault_proxy import fault_proxy

MANY = WORKFLOWS / "many_problems.json"
NEEDS_TINY = WORKFLOWS / "tiny_txt2img.json"


def problems_of(done: Done, index: int = 0) -> list[dict[str, Any]]:
    found = done.json["data"]["workflows"][index]["problems"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("workflow", "code", "kinds"),
    [
        ("image", 0, []),
        ("tiny_txt2img", 0, []),
        ("unknown_node", 4, ["unknown_node"]),
        ("missing_model", 4, ["missing_model"]),
        ("load_image", 3, ["missing_file"]),
        ("load_audio", 3, ["missing_file"]),
        ("load_video", 3, ["missing_file"]),
        ("cycle", 3, ["cycle"]),
        ("no_output", 3, ["no_output"]),
        ("two_outputs_one_invalid", 3, ["out_of_range"]),
        ("ui_format", 3, ["unreadable"]),
    ],
)
def test_check_names_the_kind_of_problem_and_ends_with_its_code(
    cli: Cli, workflow: str, code: int, kinds: list[str]
) -> None:
    done = cli("workflow", "check", WORKFLOWS / f"{workflow}.json", "--json")

    assert done.code == code
    assert [problem["kind"] for problem in problems_of(done)] == kinds
    assert done.json["status"] == ("error" if code else "success")
    assert [error["code"] for error in done.json["errors"]] == kinds


def test_check_reports_everything_that_is_wrong_with_a_file(cli: Cli) -> None:
    done = cli("workflow", "check", MANY, "--json")

    assert done.code == 3
    assert {(problem["node_id"], problem["kind"], problem["is_warning"]) for problem in problems_of(done)} == {
        ("1", "missing_input", False),
        ("1", "out_of_range", False),
        ("1", "bad_type", False),
        ("2", "not_in_list", False),
        ("3", "missing_model", False),
        ("6", "unknown_input", True),
        ("7", "missing_file", False),
        ("8", "unknown_node", False),
        ("9", "bad_link", False),
        ("10", "cycle", False),
    }


@pytest.mark.parametrize("workflow", ["many_problems", "missing_model", "unknown_node", "no_output", "load_image"])
def test_render_refuses_exactly_what_check_finds(cli: Cli, workflow: str) -> None:
    path = WORKFLOWS / f"{workflow}.json"
    checked = cli("workflow", "check", path, "--json")
    rendered = cli("render", path, "--json")

    assert rendered.code == checked.code
    told = [problem for problem in problems_of(checked) if not problem["is_warning"]]
    assert rendered.error["problems"] == told


def test_check_for_people_is_a_line_and_a_hint_for_each_problem(cli: Cli) -> None:
    shutil.copy(WORKFLOWS / "two_outputs_one_invalid.json", cli.cwd / "bad.json")
    shutil.copy(WORKFLOWS / "missing_model.json", cli.cwd / "model.json")
    shutil.copy(WORKFLOWS / "image.json", cli.cwd / "good.json")
    done = cli("workflow", "check", "bad.json", "model.json", "good.json")

    checkpoints = cli.state / "volumes" / "comfy-models" / "checkpoints"
    assert done.code == 3
    assert done.stdout.splitlines() == [
        'bad.json: node 3 (EmptyImage) input "width" is 99999, but must be at least 1 and at most 16384',
        "bad.json (4 nodes): 1 problem",
        'model.json: node 1 (CheckpointLoaderSimple) input "ckpt_name" names the model "sd15.safetensors", '
        "which the engine does not have",
        f"  hint: it has: tiny.ckpt; it belongs at {checkpoints}/sd15.safetensors",
        "model.json (7 nodes): 1 problem",
        "good.json (3 nodes): ok",
    ]


@pytest.mark.parametrize(
    ("workflows", "code"),
    [
        (["image", "tiny_txt2img"], 0),
        (["image", "missing_model"], 4),
        (["missing_model", "unknown_node"], 4),
        (["missing_model", "cycle"], 3),
        (["ui_format", "missing_model"], 3),
    ],
)
def test_several_files_end_with_4_only_when_getting_what_is_missing_is_enough(
    cli: Cli, workflows: list[str], code: int
) -> None:
    done = cli("workflow", "check", *(WORKFLOWS / f"{name}.json" for name in workflows), "--json")

    assert done.code == code
    assert len(done.json["data"]["workflows"]) == len(workflows)


def test_every_set_that_does_not_fit_is_reported_beside_the_files_own_problems(cli: Cli) -> None:
    done = cli(
        "workflow",
        "check",
        WORKFLOWS / "two_outputs_one_invalid.json",
        *("--set", "Nobody.width=3", "--set", "Good.widht=3", "--set", "Good.height=tall", "--set", "Good.width=0"),
        "--json",
    )

    assert done.code == 3
    assert [problem["kind"] for problem in problems_of(done)] == [*["bad_override"] * 3, *["out_of_range"] * 2]


def test_set_can_cure_a_problem(cli: Cli) -> None:
    done = cli("workflow", "check", WORKFLOWS / "two_outputs_one_invalid.json", "--set", "Bad.width=64")

    assert done.code == 0


def test_json_of_check_has_these_keys(cli: Cli) -> None:
    data = cli("workflow", "check", WORKFLOWS / "cycle.json", "--json").json["data"]

    assert set(data) == {"engine", "workflows"}
    assert set(data["engine"]) == {"version", "device", "how", "freshness", "asked_at"}
    assert set(data["workflows"][0]) == {"workflow", "nodes", "problems", "exit_code"}
    assert set(data["workflows"][0]["problems"][0]) == {
        *("kind", "is_warning", "node_id", "title", "class_type", "input_name", "message", "hint")
    }


def test_a_model_in_another_folder_is_told(cli: Cli) -> None:
    done = cli("workflow", "check", WORKFLOWS / "lora_in_wrong_folder.json", "--json")

    (problem,) = problems_of(done)
    assert done.code == 4
    assert "tiny.ckpt is in checkpoints, which this input does not read" in problem["hint"]
    assert problem["hint"].endswith("volumes/comfy-models/loras/tiny.ckpt")


def test_what_was_asked_once_is_known_until_models_change(lonely_cli: Cli, tiny_checkpoint: Path) -> None:
    cli = lonely_cli
    checkpoints = cli.state / "volumes" / "comfy-models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    missing = cli("workflow", "check", NEEDS_TINY)
    shutil.copy(tiny_checkpoint, checkpoints)
    found = cli("workflow", "check", NEEDS_TINY)
    stop_engines(cli.state)

    # No engine is started from here on.
    known = cli("workflow", "check", NEEDS_TINY, "--json")
    offline = cli("workflow", "check", NEEDS_TINY, "--offline", "--json")
    shown = cli("workflow", "show", NEEDS_TINY)
    shutil.copy(tiny_checkpoint, checkpoints / "another.ckpt")
    outdated = cli("workflow", "check", NEEDS_TINY, "--offline", "--json")

    assert (missing.code, found.code) == (4, 0)
    assert (known.code, known.json["data"]["engine"]["freshness"]) == (0, "current")
    assert (offline.code, offline.json["warnings"]) == (0, [])
    assert "Checkpoint.ckpt_name\ttiny.ckpt\tone of 1: tiny.ckpt" in shown.stdout
    assert (outdated.code, outdated.json["data"]["engine"]["freshness"]) == (0, "outdated")
    assert "changed since the engine was asked" in outdated.json["warnings"][0]
    assert not list((cli.state / "engines").glob("*/engine.json"))


def test_a_server_that_does_not_answer_is_spoken_for_by_what_it_said_last(cli: Cli, engine_url: str) -> None:
    with fault_proxy(engine_url) as proxy:
        url = proxy.url
        asked = cli("workflow", "check", NEEDS_TINY, "--comfy-url", url, "--json")
    gone = cli("workflow", "check", NEEDS_TINY, "--comfy-url", url, "--json")
    never_asked = cli("workflow", "check", NEEDS_TINY, "--comfy-url", "http://127.0.0.1:1", "--json")

    assert (asked.code, asked.json["data"]["engine"]["freshness"]) == (0, "current")
    assert (gone.code, gone.json["data"]["engine"]["freshness"]) == (0, "unreachable")
    assert gone.json["warnings"] == ["the server does not answer; this is what it said less than a minute ago"]
    assert (never_asked.code, never_asked.error["code"]) == (4, "not_ready")


def test_check_without_an_engine_asks_before_it_installs_one(engineless_cli: Cli) -> None:
    done = engineless_cli("workflow", "check", NEEDS_TINY, "--json")
    offline = engineless_cli("workflow", "check", NEEDS_TINY, "--offline", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "--yes" in done.error["hint"]
    assert (offline.code, offline.error["code"]) == (4, "not_ready")
    assert "without --offline" in offline.error["hint"]


def test_an_unreadable_file_needs_no_engine(engineless_cli: Cli) -> None:
    done = engineless_cli("workflow", "check", WORKFLOWS / "ui_format.json")

    assert done.code == 3
    assert "is in UI format" in done.stdout


def test_show_without_an_engine_has_values_and_says_that_types_are_unknown(engineless_cli: Cli) -> None:
    done = engineless_cli("workflow", "show", WORKFLOWS / "image.json")

    assert done.code == 0
    assert "types, ranges and choices are unknown" in done.stderr
    assert done.stdout.splitlines()[0] == "1\tCanvas\tEmptyImage\tCanvas.width\t64\t"


def test_show_tells_programs_a_row_an_input(cli: Cli) -> None:
    cli("workflow", "check", HELLO)
    done = cli("workflow", "show", HELLO, "--set", "Mountains.seed=7")

    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.code == 0
    assert {len(row) for row in rows} == {6}
    assert len({row[0] for row in rows}) == 60
    assert rows[0] == ["1", "Night", "EmptyImage", "Night.width", "1", "INT 1..16384"]
    assert ["9", "Stars", "ImageAddNoise", "image", "<- 8 Star field", "IMAGE"] in rows
    assert [row[4] for row in rows if row[3] == "Mountains.seed"] == ["7"]


def test_show_fits_a_terminal_of_80_columns(cli: Cli) -> None:
    shutil.copy(HELLO, cli.cwd / "hello.json")
    cli("workflow", "check", "hello.json")
    lines = on_terminal(cli, "workflow", "show", "hello.json").splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[:7] == [
        "hello.json: 60 nodes; types from ComfyUI 0.3.75 (embedded)",
        "1  Night (EmptyImage)  -> 0 IMAGE",
        "   Night.width       1        INT 1..16384",
        "   Night.height      1        INT 1..16384",
        "   Night.batch_size  1        INT 1..4096",
        "   Night.color       1185872  INT 0..16777215",
        "2  Dusk (EmptyImage)  -> 0 IMAGE",
    ]


def test_show_of_one_node_has_all_its_choices(cli: Cli) -> None:
    cli("workflow", "check", NEEDS_TINY)
    done = cli("workflow", "show", NEEDS_TINY, "--node", "Sampler", "--json")
    unknown = cli("workflow", "show", NEEDS_TINY, "--node", "Sampeler")

    (node,) = done.json["data"]["nodes"]
    sampler = next(item for item in node["inputs"] if item["name"] == "sampler_name")
    assert len(sampler["choices"]) > 40
    assert unknown.code == 3
    assert "did you mean Sampler or KSampler?" in unknown.stderr


def test_json_of_show_has_these_keys(cli: Cli) -> None:
    cli("workflow", "check", NEEDS_TINY)
    data = cli("workflow", "show", NEEDS_TINY, "--json").json["data"]

    node = data["nodes"][4]
    assert set(data) == {"workflow", "sha256", "engine", "nodes", "changes"}
    assert set(node) == {"node_id", "title", "class_type", "is_known", "is_output", "inputs", "outputs"}
    assert node["outputs"] == [{"slot": 0, "name": "LATENT", "type": "LATENT"}]
    assert node["inputs"][0]["link"] == {"node_id": "1", "slot": 0, "title": "Checkpoint"}
    assert node["inputs"][2] == {
        "name": "steps",
        "value": 4,
        "link": None,
        "is_there": True,
        "set": "Sampler.steps",
        "type": "INT",
        "is_required": True,
        "default": 20,
        "min": 1,
        "max": 10000,
        "step": None,
        "choices": None,
    }


def test_an_engine_that_a_render_started_is_asked_when_it_is_idle(lonely_cli: Cli) -> None:
    lonely_cli("render", WORKFLOWS / "image.json")
    give_up_at = time.monotonic() + 30
    while not (kept := list((lonely_cli.state / "object-info").glob("*.json"))) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    shown = lonely_cli("workflow", "show", WORKFLOWS / "image.json", "--json")

    assert len(json.loads(kept[0].read_text())["object_info"]) > 400
    assert shown.json["data"]["engine"]["freshness"] == "current"


def test_an_engine_older_than_a_custom_node_is_asked_but_not_remembered(engine_url: str, tmp_path: Path) -> None:
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "new.py").touch()
    changed_at = (tmp_path / "custom_nodes" / "new.py").stat().st_mtime
    launch = Launch("comfyui-1", ("python", "main.py"), (), str(tmp_path), False, None, None, 60)
    file = tmp_path / "object-info" / "kept.json"

    asked = fetch_engine_catalog(engine_url, launch, tmp_path, file, started_at=changed_at - 1)
    was_kept = file.exists()
    fetch_engine_catalog(engine_url, launch, tmp_path, file, started_at=changed_at + 1)
    kept = read_catalog(file)

    assert len(asked.object_info) > 400
    assert not was_kept
    assert kept is not None
    assert kept.models["checkpoints"] == ["tiny.ckpt"]
    assert is_current(kept, launch, tmp_path)


def on_terminal(cli: Cli, *arguments: str) -> str:
    """Run a command with a terminal as its stdout; return what it printed."""
    reader, writer = pty.openpty()
    with subprocess.Popen(
        cli.argv(*arguments),
        cwd=cli.cwd,
        env=dict(cli.environ),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.DEVNULL,
    ):
        os.close(writer)
        parts = []
        try:
            while part := os.read(reader, 65536):
                parts.append(part)
        except OSError:
            pass  # Linux tells the end of a terminal so
        finally:
            os.close(reader)
    return b"".join(parts).decode().replace("\r\n", "\n")
