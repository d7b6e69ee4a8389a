"""The name `show` gives a node is one that `--set` takes for that node and no other."""

from __future__ import annotations

import pytest

from comfymodal.workflow.graph import Graph
from comfymodal.workflow.node_names import find_nodes, names_for_set
from tests.unit.workflow.workflow_samples import node, text_to_image


def test_title_before_class_before_id() -> None:
    graph: Graph = {
        "3": node("KSampler", "Sampler"),
        "4": node("EmptyLatentImage"),
        "5": node("CLIPTextEncode"),
        "6": node("CLIPTextEncode"),
        "57:8": node("VAEDecode", "Decode"),
        "57:9": node("VAEDecode", "Decode"),
    }

    assert names_for_set(graph) == {
        "3": "Sampler",
        "4": "EmptyLatentImage",
        "5": "5",
        "6": "6",
        "57:8": "57:8",
        "57:9": "57:9",
    }


@pytest.mark.parametrize(
    "title",
    [
        "v1.5",
        "a=b",
        "4",
        '"quoted"',
        "@home",
        "--json",
        " padded ",
        "two\nlines",
        "KSampler[*]",
        "EmptyLatentImage",
        "",
    ],
)
def test_a_title_that_could_be_read_in_another_way_is_passed_over(title: str) -> None:
    graph: Graph = {
        "1": node("EmptyLatentImage", title, width=8),
        "2": node("EmptyLatentImage", width=8),
        "3": node("KSampler"),
        "4": node("KSampler"),
    }
    names = names_for_set(graph)

    for node_id, name in names.items():
        assert find_nodes(f"{name}.width=1", graph).node_ids == (node_id,)


def test_a_title_that_begins_another_ones_name_is_passed_over() -> None:
    graph: Graph = {"1": node("A", "Load"), "2": node("B", "Load.v2"), "3": node("A")}

    assert names_for_set(graph) == {"1": "1", "2": "B", "3": "3"}


def test_every_name_of_an_ordinary_workflow_leads_back_to_its_node() -> None:
    graph = text_to_image()

    for node_id, name in names_for_set(graph).items():
        assert find_nodes(f"{name}.x=1", graph).node_ids == (node_id,)
