"""The packages ai-toolkit runs with: all pinned, and resolved for the commit that is trained with."""

from __future__ import annotations

import re

from comfymodal.operations.modal_spec import LOCKED_REQUIREMENTS
from comfymodal.project.schema import Training

_PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][0-9a-z.]*)")
# Installed before, in the build that the GPU needs.
_OF_TORCH = re.compile(r"torch|torchvision|torchaudio|triton|nvidia-.+|cuda-.+")


def pins() -> list[tuple[str, str]]:
    lines = [line for line in LOCKED_REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    found = [_PIN.fullmatch(line) for line in lines]
    assert all(found), [line for line, each in zip(lines, found, strict=True) if each is None]
    return [(each["name"], each["version"]) for each in found if each]


def test_every_package_is_pinned_once() -> None:
    names = [name for name, _ in pins()]

    assert len(names) > 100
    assert names == sorted(set(names))


def test_torch_and_what_it_brings_are_left_as_they_are() -> None:
    assert [name for name, _ in pins() if _OF_TORCH.fullmatch(name)] == []


def test_the_pins_are_those_of_the_commit_that_is_trained_with() -> None:
    assert Training().toolkit_commit in LOCKED_REQUIREMENTS.read_text()
    # The first and the last that fits its code; what its own pin does not load beside torch 2.13; what renames files.
    assert dict(pins()).items() >= {("diffusers", "0.39.0"), ("torchcodec", "0.15.0"), ("safetensors", "0.8.0")}
