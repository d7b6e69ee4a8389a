"""Buckets that render containers read models from: what is deployed, what lies in them, which file is taken."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from comfymodal.errors import NotReadyError
from comfymodal.operations.doctor_secrets import secret_checks
from comfymodal.operations.examine import examine
from comfymodal.operations.modal_spec import modal_spec
from comfymodal.operations.setup import region_for
from comfymodal.project.load import load_project
from comfymodal.targets.modal import buckets
from comfymodal.targets.modal.bucket_files import list_mounts, model_files_in
from comfymodal.targets.modal.buckets import MountListing, read_listing, require_keys
from comfymodal.targets.modal.containers import Box, launch_from
from comfymodal.targets.modal.limits import refusals
from comfymodal.targets.modal.names import ENV_MOUNTS, ENV_SETTINGS
from comfymodal.targets.modal.nodes import ModelFile, files_by_folder, first_of, models_in
from comfymodal.targets.modal.plan import (
    NEW_CONTAINERS,
    changes,
    describe,
    fingerprint,
    image_fingerprint,
    mounts_fingerprint,
)
from comfymodal.targets.spec import ModalSpec, MountSpec
from tests.unit.targets.modal_samples import SPEC

ENDPOINT = "https://s3.us-west-004.backblazeb2.com"
COLD = MountSpec("cold-models", "library", ENDPOINT, "us-west-004", "cold-keys")


def with_mounts(**mounts: MountSpec) -> ModalSpec:
    return replace(SPEC, mounts=mounts)


MOUNTED = with_mounts(cold=COLD)


def test_a_mount_is_part_of_what_is_deployed_and_replaces_containers() -> None:
    (added,) = changes(describe(SPEC), describe(MOUNTED))
    (removed,) = changes(describe(MOUNTED), describe(SPEC))

    assert (added.key, added.old, added.effect) == ("mounts.cold", "none", NEW_CONTAINERS)
    assert added.new == f"cold-models/library at {ENDPOINT}, keys of cold-keys"
    assert (removed.key, removed.new, removed.effect) == ("mounts.cold", "none", NEW_CONTAINERS)


@pytest.mark.parametrize("changed", [{"bucket": "other"}, {"prefix": ""}, {"endpoint": None}, {"secret": "other"}])
def test_every_part_of_a_mount_counts(changed: dict[str, Any]) -> None:
    other = with_mounts(cold=replace(COLD, **changed))

    assert len({fingerprint(spec) for spec in (SPEC, MOUNTED, other)}) == 3
    # Which nodes ComfyUI has does not follow from a bucket: no image is booted again for one.
    assert image_fingerprint(SPEC) == image_fingerprint(MOUNTED) == image_fingerprint(other)
    # The same files, whoever's keys open the bucket.
    assert (mounts_fingerprint(other) == mounts_fingerprint(MOUNTED)) == ("secret" in changed)


def test_the_order_of_mounts_counts() -> None:
    other = replace(COLD, bucket="other")

    assert fingerprint(with_mounts(a=COLD, b=other)) != fingerprint(with_mounts(b=other, a=COLD))


def test_an_endpoint_without_encryption_is_refused() -> None:
    (words,) = refusals(with_mounts(cold=replace(COLD, endpoint="http://s3.example.com")))

    assert words == "mounts.cold: the endpoint http://s3.example.com must begin with https://"
    assert refusals(with_mounts(cold=COLD, amazon=replace(COLD, endpoint=None))) == ()


def fill(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x" * len(file))


def test_model_files_are_those_in_folders_that_are_not_hidden(tmp_path: Path) -> None:
    fill(tmp_path, "loras/b.safetensors", "loras/a/deep.safetensors", "checkpoints/c.ckpt")
    fill(tmp_path, "README.md", ".comfymodal/base.json", "loras/.trash/old.safetensors")

    assert list(model_files_in(tmp_path)) == [
        ("checkpoints/c.ckpt", 18),
        ("loras/b.safetensors", 19),
        ("loras/a/deep.safetensors", 24),
    ]


def container_environ(root: Path, *mounts: str) -> dict[str, str]:
    settings = {"mounts": list(mounts), "arguments": [], "boot_timeout_s": 60}
    where = {"COMFYUI_PATH": "/comfy", "COMFYUI_PYTHON": "python", "COMFYMODAL_VOLUME_MODELS": str(root / "models")}
    rest = {"COMFYMODAL_VOLUME_INPUTS": "/i", "COMFYMODAL_VOLUME_OUTPUTS": "/o"}
    return {ENV_SETTINGS: json.dumps(settings), ENV_MOUNTS: str(root / "mounts"), **where, **rest}


def test_a_container_lists_each_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in container_environ(tmp_path, "cold", "more").items():
        monkeypatch.setenv(name, value)
    fill(tmp_path / "mounts" / "cold", "vae/v.pt")
    (tmp_path / "mounts" / "more").mkdir()
    assert list_mounts()["files"] == {"cold": [["vae/v.pt", 8]], "more": []}

    (tmp_path / "mounts" / "more").rmdir()
    assert list_mounts()["error"] == "mount more: No such file or directory"


def test_comfyui_reads_the_mounts_but_not_where_it_only_tells_its_nodes(tmp_path: Path) -> None:
    environ = container_environ(tmp_path, "cold", "more")

    assert launch_from(environ).mounts == (str(tmp_path / "mounts" / "cold"), str(tmp_path / "mounts" / "more"))
    assert launch_from(environ, models=tmp_path).mounts == ()


class NoReload:
    """Of a place what `Box` asks for before a job."""

    def __init__(self, models: Path) -> None:
        self.volumes = {"models": models}

    def emit(self, event: Mapping[str, Any]) -> None:
        raise AssertionError("nothing is said")


def test_a_file_of_a_mount_reloads_no_volume_and_is_listed_anew_once(tmp_path: Path) -> None:
    box = Box()
    box._folder, box._seen_in_mounts, box._engine = tmp_path / "engine", set(), object()  # type: ignore[assignment]
    fill(tmp_path / "models", "loras/here.safetensors")
    job = {
        "models": [
            {"file": "checkpoints/cold.ckpt", "size_bytes": 5, "mount": "cold"},
            {"file": "loras/here.safetensors", "size_bytes": 22, "mount": None},
        ]
    }
    box._refresh_models(job, NoReload(tmp_path / "models"))  # type: ignore[arg-type]
    fresh = tmp_path / "engine" / "fresh" / "checkpoints"
    os.utime(fresh, (1, 1))
    box._refresh_models(job, NoReload(tmp_path / "models"))  # type: ignore[arg-type]

    assert fresh.stat().st_mtime == 1
    assert not (tmp_path / "engine" / "fresh" / "loras").exists()


def test_of_one_name_the_volumes_file_is_taken_then_the_first_mounts() -> None:
    volume = files_by_folder([("loras/both.pt", 1)])
    listing = MountListing(0, {"b": (("loras/both.pt", 2), ("loras/cold.pt", 2)), "a": (("loras/cold.pt", 3),)})
    spec = with_mounts(a=COLD, b=COLD)
    files = first_of([volume, *listing.by_folder(spec)])

    assert files == {"loras": {"both.pt": ModelFile("loras/both.pt", 1), "cold.pt": ModelFile("loras/cold.pt", 3, "a")}}
    assert listing.folders == {"loras"}
    graph = {"1": {"class_type": "Lora", "inputs": {"name": "cold.pt"}}}
    known = {"Lora": {"input": {"required": {"name": [["comfymodal-marker-loras.pt"]]}}}}
    assert models_in([graph], known, files) == [ModelFile("loras/cold.pt", 3, "a")]


def test_what_another_project_listed_is_not_taken(tmp_path: Path, mocker: MockerFixture) -> None:
    volumes = mocker.patch.object(buckets, "Volumes")
    noted: dict[str, Any] = {"at": time.time(), "files": {"cold": [["loras/a.pt", 1]]}}
    volumes.return_value.read_json.return_value = noted
    spec = replace(MOUNTED, state=tmp_path)
    listing = read_listing(spec)
    assert listing == MountListing(noted["at"], {"cold": (("loras/a.pt", 1),)})
    assert listing is not None
    assert not listing.is_old
    assert replace(listing, at=time.time() - 3600).is_old

    # Kept here from now on; and another folder of the bucket is another question.
    volumes.return_value.read_json.return_value = None
    assert read_listing(spec) == listing
    assert read_listing(replace(spec, mounts={"cold": replace(COLD, prefix="")})) is None
    assert read_listing(replace(SPEC, state=tmp_path)) is None


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (None, "mounts.cold: there is no Modal secret cold-keys; nothing was deployed"),
        (("AWS_ACCESS_KEY_ID",), "mounts.cold: the Modal secret cold-keys lacks AWS_ACCESS_KEY_ID"),
    ],
)
def test_keys_are_looked_at_before_anything_is_deployed(
    missing: tuple[str, ...] | None, words: str, mocker: MockerFixture
) -> None:
    mocker.patch.object(buckets, "missing_keys", return_value=missing)
    with pytest.raises(NotReadyError, match=words):
        require_keys(MOUNTED)
    mocker.patch.object(buckets, "missing_keys", return_value=())
    require_keys(MOUNTED)


def test_a_secret_made_for_a_mount_gets_the_region_if_there_is_one() -> None:
    assert region_for("cold-keys", MOUNTED) == {"AWS_REGION": "us-west-004"}
    assert region_for("other", MOUNTED) == {}
    elsewhere = replace(COLD, region="eu-central-003")
    assert region_for("cold-keys", with_mounts(cold=COLD, more=elsewhere)) == {}


PROJECT = """\
version: 1
target: {target}
remotes:
  store: {{type: s3, bucket: models, endpoint: "https://s3.us-west-004.backblazeb2.com"}}
mounts:
  cold: {{remote: store, path: archive}}
"""


@pytest.mark.parametrize(("has_region", "status"), [(True, "ok"), (False, "warn")])
def test_doctor_misses_the_region_of_a_mounts_secret(
    tmp_path: Path, mocker: MockerFixture, has_region: bool, status: str
) -> None:
    (tmp_path / "comfymodal.yaml").write_text(PROJECT.format(target="modal"))
    project = load_project(tmp_path / "comfymodal.yaml", environ={}, cwd=tmp_path).settings
    there = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *(["AWS_REGION"] if has_region else [])}
    mocker.patch(
        "comfymodal.targets.modal.secrets.missing_keys",
        side_effect=lambda secret, _: tuple(key for key in secret.keys if key not in there),
    )
    ((row, _),) = examine(secret_checks(project, modal_spec(project, tmp_path), ()))

    assert row.status == status
    if not has_region:
        assert row.hint == "add AWS_REGION=us-west-004 to b2-credentials at https://modal.com/secrets"


def test_the_local_target_says_once_that_it_has_no_mounts(tmp_path: Path) -> None:
    def warnings(target: str) -> tuple[str, ...]:
        (tmp_path / "comfymodal.yaml").write_text(PROJECT.format(target=target))
        return load_project(tmp_path / "comfymodal.yaml", environ={}, cwd=tmp_path).warnings

    assert warnings("local") == ("mounts count only on Modal: here ComfyUI sees none of those buckets",)
    assert warnings("modal") == ()
