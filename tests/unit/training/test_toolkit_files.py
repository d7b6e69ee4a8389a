"""ai-toolkit's databases, file names and command line."""

from __future__ import annotations

import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from comfymodal.errors import NotReadyError, TrainingConfigError
from comfymodal.training import child
from comfymodal.training.ai_toolkit import layout
from comfymodal.training.ai_toolkit.command import Toolkit, build_argv, build_environ, find_toolkit, localized
from comfymodal.training.ai_toolkit.control import ControlDatabase
from comfymodal.training.ai_toolkit.layout import WeightsName
from comfymodal.training.ai_toolkit.losses import Loss, copy_log, read_losses
from comfymodal.training.ai_toolkit.trainer import AiToolkit
from comfymodal.training.trainer import Launch
from tests.doubles.trainer.databases import Control, LossLog

CONFIG = {"job": "extension", "config": {"name": "tiny", "process": [{"type": "diffusion_trainer"}]}}


@pytest.mark.parametrize(
    "name", ["c", "config", "opt", "optimizer", "loss_log", "s", "sa", "samples", "a b", "a/b", "[x]"]
)
def test_names_that_lead_the_trainer_astray_are_refused(name: str) -> None:
    assert layout.name_fault(name) is not None


@pytest.mark.parametrize("name", ["my_char_v1", "samples_2", "a1", "X-9"])
def test_usual_names_are_fine(name: str) -> None:
    assert layout.name_fault(name) is None


@pytest.mark.parametrize(
    ("place", "name", "is_fine"),
    [("/tmp/run", "a", True), ("/tmp/my_cn/run", "a", False), ("/tmp/x_LoRA", "x_LoRA", True)],
)
def test_places_that_hide_checkpoints_are_refused(place: str, name: str, is_fine: bool) -> None:
    assert (layout.place_fault(Path(place), name) is None) == is_fine


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("tiny.safetensors", WeightsName(None, None)),
        ("tiny_000000250.safetensors", WeightsName(250, None)),
        ("tiny_000000250_high_noise.safetensors", WeightsName(250, "high_noise")),
        ("tiny_low_noise.safetensors", WeightsName(None, "low_noise")),
        ("tiny_v2.safetensors", None),
        ("tiny_000000250.pt", None),
        ("other.safetensors", None),
    ],
)
def test_weights_are_known_by_their_names(file: str, found: WeightsName | None) -> None:
    assert layout.parse_weights(file, "tiny") == found


def test_samples_come_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    (folder / ".tmp").mkdir(parents=True)
    for name in ("1700000000002__000000010_1.jpg", "1700000000001__000000010_0.webp", "9__000000000_0.jpg", "x.jpg"):
        (folder / name).touch()

    assert [(each.step, each.index) for each in layout.list_samples(tmp_path)] == [(0, 0), (10, 0), (10, 1)]
    assert layout.list_samples(tmp_path / "nowhere") == ()


def test_the_trainer_hears_and_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ControlDatabase(tmp_path / "control.db", "job1")
    ours.create()
    monkeypatch.setenv("AITK_JOB_ID", "job1")
    theirs = Control(str(ours.path), is_off=False)

    theirs.tell(status="running", info="Training", step=7, speed_string="1 iter/sec")
    ours.ask_save()

    state = ours.read()
    assert state is not None
    assert (state.status, state.info, state.step, state.speed) == ("running", "Training", 7, "1 iter/sec")
    assert state.is_save_pending
    assert (theirs.is_asked("save_now"), theirs.is_asked("stop")) == (True, False)
    ours.ask_stop()
    assert theirs.is_asked("stop")


def test_a_control_database_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    database = ControlDatabase(tmp_path / "no.db", "job1")

    assert database.read() is None
    with pytest.raises(sqlite3.Error):
        database.ask_stop()
    assert not database.path.exists()


def test_losses_are_read_while_they_are_written(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "loss_log.db")
    for step in range(1, 5):
        log.add(step, 1.0 / (step + 3), 1e-4)
    log.write()

    assert read_losses(tmp_path / "loss_log.db", after=2) == (Loss(3, 1 / 6), Loss(4, 1 / 7))
    assert copy_log(tmp_path / "loss_log.db", tmp_path / "copy.db")
    log.close()
    # What was in the WAL is in the copy, which has none.
    assert len(read_losses(tmp_path / "copy.db")) == 4
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]
    assert copy_log(tmp_path / "copy.db", tmp_path / "part.db", until=2)
    assert [loss.step for loss in read_losses(tmp_path / "part.db")] == [1, 2]


def test_no_losses_are_no_error(tmp_path: Path) -> None:
    assert read_losses(tmp_path / "no.db") == ()
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    assert read_losses(tmp_path / "bad.db") == ()
    assert not copy_log(tmp_path / "bad.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_the_toolkit_is_found_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "run.py").touch()
    environ = {"AI_TOOLKIT_PATH": str(tmp_path), "AI_TOOLKIT_PYTHON": sys.executable}

    toolkit = find_toolkit(environ)

    assert build_argv(toolkit, Path("c.json")) == [sys.executable, "run.py", str(Path("c.json").absolute())]
    for wrong in ({"AI_TOOLKIT_PATH": ""}, {"AI_TOOLKIT_PATH": "/nowhere"}, {"AI_TOOLKIT_PYTHON": "/nowhere"}):
        with pytest.raises(NotReadyError):
            find_toolkit({**environ, **wrong})


def test_bars_are_not_told_how_to_look() -> None:
    made = build_environ({"TQDM_ASCII": "1", "HF_TOKEN": "x"}, "job1")

    assert "TQDM_ASCII" not in made
    assert (made["HF_TOKEN"], made["AITK_JOB_ID"], made["PYTHONUNBUFFERED"]) == ("x", "job1", "1")
    # Its table of timings would be most of the log.
    assert made["IS_AI_TOOLKIT_UI"] == "1"


def test_the_config_gets_the_paths_of_the_attempt_and_stays_as_it_was() -> None:
    before = {
        "job": "extension",
        "config": {"name": "a", "process": [{"logging": {"use_wandb": True, "log_every": 5}}]},
    }

    made = localized(before, training_folder=Path("/t/run"), control=Path("/t/control.db"))

    (process,) = made["config"]["process"]
    assert process["logging"] == {"use_wandb": True, "use_ui_logger": True, "log_every": 1}
    assert (process["training_folder"], process["sqlite_db_path"]) == ("/t/run", "/t/control.db")
    assert before["config"]["process"] == [{"logging": {"use_wandb": True, "log_every": 5}}]  # type: ignore[index]


def test_a_name_it_could_not_resume_is_refused_before_the_start(tmp_path: Path) -> None:
    config = {"job": "extension", "config": {"name": "config", "process": [{}]}}

    with pytest.raises(TrainingConfigError, match=r"config\.yaml begins with it"):
        AiToolkit(Toolkit(tmp_path, tmp_path), config, tmp_path).prepare()


@pytest.mark.parametrize("said", [["tiny_000000008.safetensors"], ["tiny_000000008_low_noise.safetensors"]])
def test_both_halves_of_a_save_are_found(tmp_path: Path, said: list[str]) -> None:
    trainer = AiToolkit(Toolkit(tmp_path, tmp_path), CONFIG, tmp_path)
    trainer.folder.mkdir(parents=True)
    for name in ("tiny_000000008_high_noise", "tiny_000000008_low_noise", "tiny_000000004_low_noise", "tiny"):
        (trainer.folder / f"{name}.safetensors").touch()

    saved = trainer.saved([str(trainer.folder / each) for each in said])

    assert [path.name for path in saved.weights] == [
        "tiny_000000008_high_noise.safetensors",
        "tiny_000000008_low_noise.safetensors",
    ]
    assert not saved.is_final


def test_a_trainer_heeds_interrupts_where_we_do_not(tmp_path: Path) -> None:
    script = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = child.start(Launch([sys.executable, "-c", script], tmp_path, {}))
    finally:
        signal.signal(signal.SIGINT, before)

    assert started.read_rest() == b"True\n"
    started.kill()
