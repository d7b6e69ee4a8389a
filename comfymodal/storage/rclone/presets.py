"""How rclone is told to move these files between these places. Pure; the figures are measured, see the docstrings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfymodal.storage.values import Folder, Place, Remote

MIB = 1 << 20
SMALL_FILE = 8 * MIB
MANY_FILES = 200
PUSH_MEMORY = 2 << 30

# `--retries 1`: we run it again ourselves, and only for the files that are still missing. rclone would begin anew.
# `--low-level-retries 3`: they multiply, within a request and around it; five keep one bad file busy for minutes, ten
# for an hour.
# `--no-unicode-normalization`: names are bytes; two that only look the same are two files.
COMMON = (
    "--use-json-log",
    *("--log-level", "INFO"),
    *("--stats", "1s"),
    *("--stats-log-level", "NOTICE"),
    *("--retries", "1"),
    *("--low-level-retries", "3"),
    *("--timeout", "60s"),
    *("--contimeout", "15s"),
    "--check-first",
    *("--order-by", "size,mixed"),
    "--no-unicode-normalization",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator or the place allows; None is no limit."""

    transfers: int | None = None
    """Files at a time."""
    bwlimit: str | None = None
    """As rclone takes it: `10M`, `08:00,1M 23:00,off`."""
    max_s: float | None = None
    """The copy ends after so many seconds, in the middle of a file if need be."""
    memory_bytes: int | None = None
    """What an upload may hold in memory."""


@dataclass(frozen=True, slots=True)
class Preset:
    name: str
    flags: tuple[str, ...]
    attempts: int = 3
    """Runs of rclone in all; each after the first is for the files that are still missing."""
    pause_s: float = 5.0
    max_s: float | None = None
    """For all runs together."""


def choose_preset(source: Place, target: Place, sizes: Sequence[int], limits: Limits | None = None) -> Preset:
    """The flags for a copy of files of these sizes (bytes)."""
    limits = limits or Limits()
    name, flags = _by_kind(source, target, sizes, limits)
    if limits.transfers:
        flags = [*flags, "--transfers", str(limits.transfers)]
    if limits.bwlimit:
        flags = [*flags, "--bwlimit", limits.bwlimit]
    if isinstance(source, Folder):
        # A model that is a link to another disk is a model. rclone would leave it out and call that a success.
        flags = [*flags, "--copy-links"]
    return Preset(name, (*COMMON, *flags), max_s=limits.max_s)


def split_by_size(sizes: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of small files and of large ones: each group wants flags of its own when both are many."""
    small = tuple(path for path, size in sizes.items() if size <= SMALL_FILE)
    if len(small) < MANY_FILES:
        return (), tuple(sizes)
    return small, tuple(path for path, size in sizes.items() if size > SMALL_FILE)


def _by_kind(source: Place, target: Place, sizes: Sequence[int], limits: Limits) -> tuple[str, list[str]]:
    if len(sizes) >= MANY_FILES and max(sizes) <= SMALL_FILE:
        # Latency decides: 400 files at 60 ms a request take 11 s four at a time, 2 s 32 at a time.
        flags = ["--transfers", "32", "--checkers", "32", "--multi-thread-streams", "0"]
        if isinstance(source, Folder) and isinstance(target, Remote) and target.kind == "s3":
            # Each upload would be asked for again, which doubles the calls; who planned them lists them afterwards.
            flags.append("--s3-no-head")
        return "small", flags
    if isinstance(target, Remote):
        if isinstance(source, Remote):
            return "server", ["--transfers", "8", "--checkers", "16"]
        return f"push-{target.kind}", _push(target, limits)
    if isinstance(target, Folder) and target.volume_version == 1:
        # A v1 volume rewrites a file on a write in its middle: one stream, front to back, and nothing set aside.
        flags = ["--multi-thread-streams", "0", "--local-no-preallocate"]
        return "pull-v1", ["--transfers", "4", "--checkers", "16", *flags]
    flags = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M", "--multi-thread-chunk-size", "64M"]
    return "pull", ["--transfers", "4", "--checkers", "16", *flags]


def _push(target: Remote, limits: Limits) -> list[str]:
    # Held in memory: transfers x concurrency x chunk.
    chunk, concurrency = (96, 4) if target.kind == "b2" else (64, 4)
    allowed = limits.memory_bytes or PUSH_MEMORY
    transfers = max(1, min(4, allowed // (chunk * MIB * concurrency)))
    kind = target.kind
    return [
        *("--transfers", str(transfers), "--checkers", "16"),
        *(f"--{kind}-chunk-size", f"{chunk}M", f"--{kind}-upload-concurrency", str(concurrency)),
        # Whatever goes up in parts is then read from the disk part by part; below its default of 256M that would be
        # held in memory, and take twice as much as the sum above says.
        *(f"--{kind}-upload-cutoff", "200M", "--multi-thread-cutoff", "200M"),
    ]
