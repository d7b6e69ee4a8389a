"""The shipped locks: hashed, without torch and what it brings for accelerators, and regenerable from their sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comfymodal.comfyui.install.package import ENGINE, pins
from comfymodal.comfyui.install.plan import TORCH_VERSION

LOCKS = [
    pytest.param(ENGINE.pip, id="pip"),
    pytest.param(ENGINE.packages, id="packages"),
    pytest.param(ENGINE.source, id="source"),
]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    requirements = "\n".join(lines).replace("\\\n", "").splitlines()
    assert requirements
    unsafe = [line for line in requirements if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]
    assert unsafe == []


def test_torch_and_accelerators_are_not_locked() -> None:
    names = {pin.partition("==")[0] for pin in pins(ENGINE.packages.read_text(encoding="utf-8"))}
    assert {name for name in names if re.match(r"torch(vision|audio)?$|nvidia-|cuda-|triton", name)} == set()


def test_what_would_give_comfyui_a_database_is_left_out() -> None:
    names = {pin.partition("==")[0] for pin in pins(ENGINE.packages.read_text(encoding="utf-8"))}
    assert names.isdisjoint({"alembic", "sqlalchemy"})
    assert {"kornia", "kornia-rs", "spandrel", "requests", "sympy", "setuptools"} <= names


def test_the_lock_was_made_beside_the_torch_that_is_installed() -> None:
    source = ENGINE.packages.with_suffix(".in").read_text(encoding="utf-8")
    assert f"torch=={TORCH_VERSION}" in ENGINE.torch
    assert [pin for pin in ENGINE.torch if f"\n{pin}\n" not in source] == []


def test_pins_keep_markers_and_drop_hashes() -> None:
    lock = "# made by\nav==1 ; python_version < '3.12' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nyarl==2 \\\n"
    assert pins(lock) == ["av==1 ; python_version < '3.12'", "yarl==2"]
