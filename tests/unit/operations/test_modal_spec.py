from __future__ import annotations

from pathlib import Path

from comfymodal.costs.live_rates import keep, rates_file
from comfymodal.costs.rates import LIST, container_rate, parse_gpu
from comfymodal.operations.context import open_context
from comfymodal.operations.modal_spec import NEWEST_COMFYUI, modal_spec
from comfymodal.project.load import load_project
from comfymodal.targets.spec import ContainerSpec, ImageSpec, ModalSpec, MountSpec, TrainSpec, VolumeSpec

FILE = """\
version: 1
project: portraits
target: modal
modal: {environment: dev, workspace: studio, region: eu}
volumes:
  models: {name: m, version: 1}
  inputs: {name: i}
  datasets: {name: d, version: 1}
remotes:
  b2: {type: s3, bucket: m-b, prefix: comfy, endpoint: "https://s3.us-west-004.backblazeb2.com", secret: cold-keys}
  aws: {type: s3, bucket: other, region: eu-west-1}
mounts:
  archive: {remote: b2, path: old/models}
  all: {remote: aws}
comfyui:
  version: 0.3.75
  args: [--lowvram]
  custom_nodes: [a@1.0]
  python_packages: [b==2.0]
  env: {C: 12.10}
  secrets: [hf-credentials]
  gpu: [a100, h100:2]
  timeout: 2h
  boot_timeout: 5m
  scaledown_window: 30s
  min_containers: 1
  max_containers: 9
  buffer_containers: 2
  snapshot: cpu
training: {toolkit_commit: "0123456789abcdef0123456789abcdef01234567", requirements: locked.txt, retries: 2}
"""


def test_every_setting_of_modal_comes_from_the_project(tmp_path: Path) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_text(FILE)
    (tmp_path / "locked.txt").write_text("# ours\na==1.0  # why\n\nb==2.0\n")
    project = load_project(path, environ={}, cwd=tmp_path).settings
    assert modal_spec(project, tmp_path / "state") == ModalSpec(
        project="portraits",
        environment="dev",
        workspace="studio",
        volumes={
            "models": VolumeSpec("m", 1),
            "inputs": VolumeSpec("i", 2),
            "outputs": VolumeSpec("comfy-outputs", 2),
            "datasets": VolumeSpec("d", 1),
            "training": VolumeSpec("training-data", 2),
            "cache": VolumeSpec("comfy-cache", 2),
        },
        image=ImageSpec(
            comfyui_version="0.3.75",
            custom_nodes=("a@1.0",),
            python_packages=("b==2.0",),
            env={"C": "12.10"},
            arguments=("--lowvram",),
        ),
        containers=ContainerSpec(
            gpus=("A100", "H100:2"),
            timeout_s=7200.0,
            boot_timeout_s=300.0,
            scaledown_window_s=30.0,
            min_containers=1,
            max_containers=9,
            buffer_containers=2,
            snapshot="cpu",
            secrets=("hf-credentials",),
        ),
        training=TrainSpec("0123456789abcdef0123456789abcdef01234567", ("a==1.0", "b==2.0"), 2),
        state=tmp_path / "state",
        mounts={
            "archive": MountSpec(
                "m-b", "comfy/old/models", "https://s3.us-west-004.backblazeb2.com", "us-west-004", "cold-keys"
            ),
            "all": MountSpec("other", "", None, "eu-west-1", "b2-credentials"),
        },
        region="eu",
        rates=LIST.in_region("eu"),
    )


def test_the_workspaces_own_fresh_prices_price_what_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_text("version: 1\nmodal: {environment: dev, region: us-west}\n")
    context = open_context(path, environ={"COMFYMODAL_STATE_DIR": str(tmp_path / "state")}, cwd=tmp_path)
    assert context.rates == LIST.in_region("us-west")

    told = {"gpu_hour_cost_l40s": "3.6", "cpu_hour_cost": "0.0473", "mem_gib_hour_cost": "0.008"}
    keep(rates_file(context.state, None, "dev"), told, workspace="studio")
    rate = container_rate([parse_gpu("L40S")], context.rates)
    assert (rate.source, rate.gpu_nanodollars_per_s) == ("workspace", 1_750_000)
    assert modal_spec(context.project, context.state).rates == context.rates

    path.write_text("version: 1\nmodal: {environment: dev, workspace: another}\n")
    keep(rates_file(context.state, "another", "dev"), told, workspace="studio")
    assert open_context(path, environ=context.environ, cwd=tmp_path).rates == LIST


def test_without_a_version_the_newest_known_comfyui_is_built(tmp_path: Path) -> None:
    project = load_project(None, environ={}, cwd=tmp_path).settings
    spec = modal_spec(project, tmp_path)
    assert spec.image.comfyui_version == NEWEST_COMFYUI
    assert (spec.containers.gpus, spec.containers.snapshot) == (("L40S",), "off")
    assert spec.environment is None
