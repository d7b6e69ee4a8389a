"""Literal values against what the server declares: type, range, list, model, file."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator
from typing import Any

from comfymodal.workflow.object_info import COMBO, InputSpec
from comfymodal.workflow.problems import Place, Problem
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences, shown

MODEL_EXTENSIONS = (".safetensors", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl", ".sft", ".gguf", ".onnx")

# The server takes any text for these and the node fails at run time, minutes later. A closed list, because
# custom nodes give widgets types of their own (COLOR, CURVE) that do hold a literal.
# fmt: off
_LINK_ONLY = frozenset((
    "IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "CLIP_VISION",
    "CLIP_VISION_OUTPUT", "STYLE_MODEL", "GLIGEN", "UPSCALE_MODEL", "LATENT_UPSCALE_MODEL", "SAMPLER",
    "SIGMAS", "GUIDER", "NOISE", "AUDIO", "VIDEO", "HOOKS", "HOOK_KEYFRAMES", "TIMESTEPS_RANGE", "LORA_MODEL",
    "LATENT_OPERATION", "MODEL_PATCH", "AUDIO_ENCODER", "AUDIO_ENCODER_OUTPUT", "PHOTOMAKER", "VOXEL", "MESH",
    "SVG", "LOSS_MAP",
))
# fmt: on

_ANNOTATED = re.compile(r" \[(?:input|output|temp)\]$")


def value_problems(value: Any, spec: InputSpec, *, place: Place, uploaded: Container[str]) -> Iterator[Problem]:
    """Yield what is wrong with a literal; values that the server casts (`"128"` for INT) are fine."""
    literal = value["__value__"] if isinstance(value, dict) and "__value__" in value else value
    if spec.is_dynamic:
        return
    if spec.types <= _LINK_ONLY:
        if literal is not None or spec.is_required:
            yield place.problem(
                "bad_type", f"needs a link ({spec.type}), not {shown(value)}", hint='a link is ["NODE", 0]'
            )
    elif spec.is_upload:
        yield from _file_problems(literal, spec, place=place, uploaded=uploaded)
    elif spec.type == COMBO:
        yield from _choice_problems(literal, spec, place=place)
    elif spec.type in ("INT", "FLOAT"):
        yield from _number_problems(literal, spec, place=place)
    elif spec.type in ("STRING", "BOOLEAN"):
        yield from _cast_problems(literal, spec, place=place)


def _number_problems(value: Any, spec: InputSpec, *, place: Place) -> Iterator[Problem]:
    try:
        number = int(value) if spec.type == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if spec.type == "INT" else "a number"
        yield place.problem("bad_type", f"needs {wanted} ({spec.type}), not {shown(value)}")
        return
    if spec.type == "INT" and isinstance(value, float) and number != value:
        yield place.problem("bad_type", f"is an INT: the server makes {number} of {shown(value)}", is_warning=True)
    low, high = _limit(spec, "min"), _limit(spec, "max")
    if (low is not None and number < low) or (high is not None and number > high):
        limits = " and ".join(
            text
            for text in (f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else "")
            if text
        )
        yield place.problem("out_of_range", f"is {shown(value)}, but must be {limits}")


def _limit(spec: InputSpec, name: str) -> int | float | None:
    limit = spec.settings.get(name)
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool) and not math.isnan(limit)
    return limit if is_number else None


def _cast_problems(value: Any, spec: InputSpec, *, place: Place) -> Iterator[Problem]:
    """The server casts these with str() and bool(), which never fail but surprise."""
    if spec.type == "STRING" and (value is None or isinstance(value, dict | list)):
        yield place.problem("bad_type", f"is a text: the server writes out {shown(value)}", is_warning=True)
    if spec.type == "BOOLEAN" and isinstance(value, str):
        yield place.problem(
            "bad_type", f"is a BOOLEAN: the server may read any text, also {shown(value)}, as true", is_warning=True
        )


def _choice_problems(value: Any, spec: InputSpec, *, place: Place) -> Iterator[Problem]:
    if spec.options is None or (isinstance(value, str) and _ANNOTATED.search(value)):
        return  # a list only the page knows, or a file in another folder: the server's to judge
    chosen = value if isinstance(value, list) and spec.settings.get("multiselect") else [value]
    for item in chosen:
        if item in spec.options:
            continue
        if isinstance(item, str) and item.lower().endswith(MODEL_EXTENSIONS):
            yield _missing_model(item, spec.options, place=place)
        else:
            yield _not_in_list(item, spec.options, place=place)


def _missing_model(name: str, options: tuple[Any, ...], *, place: Place) -> Problem:
    near = _near_options(name, options)
    none_yet = None if options else "no file is there for this input yet"
    return place.problem(
        "missing_model",
        f"names the model {shown(name, limit=200)}, which the engine does not have",
        hint=sentences(did_you_mean(near), none_yet) or f"it has: {listed(map(str, options), limit=6)}",
    )


def _not_in_list(value: Any, options: tuple[Any, ...], *, place: Place) -> Problem:
    choices = f"choices: {listed(map(str, options))}" if options else "there is nothing to choose from"
    near = _near_options(value, options) if isinstance(value, str) else []
    return place.problem(
        "not_in_list", f"is {shown(value)}, which is not in its list", hint=sentences(did_you_mean(near), choices)
    )


def _near_options(wanted: str, options: tuple[Any, ...]) -> list[str]:
    """Return the same path written with the other separator, else the same file elsewhere, else similar names."""
    texts = [option for option in options if isinstance(option, str)]
    for same in (_slashed, _file_name):
        found = [option for option in texts if same(option) == same(wanted)]
        if found:
            return found[:3]
    by_slashed = {_slashed(option): option for option in texts}
    return [by_slashed[name] for name in near_names(_slashed(wanted), by_slashed)]


def _slashed(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _file_name(name: str) -> str:
    return _slashed(name).rpartition("/")[2]


def _file_problems(value: Any, spec: InputSpec, *, place: Place, uploaded: Container[str]) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield place.problem("bad_type", f"needs the name of a file, not {shown(value)}")
        return
    # The list shows the top folder only: names in subfolders or with " [output]" are the server's to judge.
    if spec.options is None or "/" in value or " [" in value or value in spec.options or value in uploaded:
        return
    target = f"{place.node_id}.{place.input_name}"
    yield place.problem(
        "missing_file",
        f"names the file {shown(value)}, which the engine does not have",
        hint=sentences(did_you_mean(_near_options(value, spec.options)), f"upload one: --set {target}=@FILE"),
    )
