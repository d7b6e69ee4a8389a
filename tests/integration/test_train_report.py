"""`runs report` over what the stand-in trainer left through the training job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfymodal.errors import NotFoundError, OutputFolderError, UsageError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.train_eval import copies_of
from comfymodal.operations.train_report import MOST_SHOTS, report_training, write_report
from comfymodal.operations.train_store import Store
from comfymodal.output.train_page import page
from comfymodal.output.train_tables import train_table
from comfymodal.runs.ledger import Run
from tests.integration.test_train_job import Bench
from tests.unit.operations.sync_target import Clerk

PROJECT = """
version: 1
project: report
volumes: {{training: {{path: {volumes}/training}}, models: {{path: {volumes}/models}}}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a `Bench` that has trained once, stopped half way and gone on."""
    bench = Bench(tmp_path_factory.mktemp("trained"))
    bench.dataset.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (8, 8)).save(bench.dataset / f"{number}.jpg")
    train(bench)
    return bench.root


def train(bench: Bench) -> dict[str, Any]:
    job = bench.job()
    process = job["config"]["config"]["process"][0]
    process["logging"] = {"use_ui_logger": True, "log_every": 1}
    process["sample"]["prompts"] = ["[trigger], a cat", "a dog --w 64 --seed 3"]
    outcome = bench.run(config=job["config"], run_id="261121-093012-train-k7f3")
    assert outcome["status"] == "succeeded"
    for number, path in enumerate(sorted((bench.store / "samples").iterdir())):
        Image.new("RGB", (1024, 768), (number * 20, 90, 160)).save(path, "JPEG")
    (bench.root / "outcome.json").write_text(json.dumps({"job": {**job, "config": job["config"]}, "outcome": outcome}))
    return outcome


class World:
    """A project whose ledger knows the run, and what `runs report` made of it."""

    def __init__(self, root: Path, trained: Path) -> None:
        shutil.copytree(trained / "volumes", root / "volumes")
        self.root = root
        self.told = json.loads((trained / "outcome.json").read_text())
        (root / "comfymodal.yaml").write_text(PROJECT.format(volumes=root / "volumes"))
        self.environ = {"COMFYMODAL_STATE_DIR": str(root / "state"), "HOME": str(root), "PATH": os.environ["PATH"]}
        self.context = self.open()
        self.store = root / "volumes" / "training" / "runs" / "tiny"

    def open(self) -> Context:
        return open_context(None, environ=self.environ, cwd=self.root)

    def add(self, run_id: str = "261121-093012-train-k7f3", **more: Any) -> Run:
        outcome, origin = self.told["outcome"], {"title": "tiny", "created_at": self.told["outcome"]["started_at"]}
        job = {**self.told["job"], "run_id": run_id, "origin": origin, **more.pop("job", {})}
        keys = ("status", "error", "started_at", "ended_at", "folder", "published", "result")
        given = {
            "kind": "train",
            "target": "local",
            "status": outcome["status"],
            "title": "tiny",
            "created_at": outcome["started_at"],
            "ended_at": outcome["ended_at"],
            "call_id": "1@0.0",
            "again_of": None,
            "request": {"job": job, "flags": {}, "folder": str(self.root / "outputs" / run_id)},
            "result": {key: outcome.get(key) for key in keys},
            **more,
        }
        run = Run(id=run_id, **given)
        self.context.ledger.add(run)
        return run

    def add_variant(self, letter: str, lr: float, **more: Any) -> Run:
        """A second training: a copy of the first one's folder under another name."""
        shutil.copytree(self.store, self.store.with_name(f"tiny-{letter}"), dirs_exist_ok=True)
        config = json.loads(json.dumps(self.told["job"]["config"]))
        config["config"]["name"] = f"tiny--lr{lr:g}"
        config["config"]["process"][0]["train"]["lr"] = lr
        job = {"config": config, "folder": f"runs/tiny-{letter}"}
        return self.add(f"261121-09301{len(letter)}-train-{letter * 4}", job=job, **more)


@pytest.fixture
def world(tmp_path: Path, trained: Path) -> World:
    return World(tmp_path, trained)


def test_a_training_is_read_whole(world: World) -> None:
    run = world.add(cost_nanodollars=1_250_000_000, rate={"gpu": "L40S", "nanodollars_per_s": 665_000, "as_of": "x"})

    report = report_training(["last"], None, world.context, Clerk())

    (told,) = report.runs
    assert report.path == str(world.root / "outputs" / run.id / "report.html")
    assert (told.run.id, told.name, told.step, told.steps, told.folder) == (run.id, "tiny", 24, 24, "runs/tiny")
    # The stand-in's losses, all of them: 1 / (1 + log(1 + step)).
    assert [step for step, _ in told.losses] == list(range(1, 24))
    assert told.losses[0][1] == pytest.approx(1 / (1 + 0.693147))
    assert told.loss is not None
    assert told.losses[-1][1] < told.loss < told.losses[0][1]
    assert [each.step for each in told.checkpoints] == [8, 16, 24]
    assert [each.is_final for each in told.checkpoints] == [False, False, True]
    assert [(each.step, each.prompt) for each in told.samples] == [(s, p) for s in (0, 12, 24) for p in (0, 1)]
    # At most 512 pixels, whatever they were made with.
    assert {(each.shot.width, each.shot.height) for each in told.samples} == {(512, 384)}
    assert [each.text for each in told.prompts] == ["p3rson, a cat", "a dog"]
    assert told.published == ("loras/tiny.safetensors",)
    assert (told.cost, told.gpu, told.usd_per_hour) == ("1.25", "L40S", "2.394")
    (dataset,) = told.datasets
    assert (dataset.images, dataset.sha256, dataset.resolutions) == (5, "ab" * 32, (64,))
    assert "p3rson" in told.config


def test_what_is_here_is_not_fetched_again(world: World) -> None:
    run = world.add()
    report_training([run.id], None, world.context, Clerk())
    cache = world.root / "outputs" / run.id
    first = sorted((cache / "samples").iterdir())[0]
    names = [f"step-{step:06d}-{prompt}.jpg" for step in (0, 12, 24) for prompt in (0, 1)]
    assert sorted(path.name for path in (cache / "samples").iterdir()) == names
    before = {path: path.stat().st_mtime_ns for path in (cache / "samples").iterdir()}
    first.write_bytes(b"cut")
    next((world.store / "samples").glob("*__000000012_1.jpg")).unlink()

    told = report_training([run.id], None, world.context, Clerk()).runs[0]

    after = {path: path.stat().st_mtime_ns for path in (cache / "samples").iterdir()}
    assert {path for path in before if before[path] != after[path]} == {first}
    assert len(told.samples) == 5
    assert not [path for path in cache.rglob(".*") if path.is_file()]


def test_a_run_that_still_trains_is_shown_as_far_as_it_is(world: World) -> None:
    shutil.rmtree(world.store / "checkpoints" / "final-000000024")
    state = json.loads((world.store / "state.json").read_text())
    state["checkpoints"] = state["checkpoints"][:1]
    (world.store / "state.json").write_text(json.dumps(state))
    alive = f"{os.getpid()}@{psutil_created()!r}"
    world.add(status="running", ended_at=None, result=None, call_id=alive)

    (told,) = report_training(["last"], None, world.context, Clerk()).runs

    assert (told.run.status, told.step, [each.step for each in told.checkpoints]) == ("running", 23, [8])
    assert "running" in page(report_training(["last"], None, world.context, Clerk()))


def psutil_created() -> float:
    import psutil

    return psutil.Process().create_time()


def test_a_run_that_left_nothing_has_a_page(world: World) -> None:
    error = {"code": "x", "message": "the model is gated", "hint": "ask for it"}
    result = {"status": "failed", "error": error, "result": None, "folder": "runs/none"}
    world.add(status="failed", result=result, job={"folder": "runs/none"})

    report = report_training(["last"], None, world.context, Clerk())
    written = write_report(report, page(report))

    assert (report.runs[0].losses, report.runs[0].samples, report.runs[0].checkpoints) == ((), (), ())
    assert "the model is gated" in Path(written.page).read_text()


def test_a_sample_that_is_no_picture_is_named(world: World) -> None:
    world.add()
    broken = sorted((world.store / "samples").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])

    report = report_training(["last"], None, world.context, Clerk())

    assert [each.shot.uri is None for each in report.runs[0].samples] == [True, *[False] * 5]
    assert "step-000000-0.jpg cannot be shown" in page(report)


def test_attempts_at_one_training_are_added_up(world: World) -> None:
    world.add("261121-080000-train-aaaa", created_at=1.0, ended_at=61.0, status="interrupted", cost_nanodollars=10**9)
    world.add("261121-090000-train-bbbb", cost_nanodollars=5 * 10**8)
    world.add("261121-070000-train-cccc", job={"folder": "runs/other"}, cost_nanodollars=7 * 10**9, created_at=0.5)

    (told,) = report_training(["261121-09"], None, world.context, Clerk()).runs

    assert [each.id for each in told.attempts] == ["261121-080000-train-aaaa", "261121-090000-train-bbbb"]
    assert told.cost == "1.5"


def test_many_samples_are_thinned_evenly(world: World) -> None:
    world.add()
    (picture, *_) = sorted((world.store / "samples").iterdir())
    Image.new("RGB", (16, 16)).save(picture)
    for number in range(200):
        shutil.copy(picture, picture.with_name(f"{1_800_000_000_000 + number}__{number * 10:09d}_0.jpg"))

    report = report_training(["last"], None, world.context, Clerk())

    (told,) = report.runs
    assert len(told.samples) <= MOST_SHOTS
    steps = sorted({each.step for each in told.samples})
    assert (steps[0], steps[-1]) == (0, 1990)
    # All of 0, 10, ... 1990 and 12, 24; the stand-in's own at 0 was made again.
    assert told.steps_hidden == 202 - len(steps) > 0


def test_a_sweep_is_compared_on_one_page(world: World) -> None:
    one, two = world.add_variant("a", 1e-4), world.add_variant("bb", 4e-4, cost_nanodollars=10**9)

    report = report_training([one.id, two.id, one.id], None, world.context, Clerk())

    assert report.differing == ("train.lr",)
    assert [run.settings for run in report.runs] == [{"train.lr": "0.0001"}, {"train.lr": "0.0004"}]
    assert report.path.endswith(f"{two.id}/sweep.html")
    text = page(report)
    assert "tiny: 2 variants" in text
    assert text.count('class="variant"') == 4
    assert len(text) < 500_000


def test_the_command_writes_the_page(world: World, tmp_path: Path) -> None:
    world.add()
    command = [sys.executable, "-m", "comfymodal", "runs", "report", "last", "--json", "--out", "sub/page.html"]

    done = subprocess.run(command, cwd=world.root, env=world.environ, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    path = tmp_path / "sub" / "page.html"
    assert data["page"] == str(path)
    assert data["size_bytes"] == path.stat().st_size
    assert [(run["name"], run["samples"], run["checkpoints"]) for run in data["runs"]] == [("tiny", 6, 3)]
    assert path.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("change", "error"),
    [({"kind": "render"}, UsageError), ({"id": "other"}, NotFoundError)],
)
def test_what_is_no_training_is_refused(world: World, change: Mapping[str, Any], error: type[Exception]) -> None:
    run = world.add(**{key: value for key, value in change.items() if key != "id"})

    with pytest.raises(error):
        report_training([change.get("id", run.id)], None, world.context, Clerk())


def test_a_person_reads_where_the_page_is(world: World) -> None:
    world.add(cost_nanodollars=10**9)
    report = report_training(["last"], None, world.context, Clerk())

    titles, rows = train_table(write_report(report, page(report))) or ((), [])

    assert (titles, len(rows)) == ((), 2)
    assert rows[0][0].endswith("report.html")
    assert rows[0][1].startswith("1 run, 6 samples, ")
    assert rows[1][:2] == ("261121-093012-train-k7f3", "tiny")
    assert re.fullmatch(r"succeeded at step 24 of 24, loss 0\.\d+, \$1\.00 \(est\.\)", rows[1][2])


def test_a_page_that_cannot_be_written_says_so(world: World) -> None:
    world.add()
    report = report_training(["last"], Path("/dev/null/page.html"), world.context, Clerk())

    with pytest.raises(OutputFolderError, match=r"cannot write /dev/null/page\.html"):
        write_report(report, "")


def test_secrets_in_a_config_are_not_shown(world: World) -> None:
    config = json.loads(json.dumps(world.told["job"]["config"]))
    config["config"]["process"][0]["model"]["token"] = "hf_" + "a" * 34
    world.add(job={"config": config})

    assert "hf_a" not in page(report_training(["last"], None, world.context, Clerk()))


USED = """
import json, os
from pathlib import Path
from comfymodal.operations.context import open_context
from comfymodal.operations.train_eval import among_the_models, copies_of
from comfymodal.operations.train_report import folder_of
from comfymodal.operations.train_store import Store
from tests.doubles.trainer.files import read_step
from tests.unit.operations.sync_target import Clerk
context = open_context(None, environ=os.environ, cwd=Path.cwd())
run, clerk = context.ledger.get("last"), Clerk()
store = Store(context.target, "runs/tiny", folder_of(run, context))
copies = copies_of(store.checkpoints({}), run)
def models():
    root = Path("volumes/models")
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.safetensors"))
told = []
# Twice: that they were there once is no reason to leave them out.
for error in (None, KeyError):
    try:
        with among_the_models(copies, store, context, clerk):
            told.append([models(), [read_step(Path("volumes/models/loras") / each.name) for each in copies]])
            if error:
                raise error
    except KeyError:
        told.append("raised")
    told.append(models())
print(json.dumps([told, clerk.warnings]))
"""


def test_checkpoints_are_among_the_models_only_while_they_are_rendered_with(world: World) -> None:
    world.add()
    # In a process of its own: it leaves workers behind, as commands do.
    environ = {**world.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", USED]
    done = subprocess.run(command, cwd=world.root, env=environ, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    told, warnings = json.loads(done.stdout)
    eval_folder = "loras/eval-261121-093012-train-k7f3"
    names = ["final-000000024/tiny", "step-000000008/tiny_000000008", "step-000000016/tiny_000000016"]
    during = [[*(f"{eval_folder}/{name}.safetensors" for name in names), "loras/tiny.safetensors"], [8, 16, 24]]
    assert told == [during, ["loras/tiny.safetensors"], during, "raised", ["loras/tiny.safetensors"]]
    assert warnings == []


def test_of_many_checkpoints_six_are_rendered_with(world: World) -> None:
    run = world.add()
    (first, *_) = Store(world.context.target, "runs/tiny", world.root / "cache").checkpoints({})
    many = [replace(first, step=step, folder=f"checkpoints/step-{step:09d}") for step in range(10, 201, 10)]

    copies = copies_of([*many, replace(first, step=200, is_final=True, folder="checkpoints/final-000000200")], run)

    assert [each.checkpoint.step for each in copies] == [10, 50, 90, 120, 160, 200]
    assert copies[-1].checkpoint.is_final
    with pytest.raises(NotFoundError):
        copies_of([], run)
    with pytest.raises(UsageError, match="2 files"):
        copies_of([replace(first, weights=first.weights * 2)], run)
