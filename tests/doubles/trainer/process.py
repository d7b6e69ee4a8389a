"""One training of the stand-in, from loading to the last sample."""

from __future__ import annotations

import atexit
import contextlib
import glob
import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.doubles.trainer.bars import Bar, write
from tests.doubles.trainer.databases import Control, LossLog
from tests.doubles.trainer.faults import Faults, die, hang
from tests.doubles.trainer.files import (
    PICTURE,
    is_picture,
    pack_optimizer,
    pack_weights,
    read_optimizer,
    read_step,
    write_optimizer,
    write_weights,
)

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
OOM_LIMIT = 3


class TrainProcess:
    """What is trained is the part of the methods without an underscore: another kind trains something."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self.name, self.config = name, config
        self.folder = Path(config["training_folder"]) / name
        self.faults = Faults.from_environ()
        self.step_s = float(os.environ.get("STANDIN_STEP_S", "0.01"))
        train, save, sample = config.get("train", {}), config.get("save", {}), config.get("sample", {})
        self.steps = int(train.get("steps", 1000))
        self.save_every = int(save.get("save_every", 1000))
        self.kept = int(save.get("max_step_saves_to_keep", 5))
        self.sample_every = int(sample.get("sample_every", 100))
        self.makes_samples = not train.get("disable_sampling")
        self.prompts = _prompts(sample)
        self.speed_every = int(config.get("performance_log_every", 0))
        self.control = Control(config.get("sqlite_db_path"), is_off=self.faults.has("no_control"))
        self.rank = int(config.get("network", {}).get("linear", 4))
        self.lr = 1.0e-04
        self.step = self.start = self.last_save_step = 0
        self.oom_in_row = 0
        self.is_stopping = False
        self.bar: Bar | None = None
        if self.control.is_on:
            print(f'Using SQLite database at {config["sqlite_db_path"]}\nJob ID: "{os.environ["AITK_JOB_ID"]}"')
            self.control.tell(status="running", info="Starting")

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(json.dumps(self.config))
        self._require_going()
        self.control.tell(info="Loading model")
        self._load()
        self._build_network()
        self.step = self.start = self._resume()
        self._require_going()
        self.control.tell(info="Loading dataset")
        self._read_datasets()
        log = None
        if self.config.get("logging", {}).get("use_ui_logger"):
            log = LossLog(self.folder / "loss_log.db")
        self._require_going()
        self.control.tell(step=self.step)
        self.control.tell(info="Training")
        if self.makes_samples and self.start <= 1:
            print("Generating baseline samples before training")
            self._sample(0)
        elif not self.makes_samples:
            print("Skipping first sample due to config setting")
        self._train(log)
        self.step = max(self.start, self.steps)
        self._save(None)
        if self.faults.has("hang_at_end"):
            hang()
        if self.makes_samples:
            self._sample(self.step)
        print()
        if log:
            log.close()
        self.control.tell(status="completed", info="Training completed")

    def on_error(self, exc: BaseException) -> None:
        if isinstance(exc, KeyboardInterrupt):
            self.control.tell(status="stopped", info="Job stopped")
        elif not self.is_stopping:
            self.control.tell(status="error", info=str(exc))
        if self.bar and not isinstance(exc, KeyboardInterrupt):
            # It is painted once more behind the traceback.
            atexit.register(self.bar.close)
        # What it could go on from; its files are the truth.
        self.control.tell(step=self.last_save_step)

    def exit_code(self) -> int:
        return int(self.faults.number("exit_code", 0))

    def _load(self) -> None:
        if self.faults.has("leave_child"):
            # It holds the pipe as loaders of data do.
            script = "import time; time.sleep(120)"
            subprocess.Popen([sys.executable, "-c", script, self.folder], stdin=subprocess.DEVNULL)
        if self.faults.has("no_model"):
            said = f'The provided pretrained_model_name_or_path "{self.config["model"]["name_or_path"]}"'
            raise ValueError(f"{said} is neither a valid local path nor a valid repo id. Please check the parameter.")
        bar = Bar("Loading pipeline components...", 5)
        weights = Bar("Loading weights", 36)
        weights.update()
        write("\x1b[A")
        for _ in range(5):
            bar.update()
        write("\n")
        if self.faults.has("hang_loading"):
            hang()
        if self.faults.has("silent_death"):
            die()
        if self.faults.has("oom_loading"):
            raise OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"
            )
        if self.faults.has("gated"):
            try:
                raise GatedRepoError("401 Client Error. Cannot access gated repo for url https://huggingface.co/x/y")
            except GatedRepoError as exc:
                raise OSError("x/y does not appear to have a file named config.json.") from exc
        self.load_model()

    def _build_network(self) -> None:
        print(f"create LoRA network. base dim (rank): {self.rank}, alpha: {self.rank}")
        print("neuron dropout: p=None, rank dropout: p=None, module dropout: p=None")
        print("create LoRA for Text Encoder: 0 modules.")
        print(f"create LoRA for U-Net: {0 if self.faults.has('no_modules') else self.build_network()} modules.")
        if self.faults.has("no_modules"):
            raise ValueError("There are not any lora modules in this network. Check your config and try again")
        print("enable LoRA for U-Net")

    def _resume(self) -> int:
        """Whatever begins with the name and is the newest by ctime, sound or not."""
        found = glob.glob(f"{self.folder}/{self.name}*")
        marks = [mark for mark in ("_LoRA", "_refiner", "_t2i", "_cn") if mark not in self.name]
        found = [path for path in found if not any(mark in path for mark in marks)]
        if not found or self.faults.has("ignore_checkpoint"):
            return 0
        newest = Path(max(found, key=os.path.getctime))
        print(f"#### IMPORTANT RESUMING FROM {newest} ####")
        print(f"Loading from {newest}")
        step = self.take_weights(newest)
        print(f"Missing keys: []\nFound step {step} in metadata, starting from there")
        optimizer = self.folder / "optimizer.pt"
        if optimizer.exists():
            print(f"Loading optimizer state from {optimizer}")
            try:
                self.take_optimizer(optimizer)
                print("Updating optimizer LR from params")
            except (zipfile.BadZipFile, ValueError):
                print(f"Failed to load optimizer state from {optimizer}")
        return step

    def _read_datasets(self) -> None:
        for dataset in self.config.get("datasets", []):
            resolutions = dataset.get("resolution", 512)
            for resolution in resolutions if isinstance(resolutions, list) else [resolutions]:
                self._read_dataset(Path(dataset["folder_path"]), int(resolution), int(dataset.get("num_repeats", 1)))

    def _read_dataset(self, folder: Path, resolution: int, repeats: int) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        print(f"Dataset: {folder}")
        print("  -  Preprocessing image dimensions")
        # Each repeat is read, and counted, for itself.
        paths = _pictures(folder) * repeats
        bar = Bar("", len(paths))
        images = []
        for path in paths:
            try:
                self.read_picture(path, resolution)
                images.append(path)
            except (ValueError, OSError) as exc:
                print(f"{traceback.format_exc()}\nError processing image: {path}\n{exc}")
            bar.update()
        write("\n")
        print(f"  -  Found {len(images)} images")
        if not images:
            raise AssertionError(f"no images found in {folder}")
        print(f"Bucket sizes for {folder}:\n{resolution}x{resolution}: {len(images)} files\n1 buckets made")
        print(f"Caching latents for {folder}\n - Saving latents to disk")
        (folder / ".aitk_size.json").write_text("{}")
        (folder / "_latent_cache").mkdir(exist_ok=True)
        bar = Bar("Caching latents to disk", len(images))
        for path in images:
            self.cache_latents(path, resolution)
            bar.update()
        write("\n")

    def _train(self, log: LossLog | None) -> None:
        self.bar = bar = Bar(self.name, self.steps, done=self.start)
        for step in range(self.start, self.steps):
            self.step = step
            loss = self._one_step(step)
            if loss is not None:
                bar.postfix(f"lr: {self.lr:.1e} loss: {loss:.3e}")
            # The first of an attempt is neither saved nor logged.
            if step != self.start:
                self._after_step(step, loss, log)
            bar.update()
            self.step = step + 1
            self._listen()
        bar.close()
        self.bar = None

    def _after_step(self, step: int, loss: float | None, log: LossLog | None) -> None:
        if step % self.save_every == 0:
            with self._paused():
                self._save(step)
        if step % self.sample_every == 0 and self.makes_samples:
            with self._paused():
                self._sample(step)
        if log and loss is not None:
            log.add(step, loss, self.lr)
        if self.speed_every and step % self.speed_every == 0:
            self._tell_speed()

    def _tell_speed(self) -> None:
        if os.environ.get("IS_AI_TOOLKIT_UI") != "1":
            print(f"\nTimer '{self.name} Timer':\n - {self.step_s:.4f}s avg - train_loop, num = 10\n")
        if self.bar and self.bar.speed:
            self.control.tell(speed_string=self.bar.speed)

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        if self.bar:
            self.bar.pause()
        yield
        if self.bar:
            self.bar.unpause()

    def _one_step(self, step: int) -> float | None:
        time.sleep(self.step_s)
        faults = self.faults
        if faults.is_at("kill_at", step):
            die()
        if faults.is_at("hang_at", step):
            hang()
        if faults.is_at("interrupt_at", step):
            signal.raise_signal(signal.SIGINT)
        if faults.is_at("error_at", step):
            raise RuntimeError("CUDA error: unspecified launch failure")
        if faults.is_at("oom_at", step):
            self.oom_in_row += 1
            if self.oom_in_row > OOM_LIMIT:
                raise RuntimeError(f"OOM during training step {OOM_LIMIT} times in a row, aborting training")
            line = f"# OOM during training step, skipping batch {self.oom_in_row}/{OOM_LIMIT} #"
            print(f"\n{'#' * len(line)}\n{line}\n{'#' * len(line)}\n")
            return None
        self.oom_in_row = 0
        if faults.is_from("nan_from", step) and not faults.is_from("nan_until", step):
            print("loss is nan")
            return 0.0
        return self.learn(step)

    def _listen(self) -> None:
        self.control.tell(step=self.step)
        self._require_going()
        if self.control.is_asked("save_now"):
            self.control.tell(save_now=0)
            with self._paused():
                self._save(self.step)

    def _require_going(self) -> None:
        if self.control.is_asked("stop") and not self.faults.has("ignore_stop"):
            self.control.tell(status="stopped", info="Job stopped")
            self.is_stopping = True
            raise Exception("Job stopped")

    def _save(self, step: int | None) -> None:
        """`None`: the end. The stop flag is looked at first: a stop that comes too early skips the save."""
        known = self.step if step is None else step
        if step is not None:
            # Of the step that it says, and of the one that is being looked at for a stop.
            print(f"\nSaving at step {step}")
        self._require_going()
        self.control.tell(info="Saving model")
        self.last_save_step = self.last_save_step if step is None else step
        if self.faults.is_at("disk_full_at", known):
            raise OSError(28, "No space left on device", str(self.folder))
        path = self.folder / (f"{self.name}.safetensors" if step is None else f"{self.name}_{step:09d}.safetensors")
        write_weights(path, self.pack_weights(known), self.faults, known)
        print(f"Saved checkpoint to {path}")
        optimizer = self.folder / "optimizer.pt"
        try:
            write_optimizer(optimizer, known, self.faults, self.pack_optimizer(known))
            print(f"Saved optimizer to {optimizer}")
        except OSError as exc:
            print(f"{exc}\nCould not save optimizer")
        saves = sorted(self.folder.glob(f"{self.name}_*.safetensors"), key=os.path.getctime)
        for old in saves[: -self.kept]:
            print(f"Removing old save: {old}")
            old.unlink()
        self._require_going()
        self.control.tell(info="Training")

    def _sample(self, step: int) -> None:
        self._require_going()
        self.control.tell(info=f"Generating images - 0/{len(self.prompts)}")
        folder = self.folder / "samples"
        for made in (".tmp", ".thumbs"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        bar = Bar("Generating Images", len(self.prompts), is_below=self.bar is not None)
        for index in range(len(self.prompts)):
            self._make_sample(folder, f"{int(time.time() * 1000)}__{step:09d}_{index}.jpg", self.draw(index))
            self._require_going()
            self.control.tell(info=f"Generating images - {index + 1}/{len(self.prompts)}")
            bar.update()
        bar.clear()
        print()
        self._require_going()
        self.control.tell(info="Training")

    def _make_sample(self, folder: Path, name: str, content: bytes) -> None:
        part = folder / ".tmp" / name
        part.write_bytes(content)
        os.replace(part, folder / name)
        (folder / ".thumbs" / f"{name}.jpg").write_bytes(content)

    def load_model(self) -> None:
        pass

    def build_network(self) -> int:
        """Returns the number of modules."""
        return 48

    def take_weights(self, path: Path) -> int:
        """Returns the step they are of. Raises as safetensors does."""
        return read_step(path)

    def take_optimizer(self, path: Path) -> None:
        """Raises `ValueError` or `zipfile.BadZipFile`."""
        read_optimizer(path)

    def read_picture(self, path: Path, resolution: int) -> None:
        """Raises `ValueError` or `OSError`."""
        if not is_picture(path):
            raise ValueError(f"cannot identify image file '{path}'")

    def cache_latents(self, path: Path, resolution: int) -> None:
        pass

    def learn(self, step: int) -> float:
        """Returns the loss."""
        return 1.0 / (1.0 + math.log1p(step))

    def pack_weights(self, step: int) -> bytes:
        return pack_weights(step, self.name, is_infinite=self.faults.is_from("inf_at", step))

    def pack_optimizer(self, step: int) -> bytes:
        return pack_optimizer(step)

    def draw(self, index: int) -> bytes:
        """A sample of that prompt: JPEG."""
        return PICTURE


class OutOfMemoryError(RuntimeError):
    pass


class GatedRepoError(OSError):
    pass


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _prompts(sample: dict[str, Any]) -> list[str]:
    """Both ways of writing them down; the newer one wins."""
    return [str(each["prompt"]) for each in sample.get("samples") or ()] or list(sample.get("prompts", []))
