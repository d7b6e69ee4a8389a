"""What Modal's client prints by itself is not made for operators."""

from __future__ import annotations

import subprocess
import sys

import pytest

# As an interruption of one of its calls leaves it: a task that failed, and nobody who asks how it ended.
LEFT_BEHIND = """
import asyncio, gc
{first}
async def fails():
    raise RuntimeError("nobody asks")
async def main():
    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0.01)
asyncio.run(main())
gc.collect()
"""
REQUIRED = "from comfymodal.targets.modal_client import require_client; require_client()"


@pytest.mark.parametrize(("first", "is_said"), [("", True), (REQUIRED, False)])
def test_a_task_that_nobody_asks_for_leaves_no_traceback(first: str, is_said: bool) -> None:
    code = LEFT_BEHIND.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("Traceback" in done.stderr) is is_said
