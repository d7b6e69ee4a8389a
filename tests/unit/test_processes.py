from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.processes import ProcessIdentity, spawn_module

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def identity_of(child: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = ProcessIdentity.of(child.pid)
    assert found is not None
    return found


def test_a_living_process_is_alive_and_survives_its_file(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    assert identity.is_alive()
    assert ProcessIdentity.from_dict(json.loads(json.dumps(identity.to_dict()))) == identity


def test_an_ended_process_is_not_alive_even_before_its_parent_noticed(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    os.kill(sleeper.pid, signal.SIGKILL)
    give_up_at = time.monotonic() + 10
    while identity.is_alive() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    # Nobody has waited for it: it is a zombie now.
    assert not identity.is_alive()
    assert ProcessIdentity.of(sleeper.pid) is None


def test_another_process_with_the_same_id_is_not_the_same(sleeper: subprocess.Popen[bytes]) -> None:
    older = ProcessIdentity(sleeper.pid, identity_of(sleeper).created - 60)
    assert not older.is_alive()
    older.terminate(patience_s=5)
    assert sleeper.poll() is None


def test_a_process_that_listens_ends_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    identity_of(sleeper).terminate(patience_s=10)
    assert ProcessIdentity.of(sleeper.pid) is None
    assert time.monotonic() - began < 5


def test_a_process_that_does_not_listen_is_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity_of(child).terminate(patience_s=0.2)
        assert ProcessIdentity.of(child.pid) is None


@pytest.mark.parametrize("pid", [2**22 + 1, 2**31 - 1, 2**40, 2**70, -1, -(2**70)])
def test_an_id_that_is_no_process_is_none(pid: int) -> None:
    assert ProcessIdentity.of(pid) is None
    identity = ProcessIdentity(pid, 1.0)
    assert not identity.is_alive()
    identity.terminate(patience_s=0.1)


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"pid": 1}, {"pid": "1", "created": 1.0}, {"pid": 1, "created": "x"}, {"pid": None}],
)
def test_a_damaged_note_names_no_process(data: Any) -> None:
    assert ProcessIdentity.from_dict(data) is None


def test_a_spawned_module_has_a_session_and_a_log_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies in the operator's folder must not take part.
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log.txt"
    child = spawn_module("json.tool", ["--help"], log=log)
    assert child.wait(30) == 0
    assert "usage" in log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are a matter of POSIX")
def test_a_spawned_module_does_not_hear_the_terminals_signals(tmp_path: Path) -> None:
    child = spawn_module("http.server", ["0", "--bind", "127.0.0.1"], log=tmp_path / "log.txt")
    try:
        assert os.getsid(child.pid) != os.getsid(0)
        assert os.getpgid(child.pid) == child.pid
    finally:
        child.kill()
        child.wait()
