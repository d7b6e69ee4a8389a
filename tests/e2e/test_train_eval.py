"""`runs eval` on the real engine: LoRAs that change the picture, from a training's checkpoints to one sheet."""

from __future__ import annotations

import json
import random
import struct
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfymodal.operations.context import Context, open_context
from comfymodal.runs.ledger import Run
from comfymodal.training.checkpoints import CheckpointStore, Pair
from tests.conftest import WORKFLOWS, Cli

RUN_ID = "261121-093012-train-k7f3"
STEPS = (8, 24)
ROWS, COLUMNS, RANK = 1280, 320, 2


def lora_of(step: int) -> bytes:
    """Weights for one layer of the tiny model, the stronger the later they are of."""
    chance = random.Random(1)
    layer = "lora_unet_time_embed_0"
    header: dict[str, Any] = {"__metadata__": {"training_info": json.dumps({"step": step})}}
    data = b""
    for part, shape in (("lora_down", [RANK, COLUMNS]), ("lora_up", [ROWS, RANK])):
        values = array("f", [chance.gauss(0, 0.4) * step / STEPS[-1] for _ in range(shape[0] * shape[1])]).tobytes()
        offsets = [len(data), len(data) + len(values)]
        header[f"{layer}.{part}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def open_here(cli: Cli) -> Context:
    return open_context(None, environ=dict(cli.environ), cwd=cli.cwd)


@pytest.fixture
def trained(cli: Cli, tmp_path: Path) -> Cli:
    """The command line, with a training in its ledger whose checkpoints lie on the training volume."""
    context = open_here(cli)
    folder = f"runs/{cli.environ['COMFYMODAL_PROJECT']}"
    store = CheckpointStore(context.local.volumes["training"] / folder)
    for step in STEPS:
        path = tmp_path / ("tiny.safetensors" if step == STEPS[-1] else f"tiny_{step:09d}.safetensors")
        path.write_bytes(lora_of(step))
        store.publish(Pair.just_saved((path,), None, is_final=step == STEPS[-1]), lambda: None)
    process = {
        "type": "diffusion_trainer",
        "trigger_word": "p3rson",
        "model": {"name_or_path": "org/model"},
        "network": {"type": "lora", "linear": RANK},
        "train": {"steps": STEPS[-1]},
        "datasets": [{"folder_path": "/data"}],
        "sample": {"prompts": ["[trigger] at the sea --w 64", "[trigger] at the sea --seed 3"]},
    }
    config = {"job": "extension", "config": {"name": "tiny", "process": [process]}}
    job: dict[str, Any] = {"kind": "train", "run_id": RUN_ID, "folder": folder, "config": config, "locations": []}
    job["origin"] = {"title": "tiny", "created_at": time.time()}
    context.ledger.add(
        Run(
            id=RUN_ID,
            kind="train",
            target="local",
            status="succeeded",
            title="tiny",
            created_at=time.time(),
            ended_at=time.time(),
            call_id="1@0.0",
            again_of=None,
            request={"job": job, "flags": {}, "folder": str(cli.cwd / "outputs" / RUN_ID)},
            result={"status": "succeeded", "error": None, "result": None},
        )
    )
    return cli


def workflow(cli: Cli) -> Path:
    graph = json.loads((WORKFLOWS / "tiny_txt2img.json").read_text())
    inputs: dict[str, Any] = {"model": ["1", 0], "lora_name": "of-my-friend.safetensors", "strength_model": 1.0}
    graph["8"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    graph["5"]["inputs"] |= {"model": ["8", 0], "steps": 1}
    path = cli.cwd / "portrait.json"
    path.write_text(json.dumps(graph))
    return path


def test_a_training_is_rendered_checkpoint_by_prompt_by_strength(trained: Cli) -> None:
    done = trained("runs", "eval", "last", workflow(trained), "--eval-strengths", "0,1", "--json")

    assert done.code == 0, done.stderr
    data = done.json["data"]
    cells = {(each["step"], each["prompt"], each["strength"]): each["path"] for each in data["cells"]}
    # The same prompt with another seed is another sample, and no other text.
    prompt = "p3rson at the sea"
    assert set(cells) == {(step, prompt, strength) for step in STEPS for strength in (0, 1)}
    pixels = {place: Image.open(path).convert("RGB").tobytes() for place, path in cells.items()}
    # At no strength the LoRA does nothing, whichever it is; at full strength each does something else.
    assert pixels[8, prompt, 0] == pixels[24, prompt, 0]
    assert len({pixels[8, prompt, 0], pixels[8, prompt, 1], pixels[24, prompt, 1]}) == 3
    sheet = Path(data["sheet"])
    assert sheet == trained.cwd / "outputs" / RUN_ID / "eval-portrait.png"
    with Image.open(sheet) as image:
        assert image.width > 2 * 100
        assert image.height > 2 * 64
    # Nothing of it stays among the models, and the training has lost nothing.
    context = open_here(trained)
    models = context.local.volumes["models"]
    assert not list(models.rglob("*tiny*.safetensors"))
    assert not (models / "loras" / f"eval-{RUN_ID}").exists()
    assert len(list((context.local.volumes["training"] / "runs").rglob("*.safetensors"))) >= 2
    rendered = [run for run in context.ledger.newest(limit=10) if run.kind == "render"]
    (graphs,) = [[prompt["graph"] for prompt in run.request["job"]["prompts"]] for run in rendered]
    texts = {(graph["2"]["inputs"]["text"], graph["3"]["inputs"]["text"]) for graph in graphs}
    assert (len(graphs), texts) == (4, {(prompt, "blurry")})

    report = trained("runs", "report", "last")

    assert report.code == 0, report.stderr
    assert "Rendered with each checkpoint" in (trained.cwd / "outputs" / RUN_ID / "report.html").read_text()


def test_nothing_is_rendered_with_a_workflow_that_takes_no_lora(trained: Cli) -> None:
    without = trained("runs", "eval", "last", WORKFLOWS / "tiny_txt2img.json", "--json")
    elsewhere = trained("runs", "eval", RUN_ID, "none.json", "--json")

    assert (without.code, without.error["code"]) == (3, "workflow_invalid"), without.stderr
    assert "no node that loads a LoRA" in without.error["message"]
    assert elsewhere.code == 3
    assert [run.kind for run in open_here(trained).ledger.newest(limit=10)] == ["train"]
