"""`doctor` about remotes: real S3 that checks signatures, the B2 double, and secrets on the control plane double."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Cli, Done
from tests.doubles.b2_native import B2Native, Key
from tests.doubles.modal_cloud.client import ModalCloud
from tests.doubles.serve_s3 import KEYS, ServedS3, serve_s3
from tests.doubles.serving import serve

B2_KEY = Key(capabilities=frozenset({"listFiles", "readFiles"}), buckets=("models",), prefix="comfy_models/")

MAKE_SECRETS = """
import modal
for name, values in {
    "full": {"FULL_KEY_ID": "value-1", "FULL_KEY": "value-2"},
    "half": {"B2_APPLICATION_KEY_ID": "value-3"},
    "other": {"HF_TOKEN": "value-4"},
    "own": {"OWN_KEY_ID": "value-5", "OWN_KEY": "value-6"},
}.items():
    modal.Secret.objects.create(name, values)
"""

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[ServedS3]:
    (tmp_path / "s3" / "models" / "comfy_models" / "vae").mkdir(parents=True)
    (tmp_path / "s3" / "models" / "comfy_models" / "vae" / "ae.safetensors").write_bytes(b"1")
    with serve_s3(tmp_path / "s3") as served:
        yield served


def write_project(cli: Cli, **settings: Any) -> None:
    (cli.cwd / "comfymodal.yaml").write_text(
        yaml.safe_dump({"version": 1, "project": "portraits", **settings}, sort_keys=False)
    )


def keys_of(name: str, key_id: str = KEYS.key_id, key: str = KEYS.key) -> dict[str, str]:
    return {f"{name.upper()}_KEY_ID": key_id, f"{name.upper()}_KEY": key}


def rows(done: Done) -> Rows:
    return {row["check"]: row for row in done.json["data"]["checks"]}


def told(done: Done) -> str:
    return done.stdout + done.stderr


def test_buckets_that_open_are_told_and_not_written_to(engineless_cli: Cli, s3: ServedS3) -> None:
    b2 = B2Native(key=B2_KEY)
    b2.put("comfy_models/loras/a.safetensors", b"1")
    before = sorted(s3.folder.rglob("*"))
    with serve(b2.app()) as served:
        write_project(
            engineless_cli,
            remotes={
                "store": {"type": "s3", "bucket": "models", "endpoint": s3.url, "region": "us-east-1"},
                "b2": {"type": "b2", "bucket": "models", "endpoint": served.url},
            },
            sync={
                "models": {"from": "store:comfy_models", "to": "models:/"},
                "loras": {"from": "b2:comfy_models/loras", "to": "models:/loras"},
                "back": {"from": "models:/", "to": "store:comfy_models"},
            },
        )
        (engineless_cli.cwd / ".env").write_text(f"STORE_KEY_ID={KEYS.key_id}\nSTORE_KEY={KEYS.key}\n")
        cli = replace(engineless_cli, environ={**engineless_cli.environ, **keys_of("b2", B2_KEY.key_id, B2_KEY.key)})
        done, read = cli("doctor", "--json"), cli("doctor")
    found = rows(done)

    assert done.code == 0, done.stdout
    names = ["rclone", "keys of store", "remote store", "sync models", "sync back", "keys of b2", "remote b2"]
    assert list(found)[-8:] == [*names, "sync loras"]
    assert {found[name]["status"] for name in list(found)[-8:]} == {"ok"}
    assert found["remote store"]["what"] == f"bucket models opens at {s3.url}, region us-east-1"
    assert found["keys of store"]["what"] == "STORE_KEY_ID and STORE_KEY, from .env"
    assert found["remote b2"]["what"] == (
        "bucket models opens; the key is for models, names from comfy_models/: listFiles, readFiles"
    )
    assert "remote b2\tok\tbucket models opens" in read.stdout
    assert sorted(s3.folder.rglob("*")) == before
    assert set(b2.calls) == {"authorize_account", "list_file_names"}
    assert KEYS.key not in told(done) + told(read)
    assert B2_KEY.key not in told(done) + told(read)


def test_each_way_a_bucket_does_not_open_has_its_row_and_its_remedy(engineless_cli: Cli, s3: ServedS3) -> None:
    b2 = B2Native(key=B2_KEY)
    b2.put("comfy_models/a", b"1")
    s3_remote = {"type": "s3", "bucket": "models", "endpoint": s3.url}
    with serve(b2.app()) as served:
        b2_remote = {"type": "b2", "bucket": "models", "endpoint": served.url}
        write_project(
            engineless_cli,
            remotes={
                "secret": s3_remote,
                "keyid": s3_remote,
                "bucket": {**s3_remote, "bucket": "modles"},
                "typo": s3_remote,
                "none": s3_remote,
                "wrong": b2_remote,
                "limited": b2_remote,
                "nobody": {**b2_remote, "endpoint": "http://127.0.0.1:1"},
            },
            sync={
                "typo": {"from": "typo:comfy_model", "to": "models:/"},
                "push": {"from": "models:/", "to": "limited:comfy_models"},
                "outside": {"from": "limited:other", "to": "models:/"},
            },
        )
        environ = {
            **keys_of("secret", key="secret/that+is=wrong"),
            **keys_of("keyid", key_id="AKIDNOBODYKNOWS"),
            **keys_of("bucket"),
            **keys_of("typo"),
            **keys_of("wrong", B2_KEY.key_id, "K004wrong"),
            **keys_of("limited", B2_KEY.key_id, B2_KEY.key),
            **keys_of("nobody", B2_KEY.key_id, B2_KEY.key),
        }
        done = replace(engineless_cli, environ={**engineless_cli.environ, **environ})("doctor", "--json")
    found = rows(done)

    said = {
        "remote secret": "the key does not belong to the key id",
        "remote keyid": "the key id is unknown there",
        "remote bucket": "there is no bucket modles",
        "keys of none": "there are no keys for the remote none",
        "remote wrong": "the key id or the key is wrong",
        "sync push": "limited:comfy_models cannot be written to: the key lacks writeFiles",
        "sync outside": "the key may only use names that begin with comfy_models/, not other",
        "remote nobody": "B2 cannot be reached at http://127.0.0.1:1",
    }
    assert {name for name, row in found.items() if row["status"] == "fail"} == set(said)
    for name, what in said.items():
        assert what in found[name]["what"]
        assert found[name]["hint"]
    assert (found["sync typo"]["status"], found["sync typo"]["hint"]) == ("warn", "did you mean comfy_models?")
    # The first failure decides: keys are something to set up.
    assert (done.code, done.error["code"]) == (4, "not_ready")
    for value in environ.values():
        assert value not in told(done)


def test_on_modal_each_remotes_secret_must_have_its_keys(engineless_cli: Cli, tmp_path: Path) -> None:
    cloud = ModalCloud.start(tmp_path / "cloud", container_python=Path(sys.executable), is_flat=True)
    try:
        cli = replace(engineless_cli, environ={**engineless_cli.environ, **cloud.environ})
        argv = [sys.executable, "-c", MAKE_SECRETS]
        subprocess.run(argv, cwd=cli.cwd, env=dict(cli.environ), capture_output=True, check=True)
        remotes = {
            name: {"type": "b2", "bucket": "models", "secret": name} for name in ("full", "half", "other", "gone")
        }
        pairs = {name: {"from": f"{name}:x", "to": f"models:/{name}"} for name in remotes}
        mounted = {"type": "s3", "bucket": "models", "secret": "own"}
        write_project(
            cli,
            target="modal",
            remotes={**remotes, "spare": {"type": "b2", "bucket": "models"}, "own": mounted},
            sync=pairs,
            mounts={"cold": {"remote": "own"}},
        )
        done = cli("doctor", "--json")
    finally:
        cloud.stop()
    found = rows(done)

    assert done.code == 4
    assert {name: found[name]["status"] for name in found if name.startswith("secret ")} == {
        "secret hf-credentials": "not used",
        "secret civitai-credentials": "not used",
        "secret slack-credentials": "not used",
        "secret full for full": "ok",
        "secret half for half": "fail",
        "secret other for other": "fail",
        "secret gone for gone": "fail",
        # No pair needs it.
        "secret b2-credentials for spare": "warn",
        "secret own for own": "fail",
    }
    assert found["secret full for full"]["what"] == "has FULL_KEY_ID and FULL_KEY"
    assert found["secret half for half"]["what"] == "lacks B2_APPLICATION_KEY"
    assert found["secret gone for gone"]["hint"].startswith("modal secret create gone AWS_ACCESS_KEY_ID=")
    assert "then: comfymodal setup" in found["secret b2-credentials for spare"]["hint"]
    # A mount knows no other names than these.
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in found["secret own for own"]["what"]
    assert (found["keys of full"]["status"], found["rclone"]["status"]) == ("skipped", "ok")
    assert "value-" not in told(done)
