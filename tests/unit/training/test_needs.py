from __future__ import annotations

from dataclasses import replace

import pytest

from comfymodal.training.ai_toolkit.archs import ARCHS
from comfymodal.training.ai_toolkit.reading import bits_of, load_of
from comfymodal.training.config import TrainingConfig, TrainingDataset
from comfymodal.training.needs import (
    MODELS,
    Load,
    StepTime,
    Work,
    cannot_train_on,
    disk_need,
    host_memory_gb,
    judge,
    memory_need,
    risk_s,
    run_time,
    step_time,
)

FLUX = Load("flux", bits=8, text_bits=8)


def test_every_size_is_of_an_architecture_that_exists() -> None:
    assert set(MODELS) <= set(ARCHS)


def test_what_the_trainer_documents_is_taken_with_its_source() -> None:
    need = memory_need(FLUX)

    assert need is not None
    assert (need.gb, need.certainty, need.source) == (24, "documented", "ai-toolkit's example config for 24 GB")
    # The arithmetic stands beside it and says nearly the same.
    assert 20 < sum(need.parts.values()) < 26
    assert [judge(need, gb) for gb in (24, 22, 16)] == ["fits", "tight", "too_small"]


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(replace(FLUX, bits=16), id="not quantized"),
        pytest.param(replace(FLUX, text_bits=16), id="text encoder not quantized"),
        pytest.param(replace(FLUX, resolution=1536), id="larger"),
        pytest.param(replace(FLUX, batch_size=2), id="two at a time"),
        pytest.param(replace(FLUX, rank=128), id="high rank"),
        pytest.param(replace(FLUX, has_checkpointing=False), id="no checkpointing"),
        pytest.param(replace(FLUX, has_small_optimizer=False), id="large optimizer"),
        pytest.param(replace(FLUX, is_full_finetune=True), id="full fine-tune"),
        pytest.param(replace(FLUX, frames=33), id="video"),
    ],
)
def test_whatever_needs_more_than_documented_is_an_estimate_and_more(load: Load) -> None:
    usual, need = memory_need(FLUX), memory_need(load)

    assert usual is not None
    assert need is not None
    assert need.certainty == "estimate"
    assert need.gb > sum(usual.parts.values())


@pytest.mark.parametrize(
    ("load", "gb"),
    [
        # Documented figures, which the arithmetic must come near to be believed elsewhere.
        pytest.param(Load("flux", bits=8, text_bits=8), 24, id="flux"),
        pytest.param(Load("hidream", bits=8, text_bits=8), 35.2, id="hidream"),
        pytest.param(Load("qwen_image_edit", bits=3, keeps_text_encoder=False), 32, id="qwen edit, loading counts"),
        pytest.param(Load("lumina2"), 20, id="lumina2"),
        pytest.param(Load("wan22_14b", bits=8, keeps_text_encoder=False), 28, id="wan 2.2"),
    ],
)
def test_the_arithmetic_comes_near_to_what_is_documented(load: Load, gb: float) -> None:
    need = memory_need(load)

    assert need is not None
    assert need.gb == gb
    # A documented card may be larger than needed; never much smaller.
    assert 0.4 * gb < sum(need.parts.values()) < 1.4 * gb


def test_an_estimate_wants_a_reserve() -> None:
    need = memory_need(Load("sdxl"))

    assert need is not None
    assert need.certainty == "estimate"
    assert judge(need, need.gb) == "tight"
    assert judge(need, 1.2 * need.gb) == "fits"
    assert judge(need, 0.8 * need.gb) == "too_small"


def test_one_expert_of_two_waits_in_main_memory_with_low_vram() -> None:
    both, one = (memory_need(Load("wan22_14b_i2v", bits=8, low_vram=low)) for low in (False, True))

    assert both is not None
    assert one is not None
    assert both.parts["model"] == 2 * one.parts["model"]


def test_what_is_not_known_is_none_and_never_a_guess() -> None:
    unknown = Load("krea2")

    assert memory_need(unknown) is None
    assert host_memory_gb(unknown) is None
    assert disk_need(unknown, 1, 1, 1) is None
    assert step_time(unknown, "L40S") is None
    assert step_time(FLUX, "RTX4090") is None
    assert run_time(unknown, StepTime(1, 1, 1, "measured"), Work(10)) is None


def test_the_small_wan_goes_by_its_model_s_name() -> None:
    small = memory_need(Load("wan21", model_name="Wan-AI/Wan2.1-T2V-1.3B-Diffusers"))
    large = memory_need(Load("wan21", model_name="Wan-AI/Wan2.1-T2V-14B-Diffusers"))

    assert small is not None
    assert large is not None
    assert small.parts["model"] * 10 < large.parts["model"]


def test_a_t4_is_of_no_use() -> None:
    assert cannot_train_on("T4") is not None
    assert cannot_train_on("L4") is None


@pytest.mark.parametrize(("arch", "gb"), [("sdxl", 16), ("flux", 64), ("wan22_14b", 128), ("flux2", 128)])
def test_main_memory_holds_the_weights_before_they_are_quantized(arch: str, gb: int) -> None:
    assert host_memory_gb(Load(arch)) == gb


def test_disk_grows_with_the_saves_and_the_rank() -> None:
    few, many = disk_need(FLUX, 10**8, 60, 2), disk_need(FLUX, 10**8, 60, 10)
    high = disk_need(replace(FLUX, rank=64), 10**8, 60, 2)

    assert few is not None
    assert many is not None
    assert high is not None
    # A LoRA of rank 16 for FLUX has 172 MB.
    assert many.scratch - few.scratch == pytest.approx(8 * 0.172, rel=0.05)
    assert few.download == many.download > 30
    assert high.volume == pytest.approx(4 * few.volume, rel=0.01)


def test_a_measured_step_beats_the_arithmetic() -> None:
    guess, measured = step_time(FLUX, "A100-80GB"), step_time(FLUX, "A100-80GB", measured_s=2.0)

    assert guess is not None
    assert measured is not None
    assert (guess.certainty, measured.certainty) == ("estimate", "measured")
    assert guess.low == guess.seconds / 2
    assert (measured.seconds, measured.high < guess.high) == (2.0, True)
    # Unknown sizes and cards do not matter any more.
    assert step_time(Load("krea2"), "RTX4090", measured_s=2.0) is not None


def test_steps_grow_with_pictures_and_shrink_with_the_card() -> None:
    def seconds(load: Load, gpu: str = "A100-80GB") -> float:
        found = step_time(load, gpu)
        assert found is not None
        return found.seconds

    assert seconds(FLUX, "H100:1") < seconds(FLUX) < seconds(FLUX, "L4")
    assert seconds(FLUX, "H100!") == seconds(FLUX, "H100")
    assert seconds(replace(FLUX, batch_size=2)) > 1.8 * seconds(FLUX)
    assert seconds(replace(FLUX, mean_area=512 * 512)) < seconds(FLUX) / 2
    assert seconds(Load("wan21", frames=33)) > 5 * seconds(Load("wan21"))


def test_a_run_is_more_than_its_steps() -> None:
    step = StepTime(3, 2, 4, "measured")
    cold = run_time(FLUX, step, Work(1000, samples=40, items=60))
    warm = run_time(FLUX, step, Work(1000), is_cached=True)

    assert cold is not None
    assert warm is not None
    assert cold.parts["steps"] == warm.parts["steps"] == 3000
    assert cold.seconds == sum(cold.parts.values()) > warm.seconds > 3000
    assert cold.low < cold.seconds < cold.high
    assert risk_s(step, 250) == 750


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("qfloat8", 8),
        ("float8", 8),
        ("uint4", 4),
        ("uint3|ostris/adapters/qwen.safetensors", 3),
        ("bf16", 16),
        (None, 8),
    ],
)
def test_bits_by_the_name_of_a_quantization(name: str | None, bits: int) -> None:
    assert bits_of(name) == bits


def config(**changes: object) -> TrainingConfig:
    dataset = TrainingDataset("/d", (512, 1024), batch_size=2, num_frames=9)
    usual = TrainingConfig(
        engine="ai-toolkit",
        name="x",
        arch="flux",
        base_model="black-forest-labs/FLUX.1-dev",
        extra_models=(),
        is_full_finetune=False,
        rank=32,
        alpha=32,
        steps=2000,
        save_every=250,
        keep_saves=4,
        batch_size=1,
        gradient_accumulation=1,
        lr=1e-4,
        optimizer="adamw8bit",
        dtype="bf16",
        is_quantized=True,
        is_text_encoder_quantized=True,
        quantization="uint4",
        low_vram=True,
        gradient_checkpointing=True,
        trains_text_encoder=False,
        caches_text_embeddings=False,
        uses_ema=False,
        trigger_word=None,
        seed=None,
        datasets=(dataset,),
        sample_every=250,
        sample_steps=20,
        sample_prompts=(),
        samples_at_start=True,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_a_checked_config_tells_its_load() -> None:
    load = load_of(config(), mean_area=1000)

    assert load == Load(
        arch="flux",
        mean_area=1000,
        batch_size=2,
        frames=9,
        bits=4,
        text_bits=8,
        rank=32,
        low_vram=True,
        model_name="black-forest-labs/FLUX.1-dev",
    )
    plain = load_of(config(is_quantized=False, is_text_encoder_quantized=False, optimizer="prodigy"))
    assert (plain.bits, plain.text_bits, plain.has_small_optimizer) == (16, 16, False)
    assert not load_of(config(caches_text_embeddings=True)).keeps_text_encoder
    assert load_of(config(caches_text_embeddings=True, trains_text_encoder=True)).keeps_text_encoder
