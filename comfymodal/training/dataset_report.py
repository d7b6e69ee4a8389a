"""What a dataset is before anything is paid for: its files, what is wrong with them, its buckets, its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.training.buckets import BucketTable, Epoch, Size, bucket_table, make_epoch
from comfymodal.training.dataset import Contents, DatasetFile, DatasetSettings, Item, OnProgress, Rules, load_dataset
from comfymodal.training.dataset_checks import Finding, Severity, find_faults


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """One dataset. `items` are what the trainer keeps, `files` all it reads of them, for an upload."""

    settings: DatasetSettings
    items: tuple[Item, ...]
    findings: tuple[Finding, ...]
    tables: tuple[BucketTable, ...]
    """One for each resolution, as configured: each is a pass of its own over all pictures."""
    files: tuple[DatasetFile, ...]
    sha256: str
    """Of the contents and names of all files, in whatever order and place they lie. Caches do not count."""

    @property
    def is_usable(self) -> bool:
        return not self.of("error")

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def captions(self) -> int:
        """Items with a caption of their own."""
        return sum(item.caption is not None and not item.caption.is_empty for item in self.items)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: counts, findings and buckets, not every picture."""
        return {
            "folder": str(self.settings.folder),
            "pictures": sum(item.picture is not None for item in self.items),
            "videos": sum(item.picture is None for item in self.items),
            "captions": self.captions,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "findings": [finding.to_dict() for finding in self.findings],
            "tables": [_table_dict(table) for table in self.tables],
        }


def check_dataset(settings: DatasetSettings, rules: Rules, on_progress: OnProgress | None = None) -> DatasetReport:
    """Read a dataset whole and tell everything of it. Raises nothing for what is wrong with it."""
    contents = load_dataset(settings, rules, on_progress)
    findings = find_faults(settings, rules, contents)
    files = tuple(_read_files(contents, settings))
    tables = tuple(_table(contents.usable, resolution, settings, rules) for resolution in settings.resolutions)
    return DatasetReport(settings, contents.usable, findings, tables, files, fingerprint(files))


def epoch_of(reports: Sequence[DatasetReport], accumulation: int = 1) -> Epoch:
    """One pass over all datasets of a config. `accumulation`: batches a step takes."""
    learned = [(table, report.settings.sharing) for report in reports for table in _tables(report, False)]
    regular = [(table, report.settings.sharing) for report in reports for table in _tables(report, True)]
    return make_epoch(learned, regular, accumulation)


def mean_area(reports: Iterable[DatasetReport]) -> float | None:
    """Pixels of an average picture as it is trained, over all buckets; None without any of known size."""
    buckets = [bucket for report in reports for table in report.tables for bucket in table.buckets]
    items = sum(bucket.items for bucket in buckets)
    return sum(bucket.width * bucket.height * bucket.items for bucket in buckets) / items if items else None


def find_mixed_buckets(reports: Sequence[DatasetReport]) -> tuple[Finding, ...]:
    """What no dataset shows by itself: all have buckets, or none; without them they share one batch size."""
    sharing = [report.settings.sharing for report in reports]
    if len({each.has_buckets for each in sharing}) > 1:
        return (Finding("error", "mixed_buckets", None, "some datasets have buckets and some have none"),)
    if any(not each.has_buckets for each in sharing) and len({each.batch_size for each in sharing}) > 1:
        return (Finding("error", "mixed_batches", None, "without buckets all datasets have one batch size"),)
    return ()


def fingerprint(files: Iterable[DatasetFile]) -> str:
    """A SHA-256 of the files' roles, names and contents; of controls also which of several folders they lie in."""
    listed = list(files)
    folders: dict[tuple[str, Path], int] = {}
    for file in listed:
        folders.setdefault((file.role, file.folder), sum(role == file.role for role, _ in folders))
    lines = sorted(
        f"{file.role}{folders[file.role, file.folder]}\0{file.path}\0{file.sha256}\n".encode("utf-8", "surrogateescape")
        for file in listed
    )
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _read_files(contents: Contents, settings: DatasetSettings) -> Iterator[DatasetFile]:
    """Those of the items that are kept; what belongs to a picture that does not open is not read either."""
    items = {item.path for item in contents.usable}
    own = items | {item.caption_path for item in contents.usable}
    beside = {(each.folder, each.path) for each in contents.companions if each.of in items}
    for file in contents.files:
        is_own = file.role in ("picture", "media", "caption")
        if (file.path in own) if is_own else ((file.folder, file.path) in beside):
            yield file


def _tables(report: DatasetReport, is_regular: bool) -> tuple[BucketTable, ...]:
    return report.tables if report.settings.is_regular == is_regular else ()


def _table(items: Sequence[Item], resolution: int, settings: DatasetSettings, rules: Rules) -> BucketTable:
    sizes = [_scaled(size, settings.scale) for item in items if (size := item.size)]
    unknown = sum(item.size is None for item in items)
    fit = (lambda _width, _height, edge: (edge, edge)) if settings.is_square else rules.fit
    return bucket_table(sizes, unknown, resolution, fit, settings.sharing)


def _scaled(size: Size, scale: float) -> Size:
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _table_dict(table: BucketTable) -> dict[str, Any]:
    return {
        "resolution": table.resolution,
        "items": table.items,
        "batches": table.batches,
        "is_exact": table.is_exact,
        "buckets": [
            {
                "width": bucket.width,
                "height": bucket.height,
                "pictures": bucket.pictures,
                "items": bucket.items,
                "batches": bucket.batches,
                "padding": bucket.padding,
            }
            for bucket in table.buckets
        ],
    }
