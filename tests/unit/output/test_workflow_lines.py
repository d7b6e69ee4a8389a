"""`workflow show` at a terminal: blocks that keep within the width."""

from __future__ import annotations

import pytest

from comfymodal.operations.describe import describe_nodes
from comfymodal.operations.workflow_results import WorkflowShown
from comfymodal.output.workflow import node_lines, node_rows
from comfymodal.workflow.graph import Graph
from tests.unit.workflow.workflow_samples import node, object_info, text_to_image


def shown(graph: Graph, *, is_typed: bool = True, is_whole: bool = False) -> WorkflowShown:
    info = object_info(ckpt_name=["sd15.safetensors"]) if is_typed else None
    return WorkflowShown("w.json", "", None, describe_nodes(graph, info), (), is_whole)


def test_block_of_a_node() -> None:
    graph = text_to_image()
    graph["3"]["inputs"]["steps"] = 25
    del graph["3"]["inputs"]["denoise"]

    assert node_lines(shown(graph), 80)[:11] == [
        "3  Sampler (KSampler)  -> 0 LATENT",
        "   model                 <- 4 Load Checkpoint   MODEL",
        "   Sampler.seed          5                      INT 0..18446744073709551615",
        "   Sampler.steps         25                     INT 1..10000",
        "   Sampler.cfg           7                      FLOAT 0.0..100.0",
        "   Sampler.sampler_name  euler                  one of 42: euler, euler_cfg_p...",
        "   Sampler.scheduler     normal                 one of 9: simple, sgm_uniform...",
        "   positive              <- 6 Positive Prompt   CONDITIONING",
        "   negative              <- 7 Negative          CONDITIONING",
        "   latent_image          <- 5 EmptyLatentImage  LATENT",
        "   Sampler.denoise       missing                FLOAT 0.0..1.0",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    graph = text_to_image()
    graph["6"]["inputs"]["text"] = "a very long text " * 40

    assert max(map(len, node_lines(shown(graph), width))) <= width


def test_texts_are_shown_as_they_are_typed_and_quoted_where_they_would_not_show() -> None:
    graph: Graph = {
        "1": node("CLIPTextEncode", text="two\nlines"),
        "2": node("CLIPTextEncode", text=""),
        "3": node("CLIPTextEncode", text="plain, 123"),
    }

    assert [row[4] for row in node_rows(shown(graph, is_typed=False))] == ['"two\\nlines"', '""', "plain, 123"]


def test_unknown_class_and_missing_input_and_dangling_link_are_told() -> None:
    graph: Graph = {"1": node("Mystery", "M", x=1), "2": node("SaveImage", images=["9", 2])}

    assert node_lines(shown(graph), 80) == [
        "1  M (Mystery)  unknown to the engine",
        "   M.x  1",
        "2  SaveImage  an output",
        "   images                     <- 9[2] (no such node)  IMAGE",
        "   SaveImage.filename_prefix  missing                 STRING",
    ]


def test_without_an_engine_values_alone_are_shown() -> None:
    graph: Graph = {"5": node("EmptyLatentImage", "Size", width=512, height=64)}

    assert node_lines(shown(graph, is_typed=False), 80) == [
        "5  Size (EmptyLatentImage)",
        "   Size.width   512",
        "   Size.height  64",
    ]
