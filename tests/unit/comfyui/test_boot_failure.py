"""Why an engine did not come up, from logs that ComfyUI 0.3.75 really wrote (paths shortened)."""

from __future__ import annotations

import pytest

from comfymodal.comfyui.boot_failure import LONGEST, hint_for, reason_in
from tests.conftest import DATA


def log(name: str) -> str:
    return (DATA / "boot_logs" / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("no_module", "ModuleNotFoundError: No module named 'PIL'", "the Python that runs ComfyUI: /venv/python"),
        ("no_cuda", "AssertionError: Torch not compiled with CUDA enabled", "comfyui.args: [--cpu]"),
        (
            "port_taken",
            "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 52990):"
            " address already in use",
            "run the command again",
        ),
        ("bad_port", "OverflowError: bind(): port must be 0-65535.", None),
        ("unknown_flag", "unrecognized arguments: --no-such-flag", "correct comfyui.args"),
        # A custom node's traceback is printed and survived: it is no reason.
        ("custom_node_failed", None, None),
    ],
)
def test_the_reason_is_read_from_the_log_of_a_failed_start(name: str, reason: str | None, hint: str | None) -> None:
    found = reason_in(log(name))
    told = hint_for(found, python="/venv/python")
    assert found == reason
    assert told is None if hint is None else hint in (told or "")


TRACEBACK = 'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\n    raise x\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", None, id="empty"),
        pytest.param("Starting server\n", None, id="nothing went wrong"),
        pytest.param("A note: all is well\n", None, id="looks a little like an exception"),
        pytest.param(TRACEBACK + "KeyboardInterrupt\n", "KeyboardInterrupt", id="without a message"),
        pytest.param(TRACEBACK, None, id="cut off"),
        pytest.param(
            TRACEBACK + "ValueError: a\n\nDuring handling of the above exception, another exception occurred:\n\n"
            f"{TRACEBACK}RuntimeError: b\n",
            "RuntimeError: b",
            id="chained",
        ),
        pytest.param(
            f"{TRACEBACK}torch.cuda.OutOfMemoryError: CUDA out of memory.\nTried to allocate 2 GiB.\nSee the docs.\n",
            "torch.cuda.OutOfMemoryError: CUDA out of memory.",
            id="a message of several lines",
        ),
        pytest.param(
            f"{TRACEBACK}RuntimeError: b\nException ignored in: <function f>\n{TRACEBACK}TypeError: c\n",
            "RuntimeError: b",
            id="another one while Python ended",
        ),
        pytest.param(TRACEBACK + "ValueError: a\n" + "went on\n" * 7, None, id="caught long ago"),
        pytest.param('  File "main.py", line 3\n    x=\nSyntaxError: invalid syntax\n', "SyntaxError: invalid syntax"),
        pytest.param(
            "/v/python: can't open file '/x/main.py': [Errno 2] No such file or directory\n",
            "can't open file '/x/main.py': [Errno 2] No such file or directory",
        ),
        pytest.param(
            "/v/python: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file\n",
            "error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file",
        ),
        pytest.param("Fatal Python error: Segmentation fault\n", "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_reason_is_the_last_uncaught_exception_or_a_line_that_stands_for_one(text: str, reason: str | None) -> None:
    assert reason_in(text) == reason


def test_a_reason_without_end_is_cut() -> None:
    found = reason_in(f"{TRACEBACK}ValueError: {'x' * 5000}\n")
    assert found is not None
    assert len(found) == LONGEST + 3


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("RuntimeError: Found no NVIDIA driver on your system.", "--cpu"),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "update the NVIDIA driver",
        ),
        ("ImportError: libcuda.so.1: cannot open shared object file", "--cpu"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "end what else uses the memory"),
    ],
)
def test_known_reasons_come_with_a_hint(reason: str, hint: str) -> None:
    assert hint in (hint_for(reason, python="python") or "")
