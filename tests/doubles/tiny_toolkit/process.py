"""What the stand-in only plays: a model that is loaded, pictures that are read, weights that are learned."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np  # type: ignore[import-not-found, unused-ignore]
import safetensors.torch  # type: ignore[import-not-found, unused-ignore]
import torch  # type: ignore[import-not-found, unused-ignore]
from diffusers import (  # type: ignore[import-not-found, unused-ignore]
    AutoencoderTiny,
    DDIMScheduler,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors import safe_open  # type: ignore[import-not-found, unused-ignore]
from transformers import CLIPTextModel, CLIPTokenizer  # type: ignore[import-not-found, unused-ignore]

from tests.doubles.tiny_toolkit.lora import add_lora, fill_lora, parameters, read_lora
from tests.doubles.trainer.files import metadata
from tests.doubles.trainer.process import TrainProcess

DTYPES = {"float16": torch.float16, "fp16": torch.float16, "float32": torch.float32, "fp32": torch.float32}
SAMPLE_STEPS = 4

# Steps this small are no faster on two, many times slower where others want them too, and not the same twice.
torch.set_num_threads(1)


class LoraProcess(TrainProcess):
    def __init__(self, name: str, config: dict[str, Any]) -> None:
        super().__init__(name, config)
        self.lr = float(config["train"].get("lr", 1e-6))
        self.alpha = float(config["network"].get("linear_alpha", 1.0))
        self.seed = int(config.get("training_seed", 42))
        self.dtype = DTYPES[config.get("save", {}).get("dtype", "float16")]
        self.examples: list[tuple[Any, Any]] = []
        """Latents and what they are called."""
        self.texts: dict[str, Any] = {}

    def load_model(self) -> None:
        folder = self.config["model"]["name_or_path"]
        torch.manual_seed(self.seed)
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", use_safetensors=False)
        self.vae = AutoencoderTiny.from_pretrained(folder, subfolder="vae", use_safetensors=False)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", use_safetensors=False)
        self.scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")

    def build_network(self) -> int:
        modules = add_lora(self.unet, rank=self.rank, alpha=self.alpha)
        self.optimizer = torch.optim.AdamW(parameters(self.unet), lr=self.lr)
        return modules

    def take_weights(self, path: Path) -> int:
        with safe_open(path, framework="pt") as file:
            fill_lora(self.unet, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
            return int(json.loads(file.metadata()["training_info"])["step"])

    def take_optimizer(self, path: Path) -> None:
        try:
            self.optimizer.load_state_dict(torch.load(path, weights_only=True))
        except RuntimeError as exc:
            raise ValueError(str(exc)) from exc
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def read_picture(self, path: Path, resolution: int) -> None:
        with Image.open(path) as image:
            image.load()

    def cache_latents(self, path: Path, resolution: int) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((resolution, resolution)), dtype=np.float32)
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1.0
        caption = path.with_suffix(".txt").read_text().strip()
        with torch.no_grad():
            self.examples.append((self.vae.encode(picture).latents, self._encode(caption)))

    def learn(self, step: int) -> float:
        """Tell the noise in a picture that was noised. Every step draws for itself, so a resumed one draws the same."""
        chance = torch.Generator().manual_seed(self.seed + step)
        latents, text = self.examples[step % len(self.examples)]
        noise = torch.randn(latents.shape, generator=chance)
        at = torch.randint(self.scheduler.config.num_train_timesteps, (1,), generator=chance)
        told = self.unet(self.scheduler.add_noise(latents, noise, at), at, text).sample
        loss = torch.nn.functional.mse_loss(told, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters(self.unet), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())

    def pack_weights(self, step: int) -> bytes:
        tensors = read_lora(self.unet, alpha=self.alpha, dtype=self.dtype)
        return bytes(safetensors.torch.save(tensors, metadata(step, self.name)))

    def pack_optimizer(self, step: int) -> bytes:
        packed = io.BytesIO()
        torch.save(self.optimizer.state_dict(), packed)
        return packed.getvalue()

    def draw(self, index: int) -> bytes:
        sample = self.config["sample"]
        size = (1, 4, int(sample.get("height", 512)) // 8, int(sample.get("width", 512)) // 8)
        latents = torch.randn(size, generator=torch.Generator().manual_seed(int(sample.get("seed", 0))))
        self.scheduler.set_timesteps(SAMPLE_STEPS)
        with torch.no_grad():
            text = self._encode(self.prompts[index])
            for at in self.scheduler.timesteps:
                latents = self.scheduler.step(self.unet(latents, at, text).sample, at, latents).prev_sample
            pixels = self.vae.decode(latents).sample[0].permute(1, 2, 0)
        picture = Image.fromarray(((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())
        packed = io.BytesIO()
        picture.save(packed, "JPEG")
        return packed.getvalue()

    def _encode(self, text: str) -> Any:
        """Each text once; with `[trigger]` in it."""
        if text not in self.texts:
            words = text.replace("[trigger]", str(self.config.get("trigger_word") or ""))
            length = self.encoder.config.max_position_embeddings
            tokens = self.tokenizer([words], padding="max_length", truncation=True, max_length=length)
            with torch.no_grad():
                self.texts[text] = self.encoder(torch.tensor(tokens["input_ids"])).last_hidden_state
        return self.texts[text]
