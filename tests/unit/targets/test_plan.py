"""What a deploy would change, and what that costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from comfymodal.targets.modal.plan import (
    Change,
    changes,
    describe,
    fingerprint,
    rebuild_minutes,
    sync_fingerprint,
    train_fingerprint,
)
from comfymodal.targets.spec import ContainerSpec, ImageSpec, ModalSpec, VolumeSpec
from tests.unit.targets.modal_samples import (
    COMMIT,
    GIT_NODE,
    IMAGE,
    REGISTRY_NODE,
    SPEC,
    with_containers,
    with_image,
)

OTHER_IMAGE: dict[str, Any] = {
    "comfyui_version": "0.45.2",
    "custom_nodes": (),
    "python_packages": ("xformers==1",),
    "env": {"A": "1"},
    "arguments": (),
}
OTHER_CONTAINERS: dict[str, Any] = {
    "gpus": ("H100",),
    "timeout_s": 60.0,
    "boot_timeout_s": 120.0,
    "scaledown_window_s": 2.0,
    "min_containers": 1,
    "max_containers": 4,
    "buffer_containers": 1,
    "snapshot": "gpu",
    "secrets": (),
}


def changed(after: ModalSpec, before: ModalSpec = SPEC) -> tuple[Change, ...]:
    return changes(describe(before), describe(after))


def test_a_fingerprint_is_16_hex_digits_and_the_same_in_every_process() -> None:
    script = (
        "from comfymodal.targets.modal.plan import fingerprint\n"
        "from tests.unit.targets.modal_samples import SPEC\n"
        "print(fingerprint(SPEC))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == fingerprint(SPEC)
    assert len(fingerprint(SPEC)) == 16
    assert int(fingerprint(SPEC), 16)


def test_planning_loads_no_modal() -> None:
    script = "import sys, comfymodal.targets.modal.plan, comfymodal.targets.modal.limits; print('modal' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_these_tests_know_every_setting() -> None:
    assert [field.name for field in fields(ImageSpec)] == list(OTHER_IMAGE)
    assert [field.name for field in fields(ContainerSpec)] == list(OTHER_CONTAINERS)


@pytest.mark.parametrize("name", [*OTHER_IMAGE, *OTHER_CONTAINERS])
def test_every_setting_that_is_deployed_counts(name: str) -> None:
    other = (
        with_image(**{name: OTHER_IMAGE[name]})
        if name in OTHER_IMAGE
        else with_containers(**{name: OTHER_CONTAINERS[name]})
    )

    assert fingerprint(other) != fingerprint(SPEC)
    (found,) = changed(other)
    assert found.old != found.new


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, state=Path("/elsewhere")),
        replace(SPEC, workspace="mine"),
        replace(SPEC, volumes={role: VolumeSpec(volume.name, 1) for role, volume in SPEC.volumes.items()}),
        with_image(env=MappingProxyType(dict(IMAGE.env))),
    ],
    ids=["state", "workspace", "volume version", "kind of mapping"],
)
def test_what_is_not_deployed_does_not_count(other: ModalSpec) -> None:
    assert fingerprint(other) == fingerprint(SPEC)


def test_the_volumes_names_and_the_project_count() -> None:
    renamed = replace(SPEC, volumes={**SPEC.volumes, "models": VolumeSpec("my-models", 2)})

    assert len({fingerprint(spec) for spec in (SPEC, renamed, replace(SPEC, project="other"))}) == 3


@pytest.mark.parametrize("of", [fingerprint, sync_fingerprint, train_fingerprint])
def test_where_containers_may_run_is_deployed_and_prices_are_not(of: Callable[[ModalSpec], str]) -> None:
    there = replace(SPEC, region="eu")
    assert of(there) != of(SPEC)
    assert of(replace(SPEC, rates=SPEC.rates.in_region("eu"))) == of(SPEC)
    assert changed(there) == (Change("modal.region", "none", "eu", "new containers"),)


def test_what_is_kept_is_plain_json() -> None:
    kept = describe(with_image(env=MappingProxyType({"A": "1"})))

    assert json.loads(json.dumps(kept)) == kept


def test_nothing_changed_is_nothing_to_say() -> None:
    assert changed(SPEC) == ()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            with_image(comfyui_version="0.45.2"),
            Change("comfyui.version", "0.3.75", "0.45.2", "rebuilds the image from here (about 6 min)"),
        ),
        (
            with_image(custom_nodes=(REGISTRY_NODE,)),
            Change(
                "comfyui.custom_nodes",
                f"{REGISTRY_NODE}, {GIT_NODE}",
                REGISTRY_NODE,
                "rebuilds the image from here (about 2 min)",
            ),
        ),
        (
            with_image(python_packages=()),
            Change("comfyui.python_packages", "sageattention==2.2.0", "none", "new containers"),
        ),
        (
            with_image(env={"B": "2", "A": "1"}),
            Change("comfyui.env", "HF_HUB_OFFLINE=1", "A=1 B=2", "new containers"),
        ),
        (
            with_containers(gpus=("H100", "A100-80GB")),
            Change("comfyui.gpu", "L40S", "H100, A100-80GB", "new containers"),
        ),
        (with_containers(timeout_s=5400.0), Change("comfyui.timeout", "1h", "90m", "new containers")),
        (with_containers(scaledown_window_s=2.5), Change("comfyui.scaledown_window", "1m", "2.5s", "new containers")),
        (
            replace(SPEC, volumes={**SPEC.volumes, "models": VolumeSpec("comfy-models", 1)}),
            Change(
                "volumes.models.version",
                "2",
                "1",
                "nothing runs differently; it counts when the volume is created",
            ),
        ),
    ],
    ids=["version", "node gone", "packages gone", "env", "gpu", "timeout", "scaledown", "volume version"],
)
def test_a_change_says_what_it_does(spec: ModalSpec, expected: Change) -> None:
    assert changed(spec) == (expected,)


def test_another_commit_of_the_last_node_rebuilds_from_there_only() -> None:
    newer = GIT_NODE.replace(COMMIT, "f" * 40)

    (found,) = changed(with_image(custom_nodes=(REGISTRY_NODE, newer)))

    # The node, and the packages after it.
    assert found.effect == "rebuilds the image from here (about 3 min)"
    assert rebuild_minutes(describe(SPEC), describe(with_image(custom_nodes=(REGISTRY_NODE, newer)))) == 3


def test_each_of_several_changes_counts_from_its_own_layer() -> None:
    found = {
        change.key: change.effect for change in changed(with_image(comfyui_version="0.45.2", python_packages=("a==1",)))
    }

    assert found == {
        "comfyui.version": "rebuilds the image from here (about 6 min)",
        "comfyui.python_packages": "rebuilds the image from here (about 2 min)",
    }


def test_the_dearest_change_is_told_first() -> None:
    other = replace(with_containers(gpus=("H100",)), image=replace(IMAGE, comfyui_version="0.45.2", env={}))

    assert [change.key for change in changed(other)] == ["comfyui.version", "comfyui.env", "comfyui.gpu"]


def test_a_first_deploy_tells_what_will_be() -> None:
    found = {change.key: change for change in changes(None, describe(SPEC))}

    assert found["comfyui.version"] == Change("comfyui.version", "none", "0.3.75", "builds the image (about 10 min)")
    assert found["comfyui.gpu"].effect == "new containers"
    # What says nothing is not told.
    assert "comfyui.min_containers" not in found
    assert "volumes.models.version" not in found


def test_a_release_of_ours_that_builds_a_layer_otherwise_says_so() -> None:
    before = describe(SPEC)
    before["comfymodal"] = "0.0.9"
    before["steps"][1]["hash"] = "0" * 16

    (found,) = changes(before, describe(SPEC))

    assert found.key == "comfymodal: PyTorch"
    assert found.old == "0.0.9"
    assert found.effect == "rebuilds the image from here (about 9 min)"


def test_changed_sources_of_ours_mean_new_containers() -> None:
    before = {**describe(SPEC), "sources": "0" * 64}

    (found,) = changes(before, describe(SPEC))

    assert (found.key, found.effect) == ("comfymodal", "new containers")
    assert found.old != found.new


def test_a_note_of_an_older_release_without_a_key_is_read() -> None:
    before = describe(SPEC)
    del before["settings"]["comfyui.snapshot"], before["steps"], before["sources"]

    found = {change.key: change.old for change in changes(before, describe(SPEC))}

    assert found["comfyui.snapshot"] == "none"
