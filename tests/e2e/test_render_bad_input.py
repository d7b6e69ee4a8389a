"""A bad input ends with one message, a hint and its exit code; nothing is started and nothing is left behind."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import WORKFLOWS, Cli

UI_FORMAT = WORKFLOWS / "ui_format.json"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param('{"1": ', "broken JSON", id="broken-json"),
        pytest.param("", "is empty", id="empty"),
        pytest.param("[1, 2]", "list", id="no-object"),
        pytest.param(UI_FORMAT.read_text(), "UI format", id="ui-format"),
        pytest.param('{"1": {"inputs": {}}}', "class_type", id="no-class"),
    ],
)
def test_unusable_workflow_is_refused_before_an_engine_is_looked_for(
    engineless_cli: Cli, content: str, says: str
) -> None:
    (engineless_cli.cwd / "w.json").write_text(content)
    done = engineless_cli("render", "w.json", "--json")

    assert (done.code, done.error["code"]) == (3, "workflow_invalid")
    assert says in done.error["message"]
    assert_nothing_left(engineless_cli)


def test_directory_and_missing_file_are_refused(engineless_cli: Cli) -> None:
    directory = engineless_cli("render", ".")
    missing = engineless_cli("render", "nope.json")

    assert (directory.code, missing.code) == (3, 3)
    assert "is a directory" in directory.stderr
    assert "no workflow file nope.json" in missing.stderr


@pytest.mark.parametrize(
    ("workflow", "arguments", "code", "says"),
    [
        pytest.param("unknown_node", [], 4, "NoSuchNode", id="unknown-node"),
        pytest.param("missing_model", [], 4, 'the model "sd15.safetensors"', id="missing-model"),
        pytest.param("load_image", [], 3, 'the file "missing.png"', id="missing-input-file"),
        pytest.param("cycle", [], 3, "feeds itself", id="cycle"),
        pytest.param("two_outputs_one_invalid", [], 3, "is 99999", id="one-output-invalid"),
        pytest.param("image", ["--set", "Canvs.width=3"], 3, 'no node "Canvs"', id="set-unknown-node"),
        pytest.param("image", ["--set", "Canvas.widht=3"], 3, 'no input "widht"', id="set-unknown-input"),
        pytest.param("image", ["--set", "Canvas.width=abc"], 3, "takes a whole number", id="set-wrong-type"),
        pytest.param("image", ["--set", "Canvas.width"], 2, "has no value", id="set-without-value"),
        pytest.param("image", ["--set", "Invert.image=3"], 3, "is a link to", id="set-replaces-link"),
        pytest.param("load_image", ["--set", "Photo.image=./no.png"], 3, "no.png", id="set-missing-file"),
        pytest.param("image", ["--name", "{nope}"], 3, "{nope}", id="name-unknown-field"),
        pytest.param("image", ["--wait", "soon"], 2, "soon", id="wait-no-duration"),
        pytest.param("image", ["--bogus"], 2, "--bogus", id="unknown-option"),
    ],
)
def test_bad_input_is_refused(cli: Cli, workflow: str, arguments: list[str], code: int, says: str) -> None:
    done = cli("render", WORKFLOWS / f"{workflow}.json", *arguments, "--json")

    assert done.code == code
    assert says in done.error["message"]
    assert done.json["status"] == "error"
    assert done.stdout.count('"schema"') == 1
    assert not (cli.cwd / "outputs").exists()
    assert cli("runs", "list", "--json").json["data"]["runs"] == []


def test_a_refusal_names_near_matches(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "image.json", "--set", "Canvas.widht=3")

    assert "did you mean width?" in done.stderr
    assert done.stdout == ""


def test_the_servers_own_refusal_is_told_like_ours(cli: Cli) -> None:
    # The folder is a name only the server can judge: LoadImage accepts any file below its input folder.
    done = cli("render", WORKFLOWS / "load_image.json", "--set", 'Photo.image:="sub/none.png"', "--json")

    assert (done.code, done.error["code"]) == (3, "input_file")
    assert "sub/none.png" in done.error["message"]
    assert not (cli.cwd / "outputs").exists()


def test_valid_branch_is_rendered_only_when_partial_results_are_allowed(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "two_outputs_one_invalid.json", "--allow-partial", "--json")

    assert (done.code, done.json["status"]) == (6, "partial")
    assert [output["title"] for output in done.outputs] == ["Save good"]
    assert "99999" in done.error["message"]


def test_error_in_a_node_names_it_and_keeps_what_came_before(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "partial_then_error.json", "--json")

    assert (done.code, done.error["code"]) == (1, "run_failed")
    assert "(Broken) failed" in done.error["message"]
    assert done.error["traceback"]
    assert [output["title"] for output in done.outputs] == ["First"]


def test_output_folder_that_is_a_file_is_refused(cli: Cli) -> None:
    (cli.cwd / "taken").write_text("mine")
    done = cli("render", WORKFLOWS / "image.json", "--out", "taken/here")

    assert done.code == 3
    assert "taken is a file" in done.stderr
    assert (cli.cwd / "taken").read_text() == "mine"


def test_full_disk_leaves_no_half_file_and_the_run_can_be_fetched_later(cli: Cli) -> None:
    seed = "--set", "Noise.seed=5", "--set", "Canvas.width=1024", "--set", "Canvas.height=1024"
    workflow = json.loads((WORKFLOWS / "slow.json").read_text())
    # Only noise into a picture: three megabytes that no compression makes smaller.
    saved = next(node_id for node_id, node in workflow.items() if node["class_type"] == "SaveImage")
    noise = next(node_id for node_id, node in workflow.items() if node["_meta"]["title"] == "Noise")
    workflow[saved]["inputs"]["images"] = [noise, 0]
    used = ("Canvas", "Noise")
    kept = {i: node for i, node in workflow.items() if node["_meta"]["title"] in used or i == saved}
    (cli.cwd / "noise.json").write_text(json.dumps(kept))
    cli("render", "noise.json", *seed, "--json")

    # A limit on file size fails a write exactly where a full disk does, and needs no rights.
    done = subprocess.run(
        cli.argv("render", "noise.json", *seed, "--json"),
        cwd=cli.cwd,
        env=dict(cli.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    failed = json.loads(done.stdout)

    assert done.returncode == 5, done.stderr
    assert failed["errors"][0]["code"] == "transfer_failed"
    run_id = cli("runs", "list", "--json").json["data"]["runs"][0]["id"]
    assert not list((cli.cwd / "outputs").glob(f"{run_id}/*"))
    assert not list(cli.state.glob(f"volumes/*/runs/{run_id}/**/*.part"))
    fetched = cli("runs", "fetch", run_id, "--json")
    assert fetched.code == 0, fetched.stderr
    assert Path(fetched.outputs[0]["path"]).stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--comfy-url", "http://127.0.0.1:1"], "no ComfyUI answers"),
        (["--comfy-url", "ftp://somewhere"], "http"),
    ],
)
def test_named_server_that_is_not_there_is_not_replaced_by_another(cli: Cli, arguments: list[str], says: str) -> None:
    done = cli("render", WORKFLOWS / "image.json", *arguments)

    assert done.code in (3, 4)
    assert says in done.stderr


def test_without_an_engine_and_nobody_to_ask_nothing_is_installed(engineless_cli: Cli) -> None:
    done = engineless_cli("render", WORKFLOWS / "image.json", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "--yes" in done.error["hint"]
    for told in ("GPL-3.0", "0.3.75", "GB", str(Path(engineless_cli.environ["COMFYMODAL_DATA_DIR"]))):
        assert told in done.stderr
    assert_nothing_left(engineless_cli)


def test_dry_run_installs_nothing_even_with_yes(engineless_cli: Cli) -> None:
    done = engineless_cli("render", WORKFLOWS / "image.json", "--dry-run", "--yes", "--json")

    assert (done.code, done.error["code"]) == (4, "not_ready")
    assert "engine install" in done.error["hint"]
    assert_nothing_left(engineless_cli)


def test_installation_that_is_none_is_named(make_cli: Callable[[Path], Cli], tmp_path: Path) -> None:
    cli = make_cli(tmp_path / "state")
    (cli.cwd / "comfymodal.yaml").write_text("version: 1\ncomfyui: {path: .}\n")
    done = cli("render", WORKFLOWS / "image.json")

    assert done.code == 4
    assert "main.py" in done.stderr


def assert_nothing_left(cli: Cli) -> None:
    assert not (cli.cwd / "outputs").exists()
    assert not Path(cli.environ["COMFYMODAL_DATA_DIR"]).exists()
    assert not (cli.state / "calls").exists()
