"""How pictures fall into buckets of one size, and how many batches that makes. Pure.

How a size becomes a bucket is each trainer's own arithmetic and comes in as a function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""

Fit = Callable[[int, int, int], Size]
"""`fit(width, height, resolution)`: the bucket a picture of that size goes to."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One size. `items` counts repeats and flips; `padding` are items shown twice to fill the last batch."""

    width: int
    height: int
    pictures: int
    items: int
    batches: int
    padding: int


@dataclass(frozen=True, slots=True)
class BucketTable:
    """The buckets of one dataset at one resolution, the fullest first.

    `unknown` items (videos, whose size was not read) are in no bucket; `batches` counts them as if of one size.
    """

    resolution: int
    buckets: tuple[Bucket, ...]
    items: int
    unknown: int
    batches: int

    @property
    def is_exact(self) -> bool:
        return not self.unknown


@dataclass(frozen=True, slots=True)
class Sharing:
    """How often each picture is shown an epoch, and with how many others at once."""

    copies: int = 1
    """Repeats, times two for each axis it is flipped on."""
    batch_size: int = 1
    has_buckets: bool = True


@dataclass(frozen=True, slots=True)
class Epoch:
    """Every picture once at every resolution. `batches` a pass, `regular_batches` of regularization sets beside them.

    A step takes `accumulation` batches.
    """

    batches: int
    regular_batches: int
    accumulation: int

    @property
    def steps(self) -> float:
        """Every second step (or nearly) takes a regularization batch where there are any."""
        return self.batches / self.accumulation * (2 if self.regular_batches else 1)

    def count(self, steps: int) -> float:
        """The epochs in so many steps."""
        return steps / self.steps if self.steps else 0.0


def bucket_table(sizes: Sequence[Size], unknown: int, resolution: int, fit: Fit, sharing: Sharing) -> BucketTable:
    """Sort pictures into buckets. Without buckets all are cropped to one square."""
    square = (resolution, resolution)
    counts = Counter(fit(*size, resolution) if sharing.has_buckets else square for size in sizes)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    buckets = tuple(_bucket(size, count, sharing) for size, count in ordered)
    unsized = unknown * sharing.copies
    batches = sum(bucket.batches for bucket in buckets) + _divided(unsized, sharing.batch_size)
    return BucketTable(resolution, buckets, len(sizes) * sharing.copies + unsized, unsized, batches)


def make_epoch(
    tables: Iterable[tuple[BucketTable, Sharing]], regular: Iterable[tuple[BucketTable, Sharing]], accumulation: int = 1
) -> Epoch:
    """One pass over all datasets at all resolutions. `accumulation`: batches a step takes."""
    return Epoch(_batches(list(tables)), _batches(list(regular)), max(1, accumulation))


def _batches(tables: Sequence[tuple[BucketTable, Sharing]]) -> int:
    bucketed = sum(table.batches for table, sharing in tables if sharing.has_buckets)
    # Without buckets batches are drawn from all datasets together.
    loose = [(table, sharing) for table, sharing in tables if not sharing.has_buckets]
    size = max((sharing.batch_size for _, sharing in loose), default=1)
    return bucketed + _divided(sum(table.items for table, _ in loose), size)


def _bucket(size: Size, pictures: int, sharing: Sharing) -> Bucket:
    items = pictures * sharing.copies
    batches = _divided(items, sharing.batch_size)
    padding = batches * sharing.batch_size - items if sharing.has_buckets else 0
    return Bucket(*size, pictures, items, batches, padding)


def _divided(items: int, batch_size: int) -> int:
    return -(-items // max(1, batch_size))
