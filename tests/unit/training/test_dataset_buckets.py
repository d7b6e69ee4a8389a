from __future__ import annotations

import pytest

from comfymodal.training.ai_toolkit.archs import ARCHS
from comfymodal.training.ai_toolkit.reading import DIVISIBILITY, fit_bucket, rules_for
from comfymodal.training.buckets import Sharing, Size, bucket_table, make_epoch


@pytest.mark.parametrize(
    ("size", "resolution", "divisibility", "bucket"),
    [
        # As `toolkit/buckets.py` of ai-toolkit 27a03a9 gives them (compared by hand for 300,000 random ones).
        pytest.param((1024, 1024), 512, 32, (512, 512), id="square"),
        pytest.param((1920, 1080), 1024, 32, (1344, 768), id="wide"),
        pytest.param((1080, 1920), 768, 16, (576, 1024), id="high"),
        pytest.param((700, 500), 512, 16, (592, 432), id="above the limit"),
        pytest.param((64, 64), 512, 16, (64, 64), id="never scaled up"),
        pytest.param((8, 8), 512, 16, (16, 16), id="but to one block"),
        pytest.param((40, 40), 512, 32, (32, 64), id="a small square in an oblong"),
        pytest.param((4000, 500), 1024, 16, (2912, 352), id="very wide"),
        pytest.param((10, 5000), 512, 32, (32, 4992), id="a line"),
    ],
)
def test_a_size_goes_to_the_trainer_s_bucket(size: Size, resolution: int, divisibility: int, bucket: Size) -> None:
    assert fit_bucket(*size, resolution, divisibility) == bucket


@pytest.mark.parametrize("divisibility", [8, 16, 32])
def test_buckets_keep_to_blocks_and_to_the_limit(divisibility: int) -> None:
    for width in range(1, 2000, 37):
        for height in (1, 17, 333, 999, 1500):
            wide, high = fit_bucket(width, height, 512, divisibility)
            assert wide % divisibility == high % divisibility == 0
            assert min(wide, high) >= divisibility
            # One line of blocks can only be kept to its own length.
            assert wide * high <= 512 * 512 or min(wide, high) == divisibility


def test_every_architecture_that_learns_pictures_has_its_blocks() -> None:
    silent = {name for name, arch in ARCHS.items() if not arch.is_audio}

    assert silent == set(DIVISIBILITY)
    assert rules_for("flux").divisibility == 32
    assert rules_for("sdxl").divisibility == 16
    with pytest.raises(KeyError):
        rules_for("z_image")


def fit(width: int, height: int, resolution: int) -> Size:
    return fit_bucket(width, height, resolution, 32)


SIZES = [(1024, 1024)] * 5 + [(1920, 1080)] * 3


def test_batches_are_counted_bucket_by_bucket() -> None:
    table = bucket_table(SIZES, 0, 1024, fit, Sharing(batch_size=2))

    shown = [(each.width, each.height, each.items, each.batches, each.padding) for each in table.buckets]
    assert shown == [(1024, 1024, 5, 3, 1), (1344, 768, 3, 2, 1)]
    assert (table.items, table.batches, table.is_exact) == (8, 5, True)


def test_repeats_and_flips_fill_batches_up() -> None:
    table = bucket_table(SIZES, 0, 1024, fit, Sharing(copies=4, batch_size=2))

    assert [(each.pictures, each.items, each.batches, each.padding) for each in table.buckets] == [
        (5, 20, 10, 0),
        (3, 12, 6, 0),
    ]


def test_without_buckets_batches_are_drawn_from_all_together() -> None:
    sharing = Sharing(batch_size=4, has_buckets=False)
    one, two = (bucket_table(SIZES, 0, resolution, fit, sharing) for resolution in (512, 768))

    assert [(each.width, each.height, each.items) for each in one.buckets] == [(512, 512, 8)]
    assert make_epoch([(one, sharing), (two, sharing)], []).batches == 4


def test_every_resolution_is_a_pass_of_its_own() -> None:
    sharing = Sharing()
    tables = [(bucket_table(SIZES, 0, resolution, fit, sharing), sharing) for resolution in (512, 768, 1024)]

    epoch = make_epoch(tables, [])

    assert (epoch.batches, epoch.steps, epoch.count(48)) == (24, 24, 2)


def test_accumulation_takes_several_batches_a_step_and_regularization_every_other_step() -> None:
    sharing = Sharing()
    table = (bucket_table(SIZES, 0, 1024, fit, sharing), sharing)

    assert make_epoch([table], [], accumulation=2).steps == 4
    assert make_epoch([table], [table]).steps == 16
    assert make_epoch([], []).count(100) == 0


def test_videos_of_unknown_size_make_the_count_a_guess() -> None:
    table = bucket_table([], 5, 512, fit, Sharing(copies=2, batch_size=4))

    assert (table.items, table.batches, table.is_exact) == (10, 3, False)
