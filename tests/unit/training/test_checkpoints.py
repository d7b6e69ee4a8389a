from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comfymodal.errors import ServiceError
from comfymodal.training.checkpoints import (
    CheckpointStore,
    Keep,
    NotFiniteError,
    OvertakenError,
    Pair,
    retained,
)
from comfymodal.training.state import STATE_FILE, Checkpoint, read_state
from comfymodal.training.weights import DamagedError
from tests.doubles.trainer.faults import Faults
from tests.doubles.trainer.files import pack_weights, read_optimizer, write_optimizer

NONE = Faults({})


def save(folder: Path, step: int, *, is_final: bool = False, is_infinite: bool = False) -> Pair:
    folder.mkdir(exist_ok=True)
    path = folder / ("tiny.safetensors" if is_final else f"tiny_{step:09d}.safetensors")
    path.write_bytes(pack_weights(step, "tiny", is_infinite=is_infinite))
    write_optimizer(folder / "optimizer.pt", step, NONE)
    return Pair.just_saved((path,), folder / "optimizer.pt", is_final=is_final, announced_step=step)


def nothing() -> None:
    pass


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "local"


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "volume")


def publish(store: CheckpointStore, local: Path, *steps: int) -> None:
    for step in steps:
        store.publish(save(local, step), nothing)


def test_what_is_published_comes_back(store: CheckpointStore, local: Path, tmp_path: Path) -> None:
    publish(store, local, 8, 16)

    restored = store.restore(tmp_path / "new")

    assert restored.checkpoint is not None
    assert (restored.checkpoint.step, restored.rejected) == (16, ())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["optimizer.pt", "tiny_000000016.safetensors"]
    assert read_optimizer(tmp_path / "new" / "optimizer.pt") == 16


def test_the_state_is_written_before_the_commit_and_old_files_go_after(store: CheckpointStore, local: Path) -> None:
    store = replace(store, keep=Keep(weights=2))
    publish(store, local, 8, 16)
    seen: list[tuple[list[int], bool]] = []

    def look() -> None:
        old = store.folder / "checkpoints" / "step-000000008" / "tiny_000000008.safetensors"
        seen.append(([each.step for each in read_state(store.folder) or ()], old.exists()))

    store.publish(save(local, 24), look)

    assert seen == [([16, 24], True)]
    assert sorted(path.name for path in (store.folder / "checkpoints").iterdir()) == [
        "step-000000016",
        "step-000000024",
    ]


def test_a_commit_that_fails_leaves_all_there_is(store: CheckpointStore, local: Path) -> None:
    store = replace(store, keep=Keep(weights=1, optimizers=1))
    publish(store, local, 8)

    def fail() -> None:
        raise ServiceError("no network")

    with pytest.raises(ServiceError):
        store.publish(save(local, 16), fail)

    assert (store.folder / "checkpoints" / "step-000000008" / "optimizer.pt").exists()


def test_a_killed_copy_does_not_count_and_is_cleared_away(store: CheckpointStore, local: Path, tmp_path: Path) -> None:
    publish(store, local, 8)
    left = store.folder / "checkpoints" / "step-000000016"
    left.mkdir()
    (left / "tiny_000000016.safetensors").write_bytes(b"half")

    restored = store.restore(tmp_path / "new")
    publish(store, local, 24)

    assert restored.checkpoint is not None
    assert restored.checkpoint.step == 8
    assert not left.exists()


def test_a_step_that_is_there_already_gets_a_second_folder(store: CheckpointStore, local: Path) -> None:
    publish(store, local, 8, 8)

    assert [each.folder for each in store.entries()] == ["checkpoints/step-000000008", "checkpoints/step-000000008-2"]


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
@pytest.mark.parametrize("which", ["tiny_000000016.safetensors", "optimizer.pt"])
def test_a_bad_newest_pair_gives_way_to_the_one_before(
    store: CheckpointStore, local: Path, tmp_path: Path, which: str, how: str
) -> None:
    publish(store, local, 8, 16)
    path = store.folder / "checkpoints" / "step-000000016" / which
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "cut" else content)

    restored = store.restore(tmp_path / "new")

    assert restored.checkpoint is not None
    assert restored.checkpoint.step == 8
    assert len(restored.rejected) == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["optimizer.pt", "tiny_000000008.safetensors"]


def test_without_any_optimizer_the_newest_weights_are_taken(
    store: CheckpointStore, local: Path, tmp_path: Path
) -> None:
    publish(store, local, 8, 16, 24)
    for path in store.folder.glob("checkpoints/*/optimizer.pt"):
        path.unlink()

    restored = store.restore(tmp_path / "new")

    assert restored.checkpoint is not None
    assert (restored.checkpoint.step, restored.checkpoint.optimizer) == (24, None)


def test_nothing_sound_is_nothing(store: CheckpointStore, local: Path, tmp_path: Path) -> None:
    assert store.restore(tmp_path / "new").checkpoint is None

    publish(store, local, 8)
    for path in store.folder.glob("checkpoints/*/*"):
        path.write_bytes(b"")

    assert store.restore(tmp_path / "other").checkpoint is None
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"version": 1, "checkpoints": [{"step": 1}]}', None])
def test_a_lost_state_is_made_again_from_the_files(store: CheckpointStore, local: Path, content: str | None) -> None:
    publish(store, local, 8, 16)
    store.publish(save(local, 24, is_final=True), nothing)
    before = store.entries()
    if content is None:
        (store.folder / STATE_FILE).unlink()
    else:
        (store.folder / STATE_FILE).write_text(content)
    (store.folder / "checkpoints" / "step-000000032").mkdir()

    found = store.entries()

    assert [replace(each, saved_at=0.0) for each in found] == [replace(each, saved_at=0.0) for each in before]


def test_a_state_that_climbs_out_is_not_believed(store: CheckpointStore, local: Path) -> None:
    publish(store, local, 8)
    state = json.loads((store.folder / STATE_FILE).read_text())
    state["checkpoints"][0]["folder"] = "../../somewhere"
    (store.folder / STATE_FILE).write_text(json.dumps(state))

    assert read_state(store.folder) is None


def test_weights_that_are_no_numbers_do_not_get_in(store: CheckpointStore, local: Path) -> None:
    with pytest.raises(NotFiniteError, match="2 of 12 tensors"):
        store.publish(save(local, 8, is_infinite=True), nothing)

    assert store.entries() == ()
    assert not list(store.folder.glob("checkpoints/*"))


def test_a_damaged_save_does_not_get_in(store: CheckpointStore, local: Path) -> None:
    pair = save(local, 8)
    pair.weights[0].write_bytes(pair.weights[0].read_bytes()[:-4])

    with pytest.raises(DamagedError, match="4 bytes are missing"):
        store.publish(pair, nothing)


def test_weights_of_another_step_than_they_say_are_gone_by_their_header(store: CheckpointStore, local: Path) -> None:
    pair = replace(save(local, 8), announced_step=9)

    assert store.publish(pair, nothing).step == 8


def test_an_optimizer_that_was_written_over_is_left_out(store: CheckpointStore, local: Path) -> None:
    pair = save(local, 8)
    save(local, 16)

    made = store.publish(pair, nothing)

    assert (made.step, made.optimizer) == (8, None)


def test_weights_that_were_removed_meanwhile_are_passed_over(store: CheckpointStore, local: Path) -> None:
    pair = save(local, 8)
    pair.weights[0].unlink()

    with pytest.raises(OvertakenError):
        store.publish(pair, nothing)


def test_both_halves_of_a_model_are_one_checkpoint(store: CheckpointStore, local: Path, tmp_path: Path) -> None:
    pair = save(local, 8)
    halves = tuple(local / f"tiny_000000008_{stage}_noise.safetensors" for stage in ("high", "low"))
    for half in halves:
        half.write_bytes(pack_weights(8, "tiny"))

    store.publish(replace(pair, weights=halves), nothing)
    store.restore(tmp_path / "new")

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "optimizer.pt",
        *(half.name for half in halves),
    ]


def entry(step: int, *, is_final: bool = False) -> Checkpoint:
    from comfymodal.training.state import StoredFile

    file = StoredFile("a", 1, "x")
    return Checkpoint(step, f"checkpoints/{step}", (file,), file, is_final, 0.0)


@pytest.mark.parametrize(
    ("keep", "weights", "optimizers"),
    [
        (Keep(), [1, 2, 3, 4], [3, 4]),
        (Keep(weights=3), [2, 3, 4], [3, 4]),
        # Two one can go on from are kept in any case.
        (Keep(weights=1), [3, 4], [3, 4]),
        (Keep(weights=1, optimizers=0), [4], [4]),
    ],
)
def test_what_is_kept(keep: Keep, weights: list[int], optimizers: list[int]) -> None:
    kept = retained([entry(3), entry(1), entry(4, is_final=True), entry(2)], keep)

    assert [each.step for each in kept] == weights
    assert [each.step for each in kept if each.optimizer] == optimizers
