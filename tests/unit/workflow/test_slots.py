from __future__ import annotations

import copy
from typing import Any

import pytest

from comfymodal.errors import WorkflowError
from comfymodal.workflow.graph import Graph
from comfymodal.workflow.slots import LoraSlot, TextSlot, filled, find_lora, find_prompt

TEXT = ["STRING", {"multiline": True}]


def entry(*outputs: str, **inputs: Any) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": list(outputs)}


INFO = {
    "CLIPTextEncode": entry("CONDITIONING", text=TEXT, clip=["CLIP"]),
    "CLIPTextEncodeFlux": entry("CONDITIONING", clip=["CLIP"], clip_l=TEXT, t5xxl=TEXT, guidance=["FLOAT", {}]),
    "FluxGuidance": entry("CONDITIONING", conditioning=["CONDITIONING"], guidance=["FLOAT", {}]),
    "ConditioningCombine": entry("CONDITIONING", conditioning_1=["CONDITIONING"], conditioning_2=["CONDITIONING"]),
    "ControlNetApplyAdvanced": entry(
        "CONDITIONING", "CONDITIONING", positive=["CONDITIONING"], negative=["CONDITIONING"], image=["IMAGE"]
    ),
    "KSampler": entry("LATENT", model=["MODEL"], positive=["CONDITIONING"], negative=["CONDITIONING"]),
    "BasicGuider": entry("GUIDER", model=["MODEL"], conditioning=["CONDITIONING"]),
    "SamplerCustomAdvanced": entry("LATENT", "LATENT", guider=["GUIDER"]),
    "LoraLoader": entry("MODEL", "CLIP", lora_name=[["a"]], strength_model=["FLOAT"], strength_clip=["FLOAT"]),
}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def text(words: str) -> dict[str, Any]:
    return node("CLIPTextEncode", text=words, clip=["1", 1])


def sampler(positive: Any, negative: Any) -> dict[str, Any]:
    return node("KSampler", model=["8", 0], positive=positive, negative=negative)


LORA = node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name="x", strength_model=1.0, strength_clip=0.5)


@pytest.mark.parametrize(
    ("graph", "slot"),
    [
        pytest.param(
            {"2": text("a"), "3": text("b"), "5": sampler(["2", 0], ["3", 0])}, TextSlot("2", ("text",)), id="plain"
        ),
        pytest.param(
            {
                "2": text("a"),
                "3": text("b"),
                "4": node("ControlNetApplyAdvanced", positive=["2", 0], negative=["3", 0], image=["9", 0]),
                "5": sampler(["4", 0], ["4", 1]),
            },
            TextSlot("2", ("text",)),
            id="through what has both",
        ),
        pytest.param(
            {
                "2": node("CLIPTextEncodeFlux", clip=["1", 1], clip_l="a", t5xxl="a", guidance=3.5),
                "4": node("FluxGuidance", conditioning=["2", 0], guidance=3.5),
                "6": node("BasicGuider", model=["8", 0], conditioning=["4", 0]),
                "7": node("SamplerCustomAdvanced", guider=["6", 0]),
            },
            TextSlot("2", ("clip_l", "t5xxl")),
            id="a guider, and an encoder of two models",
        ),
        pytest.param(
            {"2": text("a"), "5": sampler(["2", 0], ["2", 0]), "6": sampler(["2", 0], ["2", 0])},
            TextSlot("2", ("text",)),
            id="one text for all",
        ),
    ],
)
def test_the_prompt_is_what_leads_to_positive(graph: Graph, slot: TextSlot) -> None:
    assert find_prompt(graph, INFO) == slot


def test_two_texts_need_a_word() -> None:
    graph: Graph = {
        "2": text("a"),
        "3": text("b"),
        "4": node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["3", 0]),
        "5": sampler(["4", 0], ["3", 0]),
    }

    with pytest.raises(WorkflowError, match=r"2 texts lead .* node 2 .*, node 3") as caught:
        find_prompt(graph, INFO)

    assert caught.value.hint == "say where the prompts go: --eval-prompt 2.text"
    assert find_prompt(graph, INFO, "3.text") == TextSlot("3", ("text",))


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param({"5": sampler(["7", 0], ["7", 0])}, id="a link to nowhere"),
        pytest.param({"4": node("FluxGuidance", conditioning=["4", 0]), "5": sampler(["4", 0], 1)}, id="a ring"),
        pytest.param({"2": text("a")}, id="no sampler"),
        pytest.param({"2": node("Unknown", text="a"), "5": sampler(["2", 0], ["2", 0])}, id="an unknown class"),
    ],
)
def test_without_a_text_it_says_so(graph: Graph) -> None:
    with pytest.raises(WorkflowError, match="no text leads"):
        find_prompt(graph, INFO)


def test_the_only_lora_is_the_trained_one() -> None:
    assert find_lora({"8": LORA}) == LoraSlot("8", ("strength_model", "strength_clip"))
    only = node("LoraLoaderModelOnly", model=["1", 0], lora_name="x", strength_model=1.0)
    assert find_lora({"8": only}) == LoraSlot("8", ("strength_model",))


def test_of_several_loras_one_is_named() -> None:
    graph: Graph = {"8": LORA, "9": {**LORA, "_meta": {"title": "Mine"}}, "2": text("a")}

    with pytest.raises(WorkflowError, match=r"loads 2 LoRAs: node 8 .*, node 9") as caught:
        find_lora(graph)

    assert "--eval-lora 8" in str(caught.value.hint)
    assert find_lora(graph, "Mine").node_id == "9"
    with pytest.raises(WorkflowError, match="not one node that loads a LoRA"):
        find_lora(graph, "2")
    with pytest.raises(WorkflowError, match="nowhere to put"):
        find_lora({"2": text("a")})


def test_a_cell_is_a_copy() -> None:
    graph: Graph = {"8": LORA, "2": text("a"), "3": text("b")}
    before = copy.deepcopy(graph)

    new = filled(graph, find_lora(graph), TextSlot("2", ("text",)), file="eval/x", strength=0.6, prompt="a cat")
    own = filled(graph, find_lora(graph), TextSlot("2", ("text",)), file="eval/x", strength=0.6, prompt=None)

    assert graph == before
    told = {key: new["8"]["inputs"][key] for key in ("lora_name", "strength_model", "strength_clip")}
    assert told == {"lora_name": "eval/x", "strength_model": 0.6, "strength_clip": 0.6}
    assert (new["2"]["inputs"]["text"], new["3"]["inputs"]["text"]) == ("a cat", "b")
    assert own["2"]["inputs"]["text"] == "a"
