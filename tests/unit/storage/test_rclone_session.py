from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.errors import NotReadyError, ProjectError
from comfymodal.storage.rclone.find import Rclone
from comfymodal.storage.rclone.session import HIDDEN, Session, environment, open_session, region_of
from comfymodal.storage.values import Folder, Keys, Remote

KEYS = Keys("key-id-1", "k/e+y=1")
B2 = Remote("my store", "b2", "models", "comfy/models")
S3 = Remote("store", "s3", "models", endpoint="https://s3.us-west-004.backblazeb2.com")


def session(*remotes: Remote, keys: Keys = KEYS) -> Session:
    return open_session(Rclone(Path("rclone"), (1, 75, 2)), {each.name: (each, keys) for each in remotes}, {})


def test_everything_is_in_the_environment_and_nothing_foreign_is() -> None:
    base = {"PATH": "/bin", "RCLONE_CONFIG": "/mine", "rclone_dry_run": "1", "AWS_PROFILE": "x", "B2_KEY": "x"}

    found = environment({B2.name: (B2, KEYS), S3.name: (S3, Keys("other", "secret\n"))}, base)

    assert found == {
        "PATH": "/bin",
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_ASK_PASSWORD": "false",
        "RCLONE_CONFIG_R0_TYPE": "b2",
        "RCLONE_CONFIG_R0_ACCOUNT": "key-id-1",
        "RCLONE_CONFIG_R0_KEY": "k/e+y=1",
        "RCLONE_CONFIG_R1_TYPE": "s3",
        "RCLONE_CONFIG_R1_PROVIDER": "Other",
        "RCLONE_CONFIG_R1_ACCESS_KEY_ID": "other",
        "RCLONE_CONFIG_R1_SECRET_ACCESS_KEY": "secret",
        "RCLONE_CONFIG_R1_NO_CHECK_BUCKET": "true",
        "RCLONE_CONFIG_R1_ENDPOINT": "https://s3.us-west-004.backblazeb2.com",
        "RCLONE_CONFIG_R1_REGION": "us-west-004",
    }


@pytest.mark.parametrize("keys", [Keys("", "key"), Keys("id", " \n")])
def test_an_empty_key_is_refused(keys: Keys) -> None:
    with pytest.raises(NotReadyError, match="the remote store is empty"):
        session(S3, keys=keys)


def test_addresses() -> None:
    opened = session(B2, S3)

    assert opened.address(B2) == "r0:models/comfy/models/"
    assert opened.address(S3) == "r1:models/"
    assert opened.address(Folder(Path("/vol/-a:b"))) == "/vol/-a:b"


@pytest.mark.parametrize(("bucket", "prefix"), [("", "a"), ("a/b", ""), ("..", ""), ("a", "../b"), ("a", "b/./c")])
def test_an_address_stays_in_its_bucket(bucket: str, prefix: str) -> None:
    remote = Remote("store", "s3", bucket, prefix)

    with pytest.raises(ProjectError):
        session(remote).address(remote)


def test_keys_are_hidden_in_every_spelling() -> None:
    opened = session(S3)

    for text in ("k/e+y=1", "k%2Fe%2By%3D1", "k\\/e+y=1", "id key-id-1"):
        assert "key-id" not in opened.hide(text)
        assert "e+y" not in opened.hide(text)
        assert "e%2By" not in opened.hide(text)
        assert HIDDEN in opened.hide(text)
    assert "key-id" not in repr(opened)
    assert "e+y" not in repr(opened)


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://s3.eu-central-003.backblazeb2.com/", "eu-central-003"),
        ("https://s3.us-west-004.backblazeb2.com.evil.example", None),
        (None, None),
    ],
)
def test_the_region_in_an_endpoint(endpoint: str | None, region: str | None) -> None:
    assert region_of(endpoint) == region
