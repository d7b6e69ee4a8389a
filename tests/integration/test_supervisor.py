"""The supervisor beside a stand-in for main.py: ports that are taken, starts that fail, folders that vanish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from comfymodal.comfyui.running import list_running
from comfymodal.comfyui.server import Launch
from comfymodal.comfyui.warm import WarmEngine, engine_folder, ensure_warm, stop_warm
from comfymodal.errors import EngineDiedError

# What is started here outlives the process that started it: that is its purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals; an open file keeps its folder there"),
]

Make = Callable[..., Launch]
Warm = Callable[[Launch], WarmEngine]

MAIN = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
print("starting with", sys.argv[1:], flush=True)
{fault}
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = {{"system": {{"comfyui_version": "0"}}, "exec_info": {{"queue_remaining": {queue}}}}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
TAKEN = "raise OSError(98, 'error while attempting to bind on address: address already in use')"
ONCE = "if not os.path.exists('tried'):\n    open('tried', 'w').close()\n    "


@pytest.fixture
def make_launch(tmp_path: Path) -> Make:
    def make(
        *, fault: str = "", queue: int = 0, idle_stop_s: float | None = None, boot_timeout_s: float = 30
    ) -> Launch:
        main = tmp_path / "main.py"
        main.write_text(MAIN.format(fault=fault, queue=queue))
        return Launch(
            name="comfyui-test",
            argv=(sys.executable, str(main)),
            arguments=(),
            cwd=str(tmp_path),
            probes_device=False,
            models=None,
            idle_stop_s=idle_stop_s,
            boot_timeout_s=boot_timeout_s,
        )

    return make


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def warm(state: Path, request: pytest.FixtureRequest) -> Warm:
    def start(launch: Launch) -> WarmEngine:
        request.addfinalizer(lambda: stop_warm(engine_folder(state, launch)))
        return ensure_warm(launch, state=state, on_event=lambda event: None)

    return start


def supervisor_of(engine: WarmEngine) -> int:
    return int(json.loads((engine.folder / "engine.json").read_text())["supervisor"]["pid"])


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 15) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_port_that_somebody_took_is_survived(make_launch: Make, warm: Warm) -> None:
    engine = warm(make_launch(fault=ONCE + TAKEN))
    assert engine.process.is_alive()
    assert "address already in use" in (engine.folder / "log.previous.txt").read_text()
    assert "already in use" not in (engine.folder / "log.txt").read_text()


def test_a_port_that_is_always_taken_is_the_reason(make_launch: Make, warm: Warm) -> None:
    with pytest.raises(
        EngineDiedError, match=r"exit code 1 while starting: OSError: .*address already in use;"
    ) as died:
        warm(make_launch(fault=TAKEN))
    assert died.value.hint == "run the command again; the whole log: comfymodal engine logs"


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ("import comfy_nowhere", "exit code 1 while starting: ModuleNotFoundError: No module named", "package is miss"),
        ("sys.exit(3)", "exit code 3 while starting; its log ends with:\nstarting with", "the whole log"),
        ("os.kill(os.getpid(), 9)", "signal 9 (out of memory?", "the whole log"),
        ("import time; time.sleep(60)", "did not answer within 2 s (comfyui.boot_timeout)", "the whole log"),
    ],
    ids=["exception", "exit code", "killed", "hangs"],
)
def test_a_start_that_fails_says_why(make_launch: Make, warm: Warm, fault: str, message: str, hint: str) -> None:
    with pytest.raises(EngineDiedError) as died:
        warm(make_launch(fault=fault, boot_timeout_s=2))
    assert message in died.value.message
    assert hint in (died.value.hint or "")


def test_a_python_that_is_gone_is_the_reason(make_launch: Make, warm: Warm, tmp_path: Path) -> None:
    launch = Launch.from_dict({**make_launch().to_dict(), "argv": [str(tmp_path / "gone"), "main.py"]})
    with pytest.raises(EngineDiedError, match="FileNotFoundError") as died:
        warm(launch)
    assert "engine status" in (died.value.hint or "")


def test_a_state_folder_that_vanishes_ends_the_engine(make_launch: Make, warm: Warm, state: Path) -> None:
    engine = warm(make_launch())
    supervisor = supervisor_of(engine)
    shutil.rmtree(state)
    wait_until(lambda: is_gone(engine.process.pid) and is_gone(supervisor))


def test_a_state_folder_that_vanishes_during_the_start_ends_it(make_launch: Make, state: Path, tmp_path: Path) -> None:
    launch = make_launch(
        fault="open('pid', 'w').write(str(os.getpid())); import shutil, time\n"
        f"shutil.rmtree({str(state)!r}); time.sleep(1)"
    )
    with pytest.raises(EngineDiedError, match="it wrote no log"):
        ensure_warm(launch, state=state, on_event=lambda event: None)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_supervisor_that_was_killed_is_replaced_and_the_idle_stop_still_works(
    make_launch: Make, warm: Warm, state: Path
) -> None:
    launch = make_launch(idle_stop_s=3)
    first = warm(launch)
    killed = supervisor_of(first)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: is_gone(killed))
    (orphan,) = list_running(state)
    second = warm(launch)
    assert orphan.supervisor is None
    assert second.process == first.process
    wait_until(lambda: supervisor_of(second) != killed)
    wait_until(lambda: is_gone(first.process.pid))
    assert list_running(state) == ()


def test_of_two_supervisors_the_first_leaves_and_the_engine_stays(make_launch: Make, warm: Warm) -> None:
    engine = warm(make_launch())
    first = supervisor_of(engine)
    note = json.loads((engine.folder / "engine.json").read_text())
    own = psutil.Process()
    note["supervisor"] = {"pid": own.pid, "created": own.create_time()}
    (engine.folder / "engine.json").write_text(json.dumps(note))
    wait_until(lambda: is_gone(first))
    assert engine.process.is_alive()
    # Leave nothing that a finalizer would wait for: this test is no supervisor.
    note["supervisor"] = None
    (engine.folder / "engine.json").write_text(json.dumps(note))


def test_a_busy_engine_is_not_idle(make_launch: Make, warm: Warm, state: Path) -> None:
    engine = warm(make_launch(queue=1, idle_stop_s=1))
    used_at = (engine.folder / "used").stat().st_mtime
    wait_until(lambda: (engine.folder / "used").stat().st_mtime > used_at)
    (running,) = list_running(state)
    assert engine.process.is_alive()
    assert running.idle_left_s(time.time()) == pytest.approx(1, abs=0.9)
    assert running.idle_left_s(time.time() + 100) == 0
