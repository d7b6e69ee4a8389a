"""A held Python imports, waits, and then runs what it is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfymodal.comfyui import boot
from comfymodal.comfyui.child import hold_child, start_child
from comfymodal.comfyui.server import Launch
from comfymodal.errors import EngineDiedError


def test_a_held_script_runs_with_its_arguments_once_the_file_is_there(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("import sys; print('ran', sys.argv[1:], __name__)")
    go = tmp_path / "go.json"
    process = subprocess.Popen([sys.executable, boot.__file__, "--hold", str(go)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("held until")
    assert process.poll() is None
    part = tmp_path / "part"
    part.write_text(json.dumps([str(script), "--port", "1"]))
    part.replace(go)
    out, _ = process.communicate(timeout=20)

    assert out.strip() == "ran ['--port', '1'] __main__"
    assert process.returncode == 0


def test_a_held_engine_that_ends_is_told_like_any_other(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("raise RuntimeError('no device')")
    launch = Launch(
        name="x",
        argv=(sys.executable, str(script)),
        arguments=(),
        cwd=str(tmp_path),
        probes_device=False,
        models=None,
        idle_stop_s=None,
        boot_timeout_s=20,
    )
    held = hold_child(launch, tmp_path / "engine")
    began = time.monotonic()

    with pytest.raises(EngineDiedError, match="RuntimeError: no device"):
        start_child(launch, tmp_path / "engine", held)
    assert time.monotonic() - began < 10
