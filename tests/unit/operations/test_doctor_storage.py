"""The looks at what syncs need, against the B2 double; the S3 side is in tests/e2e, with a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_mock import MockerFixture

from comfymodal.operations.doctor_storage import storage_checks
from comfymodal.operations.examine import examine
from comfymodal.operations.setup_results import CheckRow
from comfymodal.project.load import load_project
from comfymodal.project.schema import Project
from comfymodal.storage.b2_api import Authorization
from tests.doubles.b2_native import ALL, B2Native, Key
from tests.doubles.serving import serve

KEY = Key()
ENVIRON = {"B2_APPLICATION_KEY_ID": KEY.key_id, "B2_APPLICATION_KEY": KEY.key}
PAIRS = {
    "pull": {"from": "b2:comfy_models", "to": "models:/"},
    "push": {"from": "models:/loras", "to": "b2:comfy_models/loras"},
}


@pytest.fixture
def b2() -> B2Native:
    made = B2Native()
    for name in ("comfy_models/loras/a", "comfy_models/b", "readme"):
        made.put(name, b"1")
    return made


@pytest.fixture
def url(b2: B2Native) -> Iterator[str]:
    with serve(b2.app()) as served:
        yield served.url


def project_of(folder: Path, **settings: Any) -> Project:
    file = folder / "comfymodal.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "project": "p", **settings}))
    return load_project(file, environ={}, cwd=folder, flags={}).settings


def look(folder: Path, url: str, environ: Mapping[str, str] = ENVIRON, **settings: Any) -> dict[str, CheckRow]:
    remote = {"type": "b2", "bucket": "models", "endpoint": url, **settings.pop("remote", {})}
    project = project_of(folder, **{"remotes": {"b2": remote}, "sync": PAIRS, **settings})
    told = {row.check: row for row, _ in examine(storage_checks(project, folder, environ))}
    for row in told.values():
        assert KEY.key not in f"{row.what} {row.hint}"
        assert row.status != "fail" or row.hint
    return told


def test_a_project_without_remotes_is_asked_nothing(tmp_path: Path) -> None:
    assert storage_checks(project_of(tmp_path), tmp_path, {}) == []


def test_nothing_is_wrong_and_nothing_is_written(tmp_path: Path, b2: B2Native, url: str) -> None:
    found = look(tmp_path, url)

    assert {name: row.status for name, row in found.items()} == dict.fromkeys(
        ("rclone", "keys of b2", "remote b2", "sync pull", "sync push"), "ok"
    )
    assert found["keys of b2"].what == "B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY, from the environment"
    assert found["remote b2"].what == (
        "bucket models opens; the key is for all buckets: deleteFiles, listBuckets, listFiles, readFiles, writeFiles"
    )
    assert found["sync pull"].what == "b2:comfy_models: 1 file and 1 folder at the top"
    assert set(b2.calls) == {"authorize_account", "list_buckets", "list_file_names"}
    assert b2.calls["authorize_account"] == 1


def test_keys_may_be_in_the_env_file(tmp_path: Path, url: str) -> None:
    (tmp_path / ".env").write_text(f"B2_KEY_ID={KEY.key_id}\nB2_KEY={KEY.key}\n")
    found = look(tmp_path, url, {})

    assert found["keys of b2"].what == "B2_KEY_ID and B2_KEY, from .env"
    assert found["remote b2"].status == "ok"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "K004other"}, "the key id or the key is wrong"),
        ({"buckets": ("theirs",)}, "the key is for the bucket theirs, not for models"),
        ({"expires_at": 1.6e9}, "the key expired on 2020-09-13 12:26 UTC"),
        ({"capabilities": frozenset({"listFiles", "readFiles"})}, "the key may not do this: b2_list_buckets"),
    ],
)
def test_a_key_that_does_not_open_the_bucket(
    tmp_path: Path, b2: B2Native, url: str, change: dict[str, Any], said: str
) -> None:
    b2.key = replace(KEY, **change)
    found = look(tmp_path, url)

    assert (found["remote b2"].status, found["sync pull"].status) == ("fail", "skipped")
    assert said in found["remote b2"].what


def test_a_bucket_that_is_not_there(tmp_path: Path, url: str) -> None:
    found = look(tmp_path, url, remote={"bucket": "modles"})

    assert found["remote b2"].what == "the account has no bucket modles"


def test_a_key_that_expires_soon(tmp_path: Path, b2: B2Native, url: str) -> None:
    b2.key = replace(KEY, expires_at=time.time() + 86400)
    soon = look(tmp_path, url)["remote b2"]
    b2.key = replace(KEY, expires_at=time.time() + 86400 * 365)
    late = look(tmp_path, url)["remote b2"]

    assert (soon.status, late.status) == ("warn", "ok")
    assert "it expires on 20" in late.what


def test_a_key_that_may_only_read_is_enough_for_a_pull(tmp_path: Path, b2: B2Native, url: str) -> None:
    b2.key = replace(KEY, capabilities=frozenset({"listFiles", "readFiles"}), buckets=("models",))
    found = look(tmp_path, url)

    assert (found["remote b2"].status, found["sync pull"].status) == ("ok", "ok")
    assert found["sync push"].status == "fail"
    assert "lacks writeFiles" in found["sync push"].what
    assert found["sync push"].hint == "make a key that has listFiles, readFiles, writeFiles"


def test_a_key_that_may_not_delete_is_enough_but_for_deletions(tmp_path: Path, b2: B2Native, url: str) -> None:
    b2.key = replace(KEY, capabilities=ALL - {"deleteFiles"})
    found = look(tmp_path, url)

    assert (found["sync pull"].status, found["sync push"].status) == ("ok", "warn")
    assert "lacks deleteFiles" in found["sync push"].what


def test_a_key_for_another_folder(tmp_path: Path, b2: B2Native, url: str) -> None:
    b2.key = replace(KEY, prefix="comfy_models/loras/")
    found = look(tmp_path, url)

    assert (found["sync pull"].status, found["sync push"].status) == ("fail", "ok")
    assert found["sync pull"].what == (
        "the key may only use names that begin with comfy_models/loras/, not comfy_models"
    )


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("b2:comfy_model", "did you mean comfy_models?"),
        ("b2:comfy_modles/loras", "did you mean comfy_models?"),
        ("b2:comfy_models/lora", "did you mean loras?"),
        ("b2:zzz", "there is: comfy_models"),
    ],
)
def test_a_folder_that_is_mistyped(tmp_path: Path, url: str, written: str, hint: str) -> None:
    found = look(tmp_path, url, sync={"pull": {"from": written, "to": "models:/"}})

    assert (found["sync pull"].status, found["sync pull"].hint) == ("warn", hint)
    assert "there are no files" in found["sync pull"].what


def test_an_empty_folder_is_no_mistake_where_files_go(tmp_path: Path, url: str) -> None:
    pairs = {
        "push": {"from": "models:/", "to": "b2:new"},
        "both": {"from": "b2:comfy_model", "to": "models:/", "two_way": True},
    }
    found = look(tmp_path, url, sync=pairs)

    assert (found["sync push"].status, found["sync push"].hint) == ("ok", None)
    assert (found["sync both"].status, found["sync both"].hint) == ("ok", "did you mean comfy_models?")


def test_a_remote_without_a_pair_is_looked_at_too(tmp_path: Path, url: str) -> None:
    found = look(tmp_path, url, sync={}, remote={"prefix": "comfy_mdels"})

    assert (found["folder b2:comfy_mdels"].status, found["folder b2:comfy_mdels"].hint) == (
        "warn",
        "did you mean comfy_models?",
    )


def test_half_a_key_and_none(tmp_path: Path, url: str) -> None:
    half = look(tmp_path, url, {"AWS_ACCESS_KEY_ID": "x"})
    none = look(tmp_path, url, {})

    assert "AWS_SECRET_ACCESS_KEY is not set" in half["keys of b2"].what
    assert (none["keys of b2"].status, none["remote b2"].what) == ("fail", "cannot be told without: keys of b2")


def test_on_modal_this_machine_needs_keys_only_for_its_own_folders(tmp_path: Path, url: str) -> None:
    there = look(tmp_path, url, {}, target="modal")
    here = look(tmp_path, url, {}, target="modal", sync={"backup": {"from": "./loras", "to": "b2:loras"}})

    assert (there["keys of b2"].status, there["keys of b2"].what) == (
        "skipped",
        "none on this machine; on Modal the secret b2-credentials counts",
    )
    assert here["keys of b2"].status == "fail"


def test_a_mount_is_read(tmp_path: Path) -> None:
    project = project_of(
        tmp_path,
        target="modal",
        remotes={"cold": {"type": "s3", "bucket": "models"}},
        mounts={"cold": {"remote": "cold", "path": "archive"}},
    )

    assert [check.name for check in storage_checks(project, tmp_path, {})] == [
        *("rclone", "keys of cold", "remote cold", "mount cold")
    ]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "ok", "the key is for all buckets"),
        ({"account_id": "kid"}, "fail", "the master key's"),
        ({"s3_url": "https://s3.eu-central-003.backblazeb2.com"}, "fail", "the account's S3 address is https://s3.eu"),
        ({"buckets": {"other": "1"}}, "fail", "the key is for the bucket other, not for models"),
        ({"buckets": {}, "has_lost_bucket": True}, "fail", "the key's bucket was deleted"),
    ],
)
def test_backblaze_by_its_s3_api_is_asked_for_the_keys_rights(
    tmp_path: Path, mocker: MockerFixture, changes: dict[str, Any], status: str, said: str
) -> None:
    endpoint = "https://s3.us-west-004.backblazeb2.com"
    auth = Authorization("account", ALL, None, False, "", None, "https://api", endpoint, 0.0, "token")
    # The address is Backblaze's own, so nothing local can answer for it.
    mocker.patch("comfymodal.operations.doctor_storage.authorize", return_value=replace(auth, **changes))
    project = project_of(tmp_path, remotes={"store": {"type": "s3", "bucket": "models", "endpoint": endpoint}})
    environ = {"AWS_ACCESS_KEY_ID": "kid", "AWS_SECRET_ACCESS_KEY": "key"}
    wanted = [
        check
        for check in storage_checks(project, tmp_path, environ)
        if check.name in ("keys of store", "rights of store")
    ]
    row = {told.check: told for told, _ in examine(wanted)}["rights of store"]

    assert row.status == status
    assert said in row.what
