"""Models that lie in a bucket alone: mounted where renders run, listed where nothing costs a GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import WORKFLOWS, Done
from tests.doubles.modal_cloud.client import ModalCloud
from tests.e2e.modal_world import ModalCli, buckets_folder, run_modal

BUCKET = "cold-models"
SECRET = "cold-keys"
TINY = WORKFLOWS / "tiny_txt2img.json"

MOUNTS = f"""\
  boot_timeout: 5m
remotes:
  cold: {{type: s3, bucket: {BUCKET}, prefix: library, endpoint: "https://s3.example.com", secret: {SECRET}}}
mounts:
  archive: {{remote: cold, path: v1}}
"""


@pytest.fixture
def checkpoints(modal_cloud: ModalCloud, tiny_checkpoint: Path) -> Path:
    """The folder of checkpoints that the project's mount shows; `cold.ckpt` lies there and nowhere else."""
    folder = buckets_folder(modal_cloud.folder.parent) / BUCKET / "library" / "v1" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(tiny_checkpoint, folder / "cold.ckpt")
    (folder.parents[2] / "loras").mkdir()
    (folder.parents[2] / "loras" / "not-mounted.safetensors").touch()
    return folder


@pytest.mark.soak
def test_a_model_that_lies_in_a_bucket_alone_renders(
    make_modal_cli: Callable[..., ModalCli], checkpoints: Path, tiny_checkpoint: Path
) -> None:
    cli = make_modal_cli(more=MOUNTS)

    refused = cli("deploy", "--yes", "--json")
    assert (refused.code, refused.error["secret"]) == (4, SECRET), refused.stderr
    assert not [found for found in cli.cloud.requests("AppCreate") if cli.project in str(found["body"])]

    keys = ("AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b")
    run_modal(cli.cloud, {"PATH": os.environ["PATH"], "HOME": str(cli.cwd)}, "secret", "create", SECRET, *keys)
    deployed = cli("deploy", "--yes")
    assert deployed.code == 0, deployed.stderr
    assert "1 model files in buckets" in deployed.stderr
    assert mounted_by(cli) == {"RenderBox.*": "/volumes/mounts/archive", "list_mounts": "/volumes/mounts/archive"}

    first = render(cli, "cold.ckpt")
    assert first.code == 0, first.stderr
    (container,) = cli.containers()

    # It comes to the bucket while the container is warm; in a mounted bucket no folder's time ever changes.
    before = checkpoints.stat()
    shutil.copy(tiny_checkpoint, checkpoints / "later.ckpt")
    os.utime(checkpoints, ns=(before.st_atime_ns, before.st_mtime_ns))
    reloads = len(cli.cloud.requests("VolumeReload"))
    second = render(cli, "later.ckpt")
    assert second.code == 0, second.stderr
    assert [one["task_id"] for one in cli.containers()] == [container["task_id"]]
    assert len(cli.cloud.requests("VolumeReload")) == reloads
    assert len(first.outputs) == len(second.outputs) == 1

    missing = render(cli, "never.ckpt")
    assert missing.code == 4, missing.stderr
    assert "later.ckpt" in str(missing.error)


def test_a_bucket_that_does_not_open_is_found_before_a_gpu_waits_for_it(
    make_modal_cli: Callable[..., ModalCli],
) -> None:
    cli = make_modal_cli(more=MOUNTS.replace(BUCKET, "no-such-bucket").replace(SECRET, "other-keys"))
    keys = ("AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b")
    run_modal(cli.cloud, {"PATH": os.environ["PATH"], "HOME": str(cli.cwd)}, "secret", "create", "other-keys", *keys)
    done = cli("deploy", "--yes", "--json")

    assert done.code == 4, done.stderr
    assert done.error["message"].startswith("no container starts with the buckets of mounts.archive: ")
    assert "comfymodal doctor" in done.error["hint"]
    assert not [one for one in cli.cloud.containers(None) if one["app"] == cli.app and one["gpu"]]
    # It is not taken for deployed.
    assert cli("render", TINY, "--json").code == 4


def mounted_by(cli: ModalCli) -> dict[str, str]:
    """Where the functions of the last deploy mount the bucket, and that it is the right one, and for reading only."""
    found = {}
    asked = [request["body"] for request in cli.cloud.requests("FunctionCreate")]
    for function in (body["function"] for body in asked if "function" in body):
        for mount in function.get("cloud_bucket_mounts", ()):
            assert mount.pop("credentials_secret_id").startswith("st-")
            found[function["function_name"]] = mount.pop("mount_path")
            assert mount == {
                "bucket_name": BUCKET,
                "bucket_endpoint_url": "https://s3.example.com",
                "key_prefix": "library/v1/",
                "read_only": True,
                "force_path_style": True,
                "bucket_type": "S3",
            }
    return found


def render(cli: ModalCli, checkpoint: str) -> Done:
    return cli("render", TINY, "--set", f"CheckpointLoaderSimple.ckpt_name={checkpoint}", "--json")
