"""What must stay light stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("modal", "rich", "pydantic", "yaml", "boto3", "aiohttp")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["render", "--help"], ["runs", "--help"], ["costs", "--help"]]
)
def test_help_loads_no_heavy_package(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from comfymodal.cli.boundary import run_guarded\n"
        "from comfymodal.cli.main import app\n"
        f"code = run_guarded(app, {arguments!r})\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "LOADED [] 0"


def test_jobs_load_in_a_bare_container() -> None:
    # -I -S: the standard library and nothing else.
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import comfymodal.jobs.render; print('ok')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_every_command_has_a_help_line_and_a_module() -> None:
    from comfymodal.cli.main import COMMANDS

    for name in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "comfymodal", name, "--help"], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("Usage: ")
