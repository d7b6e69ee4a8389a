"""Every example validates, every workflow reads, and the money in the comments is what the price table says."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from comfymodal.costs.rates import container_rate, dollars, parse_gpu
from comfymodal.operations.modal_spec import modal_spec
from comfymodal.project.load import load_project
from comfymodal.targets.modal.limits import notices, refusals
from comfymodal.targets.spec import ModalSpec
from comfymodal.workflow.graph import read_workflow

CONFIGS = Path(__file__).parents[2] / "configs"
PROJECTS = sorted(CONFIGS.rglob("comfymodal.yaml"))
WORKFLOWS = sorted(CONFIGS.rglob("*.json"))
ON_MODAL = [CONFIGS / "flux" / "comfymodal.yaml", CONFIGS / "wan" / "comfymodal.yaml"]


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def spec_of(path: Path) -> ModalSpec:
    loaded = load_project(path, environ={}, cwd=CONFIGS)
    return modal_spec(loaded.settings, Path("/nowhere"))


def test_the_examples_are_found() -> None:
    assert set(ON_MODAL) <= set(PROJECTS)
    assert {path.with_name("workflow.json") for path in ON_MODAL} <= set(WORKFLOWS)


@pytest.mark.parametrize("path", PROJECTS, ids=name_of)
def test_every_project_file_validates_without_a_warning(path: Path) -> None:
    loaded = load_project(path, environ={}, cwd=CONFIGS)

    assert list(loaded.warnings) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_every_workflow_reads(path: Path) -> None:
    assert read_workflow(path).graph


@pytest.mark.parametrize("path", ON_MODAL, ids=name_of)
def test_modal_takes_every_example_on_the_smallest_plan(path: Path) -> None:
    assert (refusals(spec_of(path)), notices(spec_of(path))) == ((), ())


@pytest.mark.parametrize("path", ON_MODAL, ids=name_of)
def test_every_model_of_the_workflow_is_named_with_its_source(path: Path) -> None:
    text = path.read_text()
    workflow = path.with_name("workflow.json").read_text()

    names = set(re.findall(r'"([^"]+\.safetensors)"', workflow))
    assert names
    assert {name for name in names if name not in text} == set()
    assert "https://huggingface.co/" in text


@pytest.mark.parametrize("path", ON_MODAL, ids=name_of)
def test_the_commands_in_the_comments_set_inputs_that_exist(path: Path) -> None:
    graph = read_workflow(path.with_name("workflow.json")).graph

    named = re.findall(r"--set (\w+)\.(\w+)=", path.read_text())
    assert named
    assert [f"{node}.{field}" for node, field in named if field not in graph[node]["inputs"]] == []


@pytest.mark.parametrize("path", ON_MODAL, ids=name_of)
def test_the_hourly_price_in_the_comments_is_the_tables(path: Path) -> None:
    rate = container_rate([parse_gpu(gpu) for gpu in spec_of(path).containers.gpus])

    assert f"${dollars(rate.nanodollars_per_h):.2f}/h" in path.read_text()
    assert f"List prices of {rate.as_of}" in path.read_text()


@pytest.mark.parametrize("path", ON_MODAL, ids=name_of)
def test_the_budget_of_a_run_pays_for_its_worst_case(path: Path) -> None:
    wanted = spec_of(path).containers
    rate = container_rate([parse_gpu(gpu) for gpu in wanted.gpus])
    seconds = wanted.boot_timeout_s + wanted.timeout_s + wanted.scaledown_window_s
    worst = dollars(rate.nanodollars_per_h) * Decimal(seconds) / 3600

    assert f"would be ${worst:.2f}." in path.read_text()
    budget = load_project(path, environ={}, cwd=CONFIGS).settings.costs.per_run_usd
    assert budget is not None
    assert worst < budget
