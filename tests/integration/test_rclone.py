"""The real rclone against a real S3 server and our fake of B2's native API, with and without faults on the line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from comfymodal.errors import CancelledError, ComfymodalError, NotFoundError, NotReadyError, ServiceError, TransferError
from comfymodal.storage.rclone.copying import CopyResult, Order, Progress, copy
from comfymodal.storage.rclone.listing import find_files, folders_beside, list_files, list_folder
from comfymodal.storage.rclone.presets import Limits, Preset, choose_preset
from comfymodal.storage.rclone.trashing import delete, restore, trash, trash_folder
from comfymodal.storage.values import Folder, Keys, Place
from tests.doubles import serve_s3 as s3_double
from tests.doubles.b2_native import B2Native
from tests.doubles.serve_s3 import ServedS3, serve_s3
from tests.doubles.storage_proxy import EXPIRED, StorageProxy
from tests.doubles.stores import Store, b2_store, s3_store, session_for

# Three minutes of faults for a part that no command uses yet: `sync` brings the ones that belong into every run.
pytestmark = pytest.mark.soak

MIB = 1 << 20
ODD_NAMES = (
    "plain.bin", "empty", "sub/ünï code.txt", "-dash", " lead", "trail ", "#hash", "d/e/f/g.safetensors",
    "quo'te\"s;$x", "100%.bin", "back\\slash", "e\u0301.txt", "\u00e9.txt", "*.star", "[x].bin", "{a,b}.bin",
)  # fmt: skip


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[ServedS3]:
    with serve_s3(tmp_path / "served") as served:
        yield served


@pytest.fixture
def s3(s3_server: ServedS3) -> Iterator[Store]:
    with s3_store(s3_server) as store:
        yield store


@pytest.fixture
def account() -> B2Native:
    return B2Native()


@pytest.fixture
def b2(account: B2Native) -> Iterator[Store]:
    with b2_store(account) as store:
        yield store


@pytest.fixture(params=["s3", "b2"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def here(tmp_path: Path) -> Folder:
    (tmp_path / "here").mkdir()
    return Folder(tmp_path / "here")


def some_bytes(size: int, seed: str) -> bytes:
    return random.Random(seed).randbytes(size)


def fill(folder: Folder, names: tuple[str, ...], size: int = 1000) -> dict[str, bytes]:
    made = {name: b"" if name == "empty" else some_bytes(size, name) for name in names}
    for name, data in made.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return made


def contents(folder: Folder) -> dict[str, bytes]:
    """Every file of the folder, half-written ones too."""
    root = folder.path
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def hasty(preset: Preset, *flags: str, attempts: int = 3) -> Preset:
    """The preset without the patience that only real networks deserve."""
    quick = ("--timeout", "3s", "--contimeout", "2s", "--low-level-retries", "4")
    return replace(preset, flags=(*preset.flags, *quick, *flags), attempts=attempts, pause_s=0.1)


def move_over(
    store: Store, source: Place, target: Place, paths: tuple[str, ...], *flags: str, attempts: int = 3
) -> CopyResult:
    preset = hasty(choose_preset(source, target, [1]), *flags, attempts=attempts)
    return copy(store.session, Order(source, target, paths, preset))


def outcomes(result: CopyResult) -> dict[str, str]:
    return {each.path: each.result for each in result.results}


def three_files(store: Store, size: int = 3 * MIB) -> dict[str, bytes]:
    made = {f"m{number}.bin": some_bytes(size, f"m{number}") for number in range(3)}
    for name, data in made.items():
        store.put(name, data)
    return made


# Names, contents, listings


def test_any_name_goes_there_and_back(store: Store, here: Folder, tmp_path: Path) -> None:
    made = fill(here, ODD_NAMES)
    back = Folder(tmp_path / "back")

    pushed = move_over(store, here, store.remote, tuple(made))
    listed = list_files(store.session, store.remote)
    pulled = move_over(store, store.remote, back, tuple(listed))

    assert (pushed.error, pulled.error) == (None, None)
    assert set(listed) == set(list_files(store.session, here)) == set(made)
    kind = "md5" if store.remote.kind == "s3" else "sha1"
    assert all(state.hashes == {kind: hashlib.new(kind, made[name]).hexdigest()} for name, state in listed.items())
    assert all(state.size == len(made[name]) and state.version for name, state in listed.items())
    assert contents(back) == made


@pytest.mark.parametrize("name", ["new\nline", "bell\a", "../up", "/root", "a//b", "a/./b", "", "half\udcff"])
def test_what_a_list_cannot_hold_is_refused_and_the_rest_goes(store: Store, here: Folder, name: str) -> None:
    fill(here, ("good",))

    result = move_over(store, here, store.remote, (name, "good"))

    assert outcomes(result) == {name: "failed", "good": "copied"}
    assert isinstance(result.error, TransferError)
    assert set(store.files()) == {"good"}


def test_only_planned_files_move(store: Store, here: Folder) -> None:
    fill(here, ("a/x", "a/y", "a/x.partial"))
    store.put("other", b"other")

    result = move_over(store, here, store.remote, ("a/x",))

    assert result.error is None
    assert set(store.files()) == {"a/x", "other"}


def test_a_change_that_keeps_size_and_time_is_copied(store: Store, here: Folder) -> None:
    fill(here, ("x",))
    assert move_over(store, here, store.remote, ("x",)).error is None
    stamp = (here.path / "x").stat().st_mtime_ns
    (here.path / "x").write_bytes(b"n" * 1000)
    os.utime(here.path / "x", ns=(stamp, stamp))

    result = move_over(store, here, store.remote, ("x",))

    assert outcomes(result) == {"x": "copied"}
    assert store.files()["x"] == b"n" * 1000


def test_what_is_gone_since_it_was_listed_is_told(store: Store, here: Folder) -> None:
    store.put("there", b"x")
    fill(here, ("mine",))

    pulled = move_over(store, store.remote, here, ("gone", "there"))
    pushed = move_over(store, here, store.remote, ("gone", "mine"))

    assert outcomes(pulled) == {"gone": "missing", "there": "copied"}
    assert outcomes(pushed) == {"gone": "missing", "mine": "copied"}
    assert "gone" in str(pulled.error)


def test_hundreds_of_small_files_are_listed_once_and_copied(store: Store, here: Folder) -> None:
    made = {f"d{number % 7}/f{number:03d}": b"%d" % number for number in range(250)}
    for name, data in made.items():
        store.put(name, data)
    preset = hasty(choose_preset(store.remote, here, [len(data) for data in made.values()]))

    result = copy(store.session, Order(store.remote, here, tuple(made), preset))

    assert preset.name == "small"
    assert result.error is None
    assert contents(here) == made


def test_a_listing_asks_no_file_by_itself(store: Store) -> None:
    for number in range(20):
        store.put(f"f{number}", b"%d" % number)

    listed = list_files(store.session, store.remote)

    assert len(listed) == 20
    # rclone asks once whether the folder of a B2 remote is a file.
    assert store.proxy.requests["HEAD"] <= 1


def test_half_written_files_and_our_own_folder_are_not_listed(store: Store, here: Folder) -> None:
    names = ("x", "x.1234abcd.partial", ".comfymodal/trash/1/x", "sub/.comfymodal/x")
    for name, data in fill(here, names).items():
        store.put(name, data)

    assert set(list_files(store.session, store.remote)) == {"x", "sub/.comfymodal/x"}
    assert set(list_files(store.session, here)) == {"x", "sub/.comfymodal/x"}
    assert set(list_folder(store.session, store.remote, ".comfymodal/trash/1")) == {"x"}


def test_a_mistyped_folder_is_empty_and_the_right_one_is_known(store: Store) -> None:
    store.put("x", b"x")

    assert list_files(store.session, store.at(prefix="pre/fixx")) == {}
    assert folders_beside(store.session, store.at(prefix="pre/fixx")) == ("pre/fix",)
    assert folders_beside(store.session, store.at(prefix="pro")) == ("pre",)


def test_a_bucket_that_does_not_exist_is_no_empty_one(store: Store, here: Folder, account: B2Native) -> None:
    fill(here, ("x",))
    elsewhere = store.at(bucket="modles")

    with pytest.raises(NotFoundError, match="no bucket modles"):
        list_files(store.session, elsewhere)
    if store.remote.kind == "b2":
        # rclone would make it.
        account.key.capabilities |= {"writeBuckets"}
        with pytest.raises(NotFoundError, match="no bucket modles"):
            move_over(store, here, elsewhere, ("x",))
        assert set(account.buckets) == {"models"}
    else:
        result = move_over(store, here, elsewhere, ("x",))
        assert isinstance(result.error, NotFoundError)


def test_a_folder_that_does_not_exist_is_no_empty_one(store: Store, here: Folder) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        list_files(store.session, Folder(here.path / "gone"))


def test_links_are_followed_and_loops_and_broken_ones_left_out(store: Store, here: Folder, tmp_path: Path) -> None:
    fill(here, ("sub/real",))
    disk = Folder(tmp_path / "disk")
    fill(disk, ("deep/model", "one"))
    (here.path / "disk").symlink_to(disk.path)
    (here.path / "one").symlink_to(disk.path / "one")
    (here.path / "sub" / "loop").symlink_to(here.path)
    (here.path / "broken").symlink_to(tmp_path / "nowhere")

    listed = list_files(store.session, here)
    result = move_over(store, here, store.remote, tuple(listed))

    assert set(listed) == {"sub/real", "disk/deep/model", "disk/one", "one"}
    assert result.error is None
    assert set(store.files()) == set(listed)


def test_found_files_are_those_that_exist(store: Store, here: Folder) -> None:
    store.put("a/b", b"x")
    fill(here, ("a/b",))

    assert set(find_files(store.session, store.remote, ["a/b", "a/c"])) == {"a/b"}
    assert set(find_files(store.session, here, ["a/b", "a/c"])) == {"a/b"}


# Keys


@pytest.mark.parametrize("part", ["key_id", "key"])
def test_wrong_keys_are_told_and_never_shown(store: Store, here: Folder, account: B2Native, part: str) -> None:
    good = s3_double.KEYS if store.remote.kind == "s3" else Keys(account.key.key_id, account.key.key)
    wrong = replace(good, **{part: "wr0ngKeyThatIsLongEnough"})
    session = session_for(store.remote, wrong)
    fill(here, ("x",))
    told: list[str] = []

    with pytest.raises(NotReadyError, match="key") as caught:
        list_files(session, store.remote)
    told.append(repr(caught.value.to_dict()))
    if store.remote.kind == "b2":
        with pytest.raises(NotReadyError) as caught:
            move_over(replace(store, session=session), here, store.remote, ("x",))
        told.append(repr(caught.value.to_dict()))
    else:
        result = move_over(replace(store, session=session), here, store.remote, ("x",))
        assert isinstance(result.error, NotReadyError)
        told.append(repr((result, result.error.to_dict())))

    told.append(repr(session))
    for secret in (wrong.key_id, wrong.key):
        assert not any(secret in text for text in told)
    assert store.files() == {}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"capabilities": frozenset({"listBuckets", "listFiles", "readFiles"})}, "may not write"),
        ({"buckets": ("others",)}, "another bucket"),
        ({"prefix": "elsewhere/"}, "may not"),
    ],
)
def test_a_key_that_may_not_write_here(
    b2: Store, here: Folder, account: B2Native, limits: dict[str, object], says: str
) -> None:
    for name, value in limits.items():
        setattr(account.key, name, value)
    account.buckets["others"] = []
    fill(here, ("x",))

    with pytest.raises(NotReadyError, match=says):  # noqa: PT012 - told before or after it began
        result = move_over(b2, here, b2.remote, ("x",), "--low-level-retries", "2", attempts=1)
        assert result.error is not None
        raise result.error
    assert b2.files() == {}


def test_a_read_only_key_is_enough_for_a_pull(b2: Store, here: Folder, account: B2Native) -> None:
    b2.put("x", b"x")
    account.key.capabilities = frozenset({"listFiles", "readFiles"})
    account.key.buckets = ("models",)

    assert set(list_files(b2.session, b2.remote)) == {"x"}
    assert move_over(b2, b2.remote, here, ("x",)).error is None


def test_a_key_that_may_not_list(b2: Store, account: B2Native) -> None:
    account.key.capabilities = frozenset({"listBuckets", "readFiles"})

    with pytest.raises(NotReadyError, match="may not list"):
        list_files(b2.session, b2.remote)


def test_keys_and_foreign_settings_stay_out(
    store: Store, here: Folder, account: B2Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Settings of the operator's own rclone that would empty the copy, and a key of somebody else.
    monkeypatch.setenv("RCLONE_DRY_RUN", "true")
    monkeypatch.setenv("RCLONE_MAX_SIZE", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODYELSE")
    keys = s3_double.KEYS if store.remote.kind == "s3" else Keys(account.key.key_id, account.key.key)
    session = session_for(store.remote, keys)
    fill(here, ("x",), size=2 * MIB)
    seen: list[str] = []

    def look(_: Progress) -> None:
        for child in running_copies(psutil.Process()):
            # It may end while it is looked at.
            with contextlib.suppress(psutil.NoSuchProcess):
                argv, environ = child.cmdline(), child.environ()
                assert "RCLONE_DRY_RUN" not in environ
                assert "AWS_ACCESS_KEY_ID" not in environ
                seen.append(" ".join(argv))

    preset = hasty(choose_preset(here, store.remote, [1]), "--bwlimit", "1M", "--stats", "200ms", "--timeout", "30s")
    result = copy(session, Order(here, store.remote, ("x",), preset), on_progress=look)

    assert result.error is None
    assert seen
    assert not any(secret in line for line in seen for secret in (keys.key_id, keys.key))


# Faults on the line


def slow_body(proxy: StorageProxy) -> None:
    proxy.add("slow", times=1000, rate=2 * MIB)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503, "times": 3},
        {"kind": "status", "status": 500, "times": 2},
        {"kind": "status", "status": 429, "times": 2, "headers": {"Retry-After": "1"}},
        {"kind": "reset", "times": 4},
        {"kind": "reset", "times": 2, "after": MIB},
        {"kind": "hang", "times": 1, "after": MIB},
        {"kind": "truncate", "times": 2, "after": MIB},
        {"kind": "flip", "times": 1, "after": MIB},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_a_pull_survives(store: Store, here: Folder, fault: dict[str, object]) -> None:
    made = three_files(store)
    # Files alone: what a listing does with faults is tested by itself.
    path = ".bin" if store.remote.kind == "s3" else "download"
    added = store.proxy.add(**{"path": path, **fault})  # type: ignore[arg-type]

    result = move_over(store, store.remote, here, tuple(made))

    assert added.hits == fault["times"]
    assert result.error is None
    assert contents(here) == made


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503, "times": 3},
        {"kind": "status", "status": 429, "times": 2, "headers": {"Retry-After": "1"}},
        {"kind": "reset", "times": 3},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_a_push_survives(store: Store, here: Folder, fault: dict[str, object]) -> None:
    made = fill(here, ("a", "b", "c"), size=MIB)
    method, path = ("PUT", "pre/fix") if store.remote.kind == "s3" else ("POST", "/upload/file")
    added = store.proxy.add(**{"path": path, "method": method, **fault})  # type: ignore[arg-type]

    result = move_over(store, here, store.remote, tuple(made))

    assert added.hits == fault["times"]
    assert result.error is None
    assert store.files() == made


def test_a_listing_survives_two_failures(store: Store) -> None:
    store.put("x", b"x")
    path, method = ("max-keys", "GET") if store.remote.kind == "s3" else ("list_file_names", "POST")
    fault = store.proxy.add("status", status=500, times=2, path=path, method=method)

    assert set(list_files(store.session, store.remote)) == {"x"}
    assert fault.hits == 2


def test_a_listing_that_fails_for_good_is_no_listing(store: Store) -> None:
    store.put("x", b"x")
    path, method = ("max-keys", "GET") if store.remote.kind == "s3" else ("list_file_names", "POST")
    store.proxy.add("status", status=500, times=1000, path=path, method=method)

    with pytest.raises(ServiceError):
        list_files(store.session, store.remote)


@pytest.mark.parametrize(("kind", "status"), [("truncate", 0), ("status", 503), ("flip", 0), ("status", 404)])
def test_one_file_that_always_fails_leaves_the_others(store: Store, here: Folder, kind: str, status: int) -> None:
    made = three_files(store)
    if store.remote.kind == "s3":
        path = "m1.bin"
    else:
        (version,) = (state.version for name, state in list_files(store.session, store.remote).items() if "m1" in name)
        path = str(version)
    store.proxy.add(kind, status=status, times=10_000, path=path, after=1000 if kind != "status" else 0)  # type: ignore[arg-type]

    result = move_over(store, store.remote, here, tuple(made), "--low-level-retries", "2", attempts=2)

    assert outcomes(result) == {"m0.bin": "copied", "m1.bin": "failed", "m2.bin": "copied"}
    assert result.error is not None
    assert result.error.exit_code == (4 if status == 404 else 5)
    assert contents(here) == {name: data for name, data in made.items() if name != "m1.bin"}

    store.proxy.faults.clear()
    assert move_over(store, store.remote, here, ("m1.bin",)).error is None
    assert contents(here) == made


def test_one_file_that_may_not_be_read_leaves_the_others(s3: Store, here: Folder) -> None:
    made = three_files(s3)
    for method in ("GET", "HEAD"):
        s3.proxy.add("status", status=403, method=method, times=1000, path="m1.bin")

    result = move_over(s3, s3.remote, here, tuple(made))

    assert outcomes(result) == {"m0.bin": "copied", "m1.bin": "failed", "m2.bin": "copied"}
    assert isinstance(result.error, NotReadyError)


def test_b2_ends_all_when_it_refuses_one(b2: Store, here: Folder) -> None:
    made = three_files(b2)
    b2.proxy.add("status", status=403, path="download", times=1000, total_after=2 * MIB)

    result = move_over(b2, b2.remote, here, tuple(made), "--transfers", "1")

    assert isinstance(result.error, NotReadyError)
    assert sorted(outcomes(result).values()) == ["copied", "failed", "skipped"]
    assert contents(here) == {each.path: made[each.path] for each in result.copied}


def test_a_flipped_byte_in_a_file_that_comes_in_parts(store: Store, here: Folder) -> None:
    data = some_bytes(70 * MIB, "big")
    store.put("big.bin", data)
    fault = store.proxy.add("flip", path=".bin" if store.remote.kind == "s3" else "download", after=MIB)

    result = move_over(store, store.remote, here, ("big.bin",))

    assert fault.hits == 1
    assert result.error is None
    assert contents(here) == {"big.bin": data}


def test_credentials_that_expire_on_the_way(s3: Store, here: Folder) -> None:
    made = three_files(s3)
    # The first file goes through; what is asked for afterwards is refused.
    for method in ("GET", "HEAD"):
        s3.proxy.add("status", status=403, body=EXPIRED, method=method, times=1000, total_after=2 * MIB, path=".bin")

    result = move_over(s3, s3.remote, here, tuple(made), "--transfers", "1")

    assert isinstance(result.error, NotReadyError)
    assert "expired" in result.error.message
    copied = {each.path for each in result.copied}
    assert 0 < len(copied) < 3
    assert contents(here) == {name: made[name] for name in copied}

    s3.proxy.faults.clear()
    assert move_over(s3, s3.remote, here, tuple(set(made) - copied)).error is None
    assert contents(here) == made


def test_b2_tokens_that_expire_on_the_way(b2: Store, here: Folder, account: B2Native) -> None:
    made = three_files(b2)
    account.expires_after = 3

    result = move_over(b2, b2.remote, here, tuple(made))

    assert result.error is None
    assert contents(here) == made
    assert account.calls["authorize_account"] > 1


@pytest.mark.parametrize("cap", ["download", "storage", "transaction"])
def test_a_cap_that_is_reached_ends_it_at_once(b2: Store, here: Folder, account: B2Native, cap: str) -> None:
    b2.put("there", b"x")
    # With a key for all buckets rclone asks for the bucket first, and takes every refusal for "no such bucket".
    account.key.buckets = ("models",)
    fill(here, ("mine",))
    account.caps = {cap}
    began = time.monotonic()

    with pytest.raises(ServiceError, match="cap of the B2 account") as caught:  # noqa: PT012 - before or after it began
        source, target = (b2.remote, here) if cap == "download" else (here, b2.remote)
        result = move_over(b2, source, target, ("there" if cap == "download" else "mine",))
        assert result.error is not None
        raise result.error

    assert caught.value.exit_code == 5
    assert time.monotonic() - began < 10


def test_large_uploads_to_b2_survive_and_leave_nothing_unfinished(b2: Store, here: Folder, account: B2Native) -> None:
    made = fill(here, ("big",), size=21 * MIB)
    fault = b2.proxy.add("status", status=503, method="POST", path="/upload/part", times=3)

    parts = ("--b2-chunk-size", "5M", "--b2-upload-cutoff", "5M")
    result = move_over(b2, here, b2.remote, ("big",), *parts)

    assert fault.hits == 3
    assert result.error is None
    assert b2.files() == made
    assert account.unfinished == {}
    # The whole file's hash is told with it: the next pull can be verified.
    listed = list_files(b2.session, b2.remote)["big"]
    assert listed.hashes == {"sha1": hashlib.sha1(made["big"]).hexdigest()}


def test_a_large_file_without_a_hash_is_listed_without_one(b2: Store, account: B2Native) -> None:
    account.put("pre/fix/x", b"data", sha1="none")

    listed = list_files(b2.session, b2.remote)["x"]

    assert (listed.hashes, listed.size) == ({}, 4)
    assert listed.version


def test_a_server_that_is_gone(store: Store, here: Folder) -> None:
    dead = replace(store.remote, endpoint="http://127.0.0.1:9")
    session = session_for(dead, Keys("some-key-id", "some-key"))

    with pytest.raises(ServiceError, match="cannot be reached"):
        list_files(session, dead)
    result = move_over(replace(store, session=session), dead, here, ("x",), "--low-level-retries", "2", attempts=1)
    assert isinstance(result.error, ServiceError)
    assert contents(here) == {}


def test_a_file_that_is_written_to_while_it_is_read(store: Store, here: Folder) -> None:
    fill(here, ("x",), size=4 * MIB)
    store.proxy.add("slow", method="", times=1000, rate=4 * MIB)
    stop = threading.Event()

    def write() -> None:
        with (here.path / "x").open("r+b") as stream:
            while not stop.wait(0.02):
                stream.seek(0, os.SEEK_END)
                stream.write(b"more")
                stream.flush()

    writer = threading.Thread(target=write)
    writer.start()
    result = move_over(store, here, store.remote, ("x",), attempts=1)
    stop.set()
    writer.join()

    assert outcomes(result) == {"x": "failed"}
    assert isinstance(result.error, TransferError)
    assert store.files() == {}


# Stopped, killed, late


def test_progress_is_told_and_ends_at_the_total(store: Store, here: Folder) -> None:
    made = three_files(store)
    told: list[Progress] = []
    slow_body(store.proxy)
    preset = hasty(choose_preset(store.remote, here, [1]))

    result = copy(store.session, Order(store.remote, here, tuple(made), preset), on_progress=told.append)

    assert result.error is None
    assert [each.bytes for each in told] == sorted(each.bytes for each in told)
    assert told[-1].bytes == sum(map(len, made.values()))
    assert (told[-1].files_done, told[-1].files, told[-1].moving) == (3, 3, ())
    assert sorted(done.path for each in told for done in each.copied) == sorted(made)
    assert any(each.moving for each in told)


def test_a_stop_leaves_whole_files_only(store: Store, here: Folder) -> None:
    made = three_files(store, size=12 * MIB)
    slow_body(store.proxy)
    began = time.monotonic()

    def control() -> str | None:
        return "stop" if time.monotonic() - began > 2.0 else None

    preset = hasty(choose_preset(store.remote, here, [1]))
    result = copy(store.session, Order(store.remote, here, tuple(made), preset), control=control)

    assert time.monotonic() - began < 6
    assert result.is_stopped
    assert isinstance(result.error, CancelledError)
    assert set(outcomes(result).values()) <= {"copied", "skipped"}
    assert contents(here) == {each.path: made[each.path] for each in result.copied}


def test_a_stop_while_uploading_leaves_nothing_half(store: Store, here: Folder, account: B2Native) -> None:
    fill(here, ("x",), size=24 * MIB)
    store.proxy.add("slow", method="", times=1000, rate=2 * MIB)
    began = time.monotonic()
    kind = store.remote.kind
    parts = (f"--{kind}-chunk-size", "5M", f"--{kind}-upload-cutoff", "5M", "--timeout", "60s")
    preset = hasty(choose_preset(here, store.remote, [1]), *parts)

    result = copy(
        store.session,
        Order(here, store.remote, ("x",), preset),
        control=lambda: "stop" if time.monotonic() - began > 3.0 else None,
    )

    assert outcomes(result) == {"x": "skipped"}
    assert store.files() == {}
    assert account.unfinished == {}


def test_time_that_is_up_leaves_whole_files_only(store: Store, here: Folder) -> None:
    made = three_files(store, size=12 * MIB)
    slow_body(store.proxy)
    preset = hasty(choose_preset(store.remote, here, [1], Limits(max_s=2)))

    result = copy(store.session, Order(store.remote, here, tuple(made), preset))

    assert isinstance(result.error, TransferError)
    assert "time is up" in result.error.message
    assert set(outcomes(result).values()) <= {"copied", "skipped"}
    assert contents(here) == {each.path: made[each.path] for each in result.copied}


def test_an_exception_in_a_callback_ends_rclone(store: Store, here: Folder) -> None:
    made = three_files(store, size=12 * MIB)
    slow_body(store.proxy)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    preset = hasty(choose_preset(store.remote, here, [1]))
    with pytest.raises(KeyboardInterrupt):
        copy(store.session, Order(store.remote, here, tuple(made), preset), on_progress=interrupt)

    assert not running_copies(psutil.Process())
    assert contents(here) == {}


def test_a_killed_rclone_is_run_again(store: Store, here: Folder) -> None:
    made = three_files(store, size=6 * MIB)
    slow_body(store.proxy)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.moving:
            (child,) = running_copies(psutil.Process())
            killed.append(child.pid)
            child.kill()

    preset = hasty(choose_preset(store.remote, here, [1]))
    result = copy(store.session, Order(store.remote, here, tuple(made), preset), on_progress=kill)

    assert killed
    assert result.error is None
    assert {name: data for name, data in contents(here).items() if not name.endswith(".partial")} == made
    assert set(list_files(store.session, here)) == set(made)


CHILD = """
import os, pickle, sys
session, order = pickle.loads(sys.stdin.buffer.read())
from comfymodal.storage.rclone.copying import copy
copy(session, order, on_progress=lambda progress: print("moving", flush=True) if progress.moving else None)
"""


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_rclone_ends_when_we_are_killed(store: Store, here: Folder, direction: str) -> None:
    import pickle

    old = b"the old one"
    if direction == "pull":
        made = three_files(store, size=24 * MIB)
        source: Place = store.remote
        target: Place = here
        (here.path / "m0.bin").write_bytes(old)
    else:
        made = fill(here, ("m0.bin", "m1.bin", "m2.bin"), size=24 * MIB)
        source, target = here, store.remote
        store.put("m0.bin", old)
    store.proxy.add("slow", method="", times=1000, rate=2 * MIB)
    order = Order(source, target, tuple(made), hasty(choose_preset(source, target, [1]), "--timeout", "60s"))
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    ) as us:
        assert us.stdin
        assert us.stdout
        us.stdin.write(pickle.dumps((store.session, order)))
        us.stdin.close()
        assert us.stdout.readline() == b"moving\n"
        (rclone,) = running_copies(psutil.Process(us.pid))
        us.send_signal(signal.SIGKILL)

    rclone.wait(5)

    store.proxy.faults.clear()
    if direction == "pull":
        assert set(list_files(store.session, here)) == {"m0.bin"}
        assert (here.path / "m0.bin").read_bytes() == old
    else:
        # The server still has to notice that nobody sends any more.
        wait_until(lambda: store.files() == {"m0.bin": old})

    assert move_over(store, source, target, tuple(made)).error is None
    final = {name: data for name, data in contents(here).items() if not name.endswith(".partial")}
    assert (final if direction == "pull" else store.files()) == made


def running_copies(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--files-from-raw" in child.cmdline():
                found.append(child)
    return found


# Trash


def test_trash_and_back(store: Store, account: B2Native) -> None:
    made = three_files(store, size=1000)

    gone = trash(store.session, store.remote, ["m0.bin", "m1.bin", "nope"], "20260102")
    assert outcomes(gone) == {"m0.bin": "copied", "m1.bin": "copied", "nope": "missing"}
    assert set(list_files(store.session, store.remote)) == {"m2.bin"}
    assert set(list_folder(store.session, store.remote, trash_folder("20260102"))) == {"m0.bin", "m1.bin"}

    store.put("m1.bin", b"a new one")
    if store.remote.kind == "s3":
        wait_until(lambda: "m1.bin" in list_files(store.session, store.remote))
    back = restore(store.session, store.remote, ["m0.bin", "m1.bin"], "20260102")

    assert outcomes(back) == {"m0.bin": "copied", "m1.bin": "failed"}
    assert isinstance(back.error, TransferError)
    trashed = f"{trash_folder('20260102')}/m1.bin"
    assert store.files() == {**made, "m1.bin": b"a new one", trashed: made["m1.bin"]}


def test_deleted_on_b2_is_hidden_or_gone(b2: Store, account: B2Native) -> None:
    b2.put("x", b"first")
    b2.put("x", b"second")

    assert delete(b2.session, b2.remote, ["x"], forever=False).error is None
    assert [each.action for each in account.buckets["models"]] == ["upload", "upload", "hide"]

    b2.put("x", b"third")
    assert delete(b2.session, b2.remote, ["x"], forever=True).error is None
    assert [each.data for each in account.buckets["models"]] == [b"first", b"second", b""]


def test_a_key_that_may_not_delete_loses_nothing(b2: Store, account: B2Native) -> None:
    b2.put("x", b"x")
    account.key.capabilities = frozenset({"listBuckets", "listFiles", "readFiles"})

    result = trash(b2.session, b2.remote, ["x"], "1")

    assert outcomes(result) == {"x": "failed"}
    assert isinstance(result.error, NotReadyError)
    assert b2.files() == {"x": b"x"}


def test_deleting_nothing_deletes_nothing(store: Store) -> None:
    made = three_files(store, size=10)

    assert delete(store.session, store.remote, [], forever=True).error is None
    assert store.files() == made


def wait_until(is_true: Callable[[], bool], *, patience_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_a_session_without_the_remote_is_not_ready(s3: Store) -> None:
    with pytest.raises(ComfymodalError, match="no keys"):
        list_files(s3.session, s3.at(name="another"))
