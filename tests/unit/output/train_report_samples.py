"""Trainings as `report_training` returns them, with losses and pictures that look like ones."""

from __future__ import annotations

import base64
import colorsys
import io
import math
import random
from typing import Any

from PIL import Image, ImageDraw

from comfymodal.operations.train_report_results import (
    CheckpointView,
    DatasetFacts,
    PromptView,
    SampleShot,
    Shot,
    TrainedRun,
    TrainingPage,
)
from comfymodal.training.curves import Curve, smoothed
from tests.unit.output.result_samples import run_view

PROMPTS = ("[trigger] at the beach", "a portrait of [trigger], studio light")


def losses(steps: int = 400, *, seed: int = 1, level: float = 0.12, fall: float = 0.2) -> Curve:
    chance = random.Random(seed)
    return tuple(
        (step, (level + fall * math.exp(-step * 6 / steps)) * chance.lognormvariate(0, 0.35))
        for step in range(1, steps + 1)
    )


def shot(hue: float, words: str = "", size: tuple[int, int] = (64, 64)) -> Shot:
    colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, 0.45, 0.8))
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).text((size[0] // 8, size[1] // 3), words, fill="black")
    data = io.BytesIO()
    image.save(data, "JPEG")
    return Shot(f"{words}.jpg", f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}", *size)


def samples(steps: tuple[int, ...] = (0, 100, 200, 300, 400), *, seed: int = 1, **more: Any) -> tuple[SampleShot, ...]:
    return tuple(
        SampleShot(step, prompt, shot(seed * 0.13 + prompt * 0.3 + step / 4000, f"{prompt} at {step}", **more))
        for step in steps
        for prompt in range(len(PROMPTS))
    )


def checkpoint(step: int, *, is_final: bool = False) -> CheckpointView:
    return CheckpointView(step, 171_000_000, f"{step:064x}"[::-1], "2026-11-21T10:30:00.000Z", is_final, is_final)


def trained_run(**more: Any) -> TrainedRun:
    drawn = more.pop("losses", losses())
    given: dict[str, Any] = {
        "run": run_view(id="261121-093012-train-k7f3", kind="train", target="modal", title="anna", seconds=1810.0),
        "name": "anna",
        "folder": "runs/anna",
        "training": {
            "engine": "ai-toolkit",
            "name": "anna",
            "arch": "flux",
            "base_model": "black-forest-labs/FLUX.1-dev",
            "is_full_finetune": False,
            "rank": 16,
            "alpha": 16,
            "steps": 400,
            "batch_size": 1,
            "gradient_accumulation": 1,
            "lr": 1e-4,
            "optimizer": "adamw8bit",
            "dtype": "bf16",
            "is_quantized": True,
            "trigger_word": "p3rson",
            "seed": 42,
        },
        "config": "job: extension\nconfig:\n  name: anna\n",
        "settings": {},
        "step": 400,
        "steps": 400,
        "seconds_per_step": 1.42,
        "losses": drawn,
        "smooth": smoothed(drawn),
        "validation": (),
        "prompts": tuple(PromptView(each, each.replace("[trigger]", "p3rson")) for each in PROMPTS),
        "samples": samples(),
        "steps_hidden": 0,
        "checkpoints": (checkpoint(200), checkpoint(300), checkpoint(400, is_final=True)),
        "datasets": (DatasetFacts("volume:/sets/anna", 24, "ab" * 32, (512, 768), 1),),
        "published": ("loras/anna.safetensors",),
        "phases": {"loading": 61.2, "caching": 20.1, "training": 1200.0, "sampling": 210.5, "saving": 9.0},
        "gpu": "A100-80GB",
        "usd_per_hour": "2.4984",
        "prices_as_of": "2026-10-07",
        "attempts": (run_view(id="261121-093012-train-k7f3", kind="train", seconds=1810.0, cost="1.2561"),),
        "cost": "1.2561",
        "warnings": (),
        "error": None,
        "sheets": (),
    }
    return TrainedRun(**{**given, **more})


def train_report(*runs: TrainedRun, differing: tuple[str, ...] = ()) -> TrainingPage:
    return TrainingPage(runs or (trained_run(),), "/elsewhere/report.html", "2026-11-21T11:00:00.000Z", differing)


def variant(number: int, lr: str, rank: str, **more: Any) -> TrainedRun:
    drawn = more.pop("losses", losses(seed=number, level=0.1 + number * 0.015))
    run_id = f"261121-0930{number:02d}-train-k7f3"
    return trained_run(
        run=run_view(
            id=run_id, kind="train", target="modal", seconds=1700.0 + number, status=more.pop("status", "succeeded")
        ),
        name=f"anna--lr{lr}--r{rank}",
        settings={"network.linear": rank, "train.lr": lr},
        losses=drawn,
        samples=more.pop("samples", samples(seed=number)),
        cost=f"1.2{number}",
        **more,
    )
