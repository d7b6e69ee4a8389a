"""One training of the stand-in, from loading to the last sample."""

from __future__ import annotations

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
        self.prompts = [] if train.get("disable_sampling") else list(sample.get("prompts", []))
        self.control = Control(config.get("sqlite_db_path"), is_off=self.faults.has("no_control"))
        self.rank = int(config.get("network", {}).get("linear", 4))
        self.lr = 1.0e-04
        self.step = 0
        self.oom_in_row = 0
        self.is_stopping = False

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(json.dumps(self.config))
        self.control.tell(status="running", info="Loading model")
        self._load()
        self._build_network()
        start = self._resume()
        self.control.tell(info="Loading dataset")
        self._read_datasets()
        if start <= 1 and self.prompts:
            print("Generating baseline samples before training")
            self._sample(0)
        else:
            print("Skipping first sample due to config setting")
        self._train(start)
        self.step = max(start, self.steps)
        self._save(None)
        if self.faults.has("hang_at_end"):
            hang()
        self._sample(self.step)
        self.control.tell(status="completed", info="Training completed")

    def on_error(self, exc: Exception) -> None:
        if not self.is_stopping:
            self.control.tell(status="error", info=str(exc))

    def exit_code(self) -> int:
        return int(self.faults.number("exit_code", 0))

    def _load(self) -> None:
        if self.faults.has("leave_child"):
            # It holds the pipe as loaders of data do.
            script = "import time; time.sleep(120)"
            subprocess.Popen([sys.executable, "-c", script, self.folder], stdin=subprocess.DEVNULL)
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
                self._read_dataset(Path(dataset["folder_path"]), int(resolution))

    def _read_dataset(self, folder: Path, resolution: int) -> None:
        print(f"Dataset: {folder}")
        if not folder.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        print("  -  Preprocessing image dimensions")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        bar = Bar("", len(paths))
        images = []
        for path in paths:
            try:
                self.read_picture(path, resolution)
                images.append(path)
            except (ValueError, OSError):
                traceback.print_exc()
                print(f"Error processing image: {path}")
            bar.update()
        write("\n")
        if not images:
            raise AssertionError(f"no images found in {folder}")
        print(f"  -  Found {len(images)} images")
        print(f"Bucket sizes for {folder}:\n{resolution}x{resolution}: {len(images)} files\n1 buckets made")
        print(f"Caching latents for {folder}\n - Saving latents to disk")
        (folder / ".aitk_size.json").write_text("{}")
        (folder / "_latent_cache").mkdir(exist_ok=True)
        bar = Bar("Caching latents to disk", len(images))
        for path in images:
            self.cache_latents(path, resolution)
            bar.update()
        write("\n")

    def _train(self, start: int) -> None:
        log = None
        if self.config.get("logging", {}).get("use_ui_logger"):
            log = LossLog(self.folder / "loss_log.db", first_step=start)
        bar = Bar(self.name, self.steps, done=start)
        self.control.tell(info="Training")
        for step in range(start, self.steps):
            self.step = step
            loss = self._one_step(step)
            if loss is not None:
                bar.postfix(f"lr: {self.lr:.1e} loss: {loss:.3e}")
                if log:
                    log.add(step, loss, self.lr)
            if step % self.save_every == 0 and step != start:
                write("\n")
                self._save(step)
            if step % self.sample_every == 0 and step != start:
                self._sample(step)
            bar.update()
            self._listen(step)
        write("\n")
        if log:
            log.close()

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

    def _listen(self, step: int) -> None:
        self.control.tell(step=step + 1, speed_string="10.00 iter/sec")
        self._require_going()
        if self.control.is_asked("save_now"):
            self.control.tell(save_now=0, info="Saving model")
            self._save(step + 1)
            self.control.tell(info="Training")

    def _require_going(self) -> None:
        if self.control.is_asked("stop") and not self.faults.has("ignore_stop"):
            self.is_stopping = True
            self.control.tell(status="stopped", info="Job stopped")
            raise RuntimeError("Job stopped")

    def _save(self, step: int | None) -> None:
        """`None`: the end. The stop flag is looked at first: a stop that comes too early skips the save."""
        self._require_going()
        known = self.step if step is None else step
        if step is not None:
            print(f"Saving at step {step}")
        if self.faults.is_at("disk_full_at", known):
            raise OSError(28, "No space left on device", str(self.folder))
        path = self.folder / (f"{self.name}.safetensors" if step is None else f"{self.name}_{step:09d}.safetensors")
        write_weights(path, self.pack_weights(known), self.faults, known)
        print(f"Saved checkpoint to {path}")
        optimizer = self.folder / "optimizer.pt"
        write_optimizer(optimizer, known, self.faults, self.pack_optimizer(known))
        print(f"Saved optimizer to {optimizer}")
        saves = sorted(self.folder.glob(f"{self.name}_*.safetensors"), key=os.path.getctime)
        for old in saves[: -self.kept]:
            print(f"Removing old save: {old}")
            old.unlink()

    def _sample(self, step: int) -> None:
        if not self.prompts:
            return
        folder = self.folder / "samples"
        (folder / ".tmp").mkdir(parents=True, exist_ok=True)
        write("\n")
        bar = Bar("Generating Images", len(self.prompts))
        for index in range(len(self.prompts)):
            part = folder / ".tmp" / f"{index}.jpg"
            part.write_bytes(self.draw(index))
            os.replace(part, folder / f"{int(time.time() * 1000)}__{step:09d}_{index}.jpg")
            bar.update()
        with contextlib.suppress(OSError):
            bar.close()

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
