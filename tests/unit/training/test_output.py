from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfymodal.training.ai_toolkit.causes import explain
from comfymodal.training.ai_toolkit.output import LONGEST_LINE, OutputReader
from comfymodal.training.events import (
    Bar,
    BatchSkipped,
    Ended,
    Event,
    Failed,
    ImageDropped,
    ImagesFound,
    LossNotFinite,
    NetworkBuilt,
    OptimizerSaved,
    Phase,
    ResumedAt,
    Resuming,
    Said,
    SaveRemoved,
    SaveStarted,
    Step,
    Warned,
    WeightsSaved,
)

LOGS = Path(__file__).parent.parent.parent / "data" / "ai-toolkit-logs"
NAMES = {
    "01_success.stderr": "tiny_lora",
    "01_success.stdout": "tiny_lora",
    "11_resume_second": "res",
    "20_sigint": "sint",
    "21_sigterm": "sterm",
    "50_err_no_job": "none",
    "55_err_missing_dataset": "e4",
    "57_err_hf_missing": "e6",
    "58_err_unknown_arch": "e7",
}


def read(data: bytes | str, name: str = "tiny", *, piece: int = 1 << 20) -> list[Event]:
    content = data.encode() if isinstance(data, str) else data
    reader = OutputReader(name)
    events = [event for at in range(0, len(content), piece) for event in reader.feed(content[at : at + piece])]
    return events + reader.close()


def read_log(log: str, *, piece: int = 1 << 20) -> list[Event]:
    return read((LOGS / f"{log}.log").read_bytes(), NAMES[log], piece=piece)


def without_lines(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, (Said, Bar, Step, Phase))]


@pytest.mark.parametrize("log", NAMES)
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_log_means_the_same_however_it_is_cut(log: str, piece: int) -> None:
    assert read_log(log, piece=piece) == read_log(log)


@pytest.mark.parametrize("log", NAMES)
def test_no_bar_and_no_config_gets_into_the_log(log: str) -> None:
    said = [event.text for event in read_log(log) if isinstance(event, Said)]

    assert said
    assert not [text for text in said if "%|" in text or "training_folder" in text or "\x1b" in text]


def test_a_whole_training_is_read_from_its_bars() -> None:
    steps = [event for event in read_log("01_success.stderr") if isinstance(event, Step)]

    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[0] == Step(0, 10)
    assert steps[1] == Step(0, 10, 0.9072, 1e-4, None, {"loss": 0.9072})
    assert (steps[-1].done, steps[-1].total, steps[-1].loss) == (10, 10, 1.069)
    assert steps[-1].seconds_per_step == pytest.approx(1 / 6.20)


def test_phases_follow_each_other() -> None:
    phases = [event.name for event in read_log("11_resume_second") if isinstance(event, Phase)]

    resumed = ["starting", "loading", "network", "resuming", "dataset", "caching", "dataset", "caching", "training"]
    assert phases == [*resumed, "saving", "training", "saving"]


def test_a_resume_its_saves_and_its_end_are_read() -> None:
    found = Path("/out/res")

    assert without_lines(read_log("11_resume_second")) == [
        NetworkBuilt(48),
        Resuming(f"{found}/res.safetensors"),
        ResumedAt(9),
        ImagesFound("/data/datasets/shapes", 4),
        ImagesFound("/data/datasets/shapes", 4),
        SaveStarted(12),
        WeightsSaved(f"{found}/res_000000012.safetensors"),
        OptimizerSaved(f"{found}/optimizer.pt"),
        SaveRemoved(f"{found}/res_000000004.safetensors"),
        WeightsSaved(f"{found}/res.safetensors"),
        OptimizerSaved(f"{found}/optimizer.pt"),
    ]


def test_a_save_without_the_optimizer_is_one() -> None:
    events = read("Saved checkpoint to /r/tiny.safetensors\n[Errno 28] No space left\nCould not save optimizer\n")

    assert [type(event) for event in without_lines(events)] == [WeightsSaved, Warned, OptimizerSaved]
    assert events[-2] == OptimizerSaved(None)


def test_who_dies_after_a_dropped_image_did_not_die_of_it() -> None:
    dropped = (
        "Traceback (most recent call last):\n  File x\nOSError: truncated\n\nError processing {}: /d/1\ntruncated\n"
    )

    for kind in ("image", "video"):
        assert without_lines(read(dropped.format(kind))) == [ImageDropped("/d/1")]


def test_a_bar_that_knows_no_total_is_no_line() -> None:
    counters = "\rGenerating Images: 0it [00:00, ?it/s]\rDownloading: 12.0MB [01:00, 3.4MB/s]\r1it [00:01,  1.00s/it]\n"

    assert read(counters) == []
    assert read("0it is\n") == [Said("0it is")]


def test_an_interrupt_is_an_end_and_no_failure() -> None:
    events = read_log("20_sigint")

    assert Ended() in events
    assert not [event for event in events if isinstance(event, Failed)]


def test_seconds_a_step_are_read_as_they_are() -> None:
    paces = [event.seconds_per_step for event in read_log("21_sigterm") if isinstance(event, Step) and event.done == 1]

    assert paces == [1.25, 1.25]


@pytest.mark.parametrize(
    ("log", "cause", "said"),
    [
        ("50_err_no_job", "config", "config file must have a job key"),
        ("55_err_missing_dataset", "file_missing", "[Errno 2] No such file or directory: '/data/datasets/nope'"),
        (
            "57_err_hf_missing",
            "offline",
            "black-forest-labs/FLUX.1-dev does not appear to have a file named config.json.",
        ),
    ],
)
def test_failures_are_read_with_their_cause(log: str, cause: str, said: str) -> None:
    (failed,) = [event for event in read_log(log) if isinstance(event, Failed)]

    assert (failed.failure.cause, failed.failure.said) == (cause, said)
    assert read_log(log)[-1] == failed


def test_an_unknown_architecture_looks_like_a_success() -> None:
    events = read_log("58_err_unknown_arch")

    assert not [event for event in events if isinstance(event, Failed)]
    assert WeightsSaved("/out/e7/e7.safetensors") in events


def test_what_is_glued_behind_a_bar_is_read() -> None:
    events = read("\rtiny:  10%|█         | 1/10 [00:00<00:03,  2.42it/s, lr: 1.0e-04 loss: 1.062e+00]loss is nan\n")

    assert [type(event) for event in events] == [Phase, Step, LossNotFinite, Said]


def test_a_bar_is_told_before_the_next_one_comes() -> None:
    reader = OutputReader("tiny")

    events = reader.feed(b"\rtiny:  10%|#         | 1/10 [00:30<04:30, 30.00s/it, lr: 1.0e-04 loss: 1.062e+00]")

    assert events[-1] == Step(1, 10, 1.062, 1e-4, 30.0, {"loss": 1.062})


def test_a_cleared_bar_before_the_name_is_no_part_of_it() -> None:
    (step,) = [each for each in read(f"\r{' ' * 64}\x1b[A\rtiny:  60%|██████| 6/10 [00:01<00:00, 9.81it/s]")[1:]]

    assert isinstance(step, Step)


def test_another_bar_that_ends_with_the_name_is_no_training() -> None:
    events = read("\rCaching latents to disk:  50%|█████     | 1/2 [00:00<00:00,  2.14it/s]", name="x")

    assert events == [Phase("caching"), Bar("caching", "Caching latents to disk", 1, 2)]


def test_downloads_count_bytes() -> None:
    events = read("\rmodel.safetensors:   5%|▌         | 1.20G/24.0G [00:10<03:20, 120MB/s]")

    assert events == [Phase("downloading"), Bar("downloading", "model.safetensors", 1.2e9, 24e9)]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_in_the_bar_may_be_no_number(value: str) -> None:
    (step,) = [each for each in read(f"\rtiny: 60%|# | 6/10 [00:01<?, ?it/s, lr: 1.0e-04 loss: {value}]")[1:]]

    assert isinstance(step, Step)
    assert str(step.loss) == value


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("# OOM during training step, skipping batch 2/3 #", BatchSkipped(2)),
        ("Error processing image: /data/a.png", ImageDropped("/data/a.png")),
        ("create LoRA for U-Net: 0 modules.\nenable LoRA for U-Net", NetworkBuilt(0)),
    ],
)
def test_lines_that_matter(line: str, event: Event) -> None:
    assert event in read(f"{line}\n")


def test_a_lost_optimizer_is_a_warning() -> None:
    (warned,) = [event for event in read("Failed to load optimizer state from /x/optimizer.pt\n") if is_warning(event)]

    assert isinstance(warned, Warned)
    assert warned.code == "optimizer_lost"


def is_warning(event: Event) -> bool:
    return isinstance(event, Warned)


def test_a_stop_that_was_asked_for_is_no_failure() -> None:
    events = read(
        "Error running job: Job stopped\nTraceback (most recent call last):\n  x\nRuntimeError: Job stopped\n"
    )

    assert Ended() in events
    assert not [event for event in events if isinstance(event, Failed)]


def test_a_trainer_that_does_not_even_start_has_failed() -> None:
    (failed,) = [
        event
        for event in read(
            "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'torchao'\n"
        )
        if isinstance(event, Failed)
    ]

    assert failed.failure.cause == "dependencies"
    assert "torchao" in failed.failure.message


def test_a_token_is_not_repeated() -> None:
    (said,) = read(f"using hf_{'a' * 30} now\n")

    assert said == Said("using *** now")


@pytest.mark.parametrize(
    ("exception", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "gpu_memory"),
        ("RuntimeError: OOM during training step 3 times in a row, aborting training", "gpu_memory"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error", "gated"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error", "model_not_found"),
        ("AssertionError: no images found in /data/x", "dataset_empty"),
        ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata", "bad_checkpoint"),
        ("RuntimeError: CUDA error: unspecified launch failure", "gpu_fault"),
        ("ValueError: whatever", "unknown"),
    ],
)
def test_exceptions_have_causes(exception: str, cause: str) -> None:
    assert explain("something useless", [exception]).cause == cause


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_nothing_a_trainer_prints_breaks_the_reader(data: bytes, piece: int) -> None:
    read(data, piece=piece)


def test_an_endless_line_does_not_fill_the_memory() -> None:
    reader = OutputReader("tiny")

    for _ in range(8):
        reader.feed(b"x" * LONGEST_LINE)

    (said,) = reader.close()
    assert isinstance(said, Said)
    assert len(said.text) <= LONGEST_LINE
