"""pip's surroundings: a clean environment, its lines as events, its failures as errors, its end with ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfymodal.comfyui.install.pip import Meter, clean_environment, pip_error, run_python
from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError


def test_settings_that_move_an_install_are_dropped_and_those_that_find_packages_stay(tmp_path: Path) -> None:
    kept = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "SSL_CERT_FILE": "/ca.pem",
        "PIP_INDEX_URL": "https://mirror/simple",
        "PIP_EXTRA_INDEX_URL": "https://more/simple",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_CERT": "/ca.pem",
        "PIP_CONFIG_FILE": "/pip.conf",
        "PIP_CACHE_DIR": "/cache",
    }
    dropped = {
        "PIP_TARGET": "/elsewhere",
        "PIP_PREFIX": "/elsewhere",
        "PIP_USER": "1",
        "PIP_CONSTRAINT": "/constraints.txt",
        "PIP_NO_DEPS": "1",
        "PIP_REQUIRE_HASHES": "1",
        "PIP_DRY_RUN": "1",
        "PYTHONPATH": "/elsewhere",
        "PYTHONHOME": "/elsewhere",
        "PYTHONWARNINGS": "error",
        "VIRTUAL_ENV": "/venv",
        "__PYVENV_LAUNCHER__": "/python",
        "TMPDIR": "/tmp",
    }
    own = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path))
    assert clean_environment(kept | dropped, scratch=tmp_path) == kept | own | scratch


def events_of(lines: list[str], *, expected_bytes: int | None = None) -> list[tuple[str, int | None, int | None]]:
    events: list[dict[str, Any]] = []
    meter = Meter("packages", events.append, "collecting", expected_bytes)
    for line in lines:
        meter.line(line)
    assert {(event["type"], event["step"]) for event in events} == {("install", "packages")}
    return [(event["message"], event["done_bytes"], event["total_bytes"]) for event in events]


def test_bytes_add_up_over_files_and_end_with_what_came() -> None:
    lines = [
        "Collecting numpy==2",
        "  Downloading numpy-2.whl.metadata (5 kB)",
        "Downloading numpy-2.whl (1.0 MB)",
        "Progress 0 of 100",
        "Progress 100 of 100",
        "Downloading https://files.example/ab/scipy-1.whl (2.0 MB)",
        "Progress 50 of 200",
        "Progress 200 of 200",
        "Installing collected packages: numpy, scipy",
    ]
    assert events_of(lines, expected_bytes=1000) == [
        ("downloading numpy-2.whl", 0, 1000),
        ("downloading numpy-2.whl", 0, 1000),
        ("downloading numpy-2.whl", 100, 1000),
        ("downloading scipy-1.whl", 100, 1000),
        ("downloading scipy-1.whl", 150, 1000),
        ("downloading scipy-1.whl", 300, 1000),
        ("installing 2 packages", 300, 300),
    ]


def test_nothing_downloaded_has_no_byte_counts() -> None:
    assert events_of(["Installing collected packages: yarl"]) == [("installing 1 package", None, None)]


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        pytest.param(
            ["WARNING: Retrying (Retry(total=0 ...", "ERROR: No matching distribution found for yarl==1"],
            ServiceError,
            "collecting failed: the package index cannot be reached",
            id="no network",
        ),
        pytest.param(
            ["ERROR: No matching distribution found for torch==2.13.0"],
            NotReadyError,
            "torch==2.13.0 has no build for this Python and platform on your package index",
            id="no build",
        ),
        pytest.param(
            ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "  Got  abc"],
            ServiceError,
            "a downloaded package is not the one this version was tested with (its hash differs)",
            id="hash",
        ),
        pytest.param(
            ["Collecting x", "ERROR: HTTP error 503 while getting https://mirror/x.whl", "  detail"],
            ServiceError,
            "collecting failed: HTTP error 503 while getting https://mirror/x.whl",
            id="server error",
        ),
        pytest.param(
            [
                "error: incomplete-download",
                "\N{MULTIPLICATION SIGN} Download failed after 6 attempts",
                "hint: Use --resume-retries",
            ],
            ServiceError,
            "collecting failed: Download failed after 6 attempts",
            id="cut off",
        ),
        pytest.param([], ServiceError, "collecting failed: no output", id="silent"),
    ],
)
def test_pip_failures_become_one_error_each(lines: list[str], kind: type[ComfymodalError], message: str) -> None:
    error = pip_error(lines, doing="collecting")
    assert type(error) is kind
    assert error.message == message
    assert error.hint
    assert error.details["log"] == lines


def test_a_module_named_like_pip_in_the_working_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timeit.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert run_python([sys.executable, "-m", "timeit", "-n1", "-r1"], scratch=tmp_path / "tmp").code == 0


def test_an_exception_while_following_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "child.wait()\n"
    )
    seen: list[int] = []

    def stop(line: str) -> None:
        seen.extend(int(part) for part in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_python([sys.executable, script], scratch=tmp_path / "tmp", on_line=stop)
    assert_ended(seen)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_child_ends_when_we_are_killed(tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    ours = (
        "import sys; from pathlib import Path; from comfymodal.comfyui.install.pip import run_python\n"
        "run_python([sys.executable, sys.argv[1]], scratch=Path(sys.argv[2]), on_line=lambda l: print(l, flush=True))"
    )
    command = [sys.executable, "-c", ours, str(sleeper), str(tmp_path / "tmp")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **our_path()}) as us:
        assert us.stdout is not None
        child = int(us.stdout.readline())
        us.kill()
    assert_ended([child])


def our_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[3])}


def assert_ended(pids: list[int]) -> None:
    give_up_at = time.monotonic() + 10
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < give_up_at, left
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
