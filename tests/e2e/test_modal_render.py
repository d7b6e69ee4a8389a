"""The same render on Modal: deployed, run in real containers, fetched, equal to what this machine renders."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import pytest

from tests.conftest import HELLO, WORKFLOWS, Cli, Done
from tests.e2e.modal_world import ModalCli


@pytest.mark.parametrize("workflow", ["image", "animated_png", "mp4", "flac", "mp3", "tiny_txt2img", "two_images"])
def test_outputs_are_those_of_this_machine(modal_cli: ModalCli, cli: Cli, workflow: str) -> None:
    there = modal_cli("render", WORKFLOWS / f"{workflow}.json", "--json")
    local = cli.cwd / "local.yaml"
    local.write_text("version: 1\n")
    here = cli("render", WORKFLOWS / f"{workflow}.json", "-c", local, "--json")

    assert (there.code, here.code) == (0, 0), there.stderr + here.stderr
    assert there.run["target"] == "modal"
    assert hashes(there) == hashes(here)
    for output in there.outputs:
        assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]


def test_text_and_inputs_travel(modal_cli: ModalCli, tmp_path: Path) -> None:
    picture = modal_cli("render", WORKFLOWS / "image.json", "--json").outputs[0]["path"]
    done = modal_cli("render", WORKFLOWS / "load_image.json", "--set", f"LoadImage.image={picture}", "--json")
    text = modal_cli("render", WORKFLOWS / "text.json", "--set", "Text.value=a dog", "--json")

    assert (done.code, text.code) == (0, 0), done.stderr
    assert text.json["data"]["texts"][0]["text"] == "a dog, with a tail"


def test_an_input_goes_up_once(modal_cli: ModalCli) -> None:
    picture = modal_cli("render", WORKFLOWS / "image.json", "--json").outputs[0]["path"]
    arguments = ("render", WORKFLOWS / "load_image.json", "--set", f"LoadImage.image={picture}", "--json")
    modal_cli(*arguments)
    before = len(modal_cli.cloud.requests("VolumePutFiles2"))
    assert modal_cli(*arguments).code == 0

    assert len(modal_cli.cloud.requests("VolumePutFiles2")) == before


def test_run_can_be_followed_from_another_machine(modal_cli: ModalCli, tmp_path: Path) -> None:
    begun = modal_cli("render", HELLO, "--set", f"Mountains.seed={uuid.uuid4().int % 10**6}", "--detach", "--json")
    other = modal_cli.elsewhere(tmp_path / "other")
    attached = other("runs", "attach", begun.run["id"], "--json")

    assert attached.code == 0, attached.stderr
    (output,) = attached.outputs
    assert Path(output["path"]).is_relative_to(other.cwd)
    fetched = modal_cli("runs", "fetch", begun.run["id"], "--json")
    assert fetched.outputs[0]["sha256"] == output["sha256"]


def test_receipt_says_what_it_cost(modal_cli: ModalCli) -> None:
    done = modal_cli("render", WORKFLOWS / "image.json", "--json")
    receipt = json.loads(Path(done.json["data"]["receipt"]).read_text())

    assert float(done.run["cost"]) > 0
    assert receipt["cost"]["usd"] == done.run["cost"]
    assert receipt["cost"]["gpu"] == "L40S"
    assert receipt["container"]["container_id"].startswith("ta-")
    assert receipt["load_s"] >= 0

    plan = modal_cli("render", WORKFLOWS / "image.json", "--gpu", "H100", "--dry-run", "--json").json["data"]["cost"]
    assert (plan["gpu"], plan["per_hour"]) == ("H100", "$4.39/h")
    told = modal_cli("costs", "estimate", "render", WORKFLOWS / "image.json", "--gpus", "H100,FOO", "--json")
    h100, unknown = told.json["data"]["rows"]
    assert h100["usd_per_hour"] == "4.393584"
    assert float(h100["worst_usd"]) == float(plan["worst_usd"]) > 0
    assert (unknown["is_known"], unknown["worst_usd"]) == (False, None)


def test_a_lost_answer_does_not_render_twice(modal_cli: ModalCli) -> None:
    modal_cli.cloud.do("lose_answer", rpc="FunctionMap", times=1)
    done = modal_cli("render", HELLO, "--set", f"Mountains.seed={uuid.uuid4().int % 10**6}", "--json")

    assert done.code == 0, done.stderr
    assert len(done.outputs) == 1
    prompts = [
        line for line in modal_cli("logs", done.run["id"]).stdout.splitlines() if line.rstrip().endswith("got prompt")
    ]
    assert len(prompts) == 1


def hashes(done: Done) -> list[tuple[str, str]]:
    """By node: ComfyUI runs independent branches in an order of its own."""
    return sorted((output["node_id"], output["sha256"]) for output in done.outputs)
