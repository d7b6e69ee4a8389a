from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.storage.rclone.names import plan_bytes, why_refused
from comfymodal.storage.rclone.presets import MIB, Limits, Preset, choose_preset, split_by_size
from comfymodal.storage.values import Folder, Remote

B2 = Remote("b2", "b2", "models")
S3 = Remote("s3", "s3", "models")
BIG = [2048 * MIB] * 4
SMALL = [20_000] * 5000


def folder(version: int | None = None) -> Folder:
    return Folder(Path("/vol"), version)


def value(preset: Preset, flag: str) -> str:
    # The last one counts.
    last = len(preset.flags) - 1 - preset.flags[::-1].index(flag)
    return preset.flags[last + 1]


def test_nothing_dangerous_is_ever_used() -> None:
    for source, target in ((B2, folder()), (B2, folder(1)), (folder(), B2), (folder(), S3), (B2, B2)):
        for sizes in (BIG, SMALL, []):
            flags = choose_preset(source, target, sizes).flags
            assert not {"--inplace", "--ignore-existing", "--size-only", "--b2-hard-delete", "-vv"} & set(flags)


def test_a_v1_volume_is_written_front_to_back() -> None:
    assert choose_preset(B2, folder(1), BIG).name == "pull-v1"
    assert value(choose_preset(B2, folder(1), BIG), "--multi-thread-streams") == "0"
    assert "--local-no-preallocate" in choose_preset(B2, folder(1), BIG).flags
    for version in (2, None):
        preset = choose_preset(B2, folder(version), BIG)
        assert value(preset, "--multi-thread-streams") == "4"
        assert "--local-no-preallocate" not in preset.flags


def test_many_small_files_go_many_at_a_time() -> None:
    assert value(choose_preset(S3, folder(), SMALL), "--transfers") == "32"
    assert value(choose_preset(S3, folder(), SMALL[:10]), "--transfers") == "4"
    # One large file among them would be held in memory 32 times over when it is pushed.
    assert value(choose_preset(folder(), B2, [*SMALL, *BIG]), "--transfers") == "4"


@pytest.mark.parametrize(("memory", "transfers"), [(None, 4), (1 << 30, 2), (400 << 20, 1), (1 << 20, 1)])
def test_a_push_fits_in_memory(memory: int | None, transfers: int) -> None:
    preset = choose_preset(folder(), B2, BIG, Limits(memory_bytes=memory))

    assert value(preset, "--transfers") == str(transfers)


def test_limits_win() -> None:
    preset = choose_preset(B2, folder(), SMALL, Limits(transfers=3, bwlimit="10M", max_s=60))

    assert value(preset, "--transfers") == "3"
    assert value(preset, "--bwlimit") == "10M"
    assert preset.max_s == 60


def test_only_a_local_source_follows_links() -> None:
    assert "--copy-links" in choose_preset(folder(), B2, BIG).flags
    assert "--copy-links" not in choose_preset(B2, folder(), BIG).flags


def test_groups_by_size() -> None:
    few = {"a": 1, "b": 1 << 30}
    many = {**{f"s{number}": 10 for number in range(300)}, "big": 1 << 30}

    assert split_by_size(few) == ((), ("a", "b"))
    small, large = split_by_size(many)
    assert (len(small), large) == (300, ("big",))


@pytest.mark.parametrize("path", ["a", "a/b c", "-x", " x", "x ", "#x", "ü/é", "..x", "x..", ".hidden", "a\\b"])
def test_good_paths(path: str) -> None:
    assert why_refused(path) is None
    assert plan_bytes([path]) == f"{path}\n".encode()


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a\nb", "a\r", "a\0", "\x7f", "\udcff"]
)
def test_bad_paths(path: str) -> None:
    assert why_refused(path)
