"""The stand-in trainer against captures of ai-toolkit: what both print, what both put into the control database."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfymodal.training.ai_toolkit.control import ControlDatabase
from comfymodal.training.ai_toolkit.output import OutputReader
from comfymodal.training.events import Bar, Event, Failed, Said, Step
from tests.doubles.trainer.files import PICTURE

TRAINER = Path(__file__).parent.parent / "doubles" / "trainer"
LOGS = Path(__file__).parent.parent / "data" / "ai-toolkit-logs"

# What libraries say of a machine without a GPU, and what a traceback holds beside its last line.
_NOISE = re.compile(r"\s|Traceback|W\d{4} |WARNING|Failed to load CPU")
_PATH = re.compile(r"(?:/[\w.-]+)+")


@dataclass
class Stand:
    """One run of the stand-in, in a folder of its own."""

    root: Path
    train: Mapping[str, Any] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=lambda: {"prompts": ["a cat", "a dog"], "sample_every": 6})
    save_every: int = 5
    step_s: float = 0.0
    asks: str = ""
    """SQL that asks for something when the control database says so."""
    pictures: Mapping[str, bytes] | None = field(
        default_factory=lambda: {f"{number}.jpg": PICTURE for number in range(5)}
    )
    """None: not even a folder."""

    def run(self, faults: str = "") -> bytes:
        """What it prints."""
        dataset = self.root / "dataset"
        if self.pictures is not None:
            dataset.mkdir()
        for name, content in (self.pictures or {}).items():
            (dataset / name).write_bytes(content)
        process = {
            "type": "diffusion_trainer",
            "training_folder": str(self.root / "out"),
            "sqlite_db_path": str(self._control.path),
            "performance_log_every": 10,
            "logging": {"use_ui_logger": True, "log_every": 1},
            "model": {"name_or_path": "/data/models/tiny-sd", "arch": "sd1"},
            "network": {"type": "lora", "linear": 4},
            "train": {"steps": 12, **self.train},
            "save": {"save_every": self.save_every, "max_step_saves_to_keep": 2},
            "datasets": [{"folder_path": str(dataset), "resolution": [64]}],
            "sample": self.sample,
        }
        config = self.root / "config.json"
        config.write_text(json.dumps({"job": "extension", "config": {"name": "tiny", "process": [process]}}))
        self._begin_history()
        environ = {"AITK_JOB_ID": "comfymodal", "IS_AI_TOOLKIT_UI": "1", "PYTHONUNBUFFERED": "1"}
        done = subprocess.run(
            [sys.executable, "run.py", config],
            cwd=TRAINER,
            env={**os.environ, **environ, "STANDIN_STEP_S": str(self.step_s), "STANDIN_FAULTS": faults},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout

    @property
    def _control(self) -> ControlDatabase:
        return ControlDatabase(self.root / "control.db", "comfymodal")

    def _begin_history(self) -> None:
        self._control.create()
        with closing(sqlite3.connect(self._control.path)) as database, database:
            columns = "status, info, step, save_now, stop, speed_string"
            new = ", ".join(f"new.{column}" for column in columns.split(", "))
            # The trigger that was made last fires first.
            database.executescript(
                f"{self.asks} CREATE TABLE history({columns}); CREATE TRIGGER keep AFTER UPDATE ON Job "
                f"BEGIN INSERT INTO history VALUES ({new}); END;"
            )

    def history(self) -> list[str]:
        """Each change of the control database, as the captures have them."""
        with closing(sqlite3.connect(self._control.path)) as database:
            return ["|".join(map(str, row)) for row in database.execute("SELECT * FROM history")]


def read(data: bytes) -> list[Event]:
    reader = OutputReader("tiny")
    return reader.feed(data) + reader.close()


def shape(data: bytes) -> list[str]:
    """What happens in an output, without bars, numbers and paths; what is said several times in a row is said once."""
    lines = []
    for each in read(data):
        if isinstance(each, Said) and not _NOISE.match(each.text):
            lines.append(_PATH.sub("PATH", each.text))
        elif not isinstance(each, (Bar, Step, Failed, Said)):
            lines.append(f"{type(each).__name__} {getattr(each, 'name', '')}")
    return [line for line, _ in itertools.groupby(re.sub(r"\d+", "N", line) for line in lines)]


def without_speed(history: list[str]) -> list[str]:
    return [re.sub(r"[\d.]+ (?:iter/sec|sec/iter)$", "speed", line) for line in history]


def captured(name: str) -> bytes:
    return (LOGS / f"{name}.log").read_bytes()


def test_a_run_with_samples_and_saves_looks_the_same(tmp_path: Path) -> None:
    stand = Stand(tmp_path, step_s=0.02)

    assert shape(stand.run()) == shape(captured("70_control"))
    assert without_speed(stand.history()) == without_speed((LOGS / "70_control.history.txt").read_text().splitlines())


THIRTY: Any = {
    "train": {"steps": 30},
    "sample": {"prompts": ["a cat", "a dog"], "sample_every": 10},
    "save_every": 10,
}


def test_an_interrupt_looks_the_same(tmp_path: Path) -> None:
    stand = Stand(tmp_path, **THIRTY, step_s=0.02)

    assert shape(stand.run("interrupt_at=15")) == shape(captured("71_interrupted"))
    # The step it says last is that of its last save.
    assert without_speed(stand.history()) == without_speed(
        (LOGS / "71_interrupted.history.txt").read_text().splitlines()
    )


def test_a_save_and_a_stop_look_the_same(tmp_path: Path) -> None:
    asks = (
        "CREATE TRIGGER ask_save AFTER UPDATE ON Job WHEN new.step = 6 AND old.step = 5 "
        "BEGIN UPDATE Job SET save_now = 1; END;"
        "CREATE TRIGGER ask_stop AFTER UPDATE ON Job WHEN new.info = 'Saving model' "
        "BEGIN UPDATE Job SET stop = 1; END;"
    )
    stand = Stand(tmp_path, sample={"sample_every": 1000}, save_every=300, train={"steps": 400}, asks=asks)

    ours, theirs = stand.run(), captured("75_stopped")
    assert shape(ours) == shape(theirs)
    # From the end of the request to save on.
    assert stand.history()[-5:] == (LOGS / "75_stopped.history.txt").read_text().splitlines()[-5:]
    # Its bar is painted once more behind the traceback.
    assert [type(read(data)[-1]) for data in (ours, theirs)] == [Step, Step]


def test_pictures_that_cannot_be_read_look_the_same(tmp_path: Path) -> None:
    broken = {"5.jpg": b"", "6.jpg": b"no picture", "7.jpg": PICTURE[:60]}
    sound = {f"{number}.jpg": PICTURE for number in range(5)}
    stand = Stand(tmp_path, sample={"sample_every": 10}, save_every=10, pictures={**sound, **broken})

    def told(data: bytes) -> list[str]:
        # Each of them has its own cause.
        return [line for line in shape(data) if not re.search(r"rror: |truncated|cannot identify|direct cause", line)]

    assert told(stand.run()) == told(captured("72_bad_pictures"))


def test_losses_that_are_no_numbers_look_the_same(tmp_path: Path) -> None:
    stand = Stand(tmp_path, **THIRTY)

    assert shape(stand.run("nan_from=1")) == shape(captured("73_not_finite"))


def test_an_optimizer_that_cannot_be_saved_looks_the_same(tmp_path: Path) -> None:
    stand = Stand(tmp_path, **THIRTY)

    def told(data: bytes) -> list[str]:
        # Why it cannot is the disk's word there and torch's here.
        return [line for line in shape(data) if not re.search(r"Errno|enforce fail", line)]

    assert told(stand.run("optimizer_full_at=10+20+30")) == told(captured("74_optimizer_unsaved"))


@pytest.mark.parametrize(
    ("log", "faults", "pictures", "cause"),
    [
        ("76_missing_model", "no_model", {"1.jpg": PICTURE}, "model_not_found"),
        ("77_missing_dataset", "", None, "file_missing"),
        ("78_empty_dataset", "", {}, "dataset_empty"),
        ("79_no_modules", "no_modules", {"1.jpg": PICTURE}, "no_modules"),
    ],
)
def test_failures_look_the_same(
    tmp_path: Path, log: str, faults: str, pictures: Mapping[str, bytes] | None, cause: str
) -> None:
    ours, theirs = Stand(tmp_path, pictures=pictures).run(faults), captured(log)

    assert _without_traceback(shape(ours)) == _without_traceback(shape(theirs))
    assert shape(ours)[-1] == shape(theirs)[-1]
    assert [each.failure.cause for each in read(theirs) + read(ours) if isinstance(each, Failed)] == [cause, cause]


def _without_traceback(lines: list[str]) -> list[str]:
    return lines[: lines.index("Result:")]
