from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from filelock import FileLock

from comfymodal.comfyui.engines import ENGINE_VERSION
from comfymodal.comfyui.find import COMFY_CLI, DEFAULT_URL, EngineWish, find_engine
from comfymodal.comfyui.server import answers, free_port
from comfymodal.errors import NotReadyError

COMFYUI = {"system": {"comfyui_version": "0.3.75"}}


def wish(**more: Any) -> EngineWish:
    given: dict[str, Any] = {
        **{"url": None, "path": None, "python": None, "arguments": ("--lowvram",), "discover": False},
        **{"idle_stop_s": 900.0, "boot_timeout_s": 600.0, "models": "/models"},
    }
    return EngineWish(**{**given, **more})


def serve(answer: Any, *, port: int = 0) -> ThreadingHTTPServer:
    """Answers GETs with JSON, as ComfyUI does `/system_stats`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def comfyui() -> Iterator[ThreadingHTTPServer]:
    server = serve(COMFYUI)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home with nothing of comfy-cli on the PATH."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return home


@pytest.fixture
def quiet_port() -> Iterator[None]:
    # The usual port is one for the whole machine: two test runs at once must not see each other's server.
    with FileLock(Path(tempfile.gettempdir()) / "comfymodal-test-port-8188.lock"):
        if answers(DEFAULT_URL, timeout_s=0.5):
            pytest.skip("a ComfyUI of somebody answers on this machine")
        yield


def installation(folder: Path, *, python: str | None = "venv", version: str = "0.3.99") -> Path:
    folder.mkdir(parents=True)
    for name in ("main.py", "nodes.py"):
        (folder / name).write_text("")
    (folder / "comfyui_version.py").write_text(f'# generated\n__version__ = "{version}"\n')
    if python:
        (folder / python / "bin").mkdir(parents=True)
        (folder / python / "bin" / "python").write_text("")
    return folder


def embedded(engines: Path) -> None:
    root = engines / f"comfyui-{ENGINE_VERSION}"
    (root / "app").mkdir(parents=True)
    (root / "app" / "main.py").write_text("")
    (root / "python").write_text("")
    note = {"version": ENGINE_VERSION, "comfyui_path": "app", "python": "python", "device": "cpu", "shims": []}
    (root / "engine.json").write_text(json.dumps(note))


def find(given: EngineWish, tmp_path: Path, **environ: str) -> Any:
    return find_engine(given, engines=tmp_path / "engines", environ=environ)


def test_nothing_named_and_nothing_there_is_none(tmp_path: Path, home: Path) -> None:
    assert find(wish(), tmp_path) is None


def test_a_named_server_is_used_and_nothing_is_started(tmp_path: Path, comfyui: ThreadingHTTPServer) -> None:
    found = find(wish(url=url_of(comfyui)), tmp_path)
    assert (found.how, found.url, found.launch) == ("comfyui.url", url_of(comfyui), None)


@pytest.mark.parametrize(
    "answer", [{}, [], {"system": None}, {"system": 5}, {"system": ["comfyui_version"]}, {"system": "comfyui_version"}]
)
def test_a_named_server_that_is_no_comfyui_is_refused(answer: Any, tmp_path: Path) -> None:
    server = serve(answer)
    embedded(tmp_path / "engines")
    with pytest.raises(NotReadyError) as caught:
        find(wish(url=url_of(server)), tmp_path)
    server.shutdown()
    server.server_close()
    assert url_of(server) in caught.value.message


def test_a_named_server_that_is_gone_is_not_replaced_by_another(tmp_path: Path) -> None:
    embedded(tmp_path / "engines")
    with pytest.raises(NotReadyError, match="no ComfyUI answers at"):
        find(wish(url=f"http://127.0.0.1:{free_port()}"), tmp_path)


@pytest.mark.parametrize("folder", ["venv", ".venv"])
def test_comfyui_path_is_started_with_the_python_beside_it(folder: str, tmp_path: Path) -> None:
    path = installation(tmp_path / "my ComfyUI", python=folder)
    found = find(wish(), tmp_path, COMFYUI_PATH=str(path))
    assert (found.how, found.url) == ("COMFYUI_PATH", None)
    assert found.launch.argv == (str(path / folder / "bin" / "python"), str(path / "main.py"))
    assert (found.launch.name, found.launch.cwd) == ("comfyui-0.3.99", str(path))
    assert (found.launch.arguments, found.launch.models) == (("--lowvram",), "/models")
    assert found.launch.probes_device is True


def test_a_device_that_is_chosen_is_not_probed_for(tmp_path: Path) -> None:
    path = installation(tmp_path / "comfy")
    assert find(wish(path=str(path), arguments=("--cpu",)), tmp_path).launch.probes_device is False


def test_the_project_goes_before_the_environment(tmp_path: Path) -> None:
    one, other = installation(tmp_path / "one"), installation(tmp_path / "other")
    found = find(wish(path=str(one)), tmp_path, COMFYUI_PATH=str(other))
    assert (found.how, found.launch.cwd) == ("comfyui.path", str(one))


@pytest.mark.parametrize("by", ["comfyui.python", "COMFYUI_PYTHON"])
def test_an_installation_without_a_venv_takes_the_named_python(by: str, tmp_path: Path) -> None:
    path = installation(tmp_path / "comfy", python=None)
    given = wish(path=str(path), python=sys.executable if by == "comfyui.python" else None)
    environ = {"COMFYUI_PYTHON": sys.executable} if by == "COMFYUI_PYTHON" else {}
    assert find(given, tmp_path, **environ).launch.argv[0] == sys.executable


@pytest.mark.parametrize(
    ("path", "python", "words"),
    [
        pytest.param("{there}", None, "cannot tell which Python", id="no venv"),
        pytest.param("{there}", "/no/python", "there is no Python at /no/python", id="no such Python"),
        pytest.param("{there}", "~nobody-here/python", "there is no Python at", id="Python of nobody"),
        pytest.param("{there}/main.py", None, "is not a ComfyUI folder", id="a file"),
        pytest.param("/no/such/folder", None, "is not a ComfyUI folder", id="no folder"),
        pytest.param("~nobody-here/comfy", None, "is not a ComfyUI folder", id="folder of nobody"),
        pytest.param("a\x00b", None, "is not a ComfyUI folder", id="NUL"),
    ],
)
def test_an_installation_that_cannot_be_started_is_refused(
    path: str, python: str | None, words: str, tmp_path: Path
) -> None:
    there = installation(tmp_path / "comfy", python=None)
    embedded(tmp_path / "engines")
    with pytest.raises(NotReadyError, match=words):
        find(wish(path=path.replace("{there}", str(there)), python=python), tmp_path)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"version = 3", b'__version__ = "'])
def test_a_version_that_cannot_be_read_is_unknown(text: bytes, tmp_path: Path) -> None:
    path = installation(tmp_path / "comfy")
    (path / "comfyui_version.py").write_bytes(text)
    assert find(wish(path=str(path)), tmp_path).launch.name == "comfyui-unknown"


def workspace_ini(home: Path, text: str) -> None:
    folder = home / ("Library/Application Support/comfy-cli" if sys.platform == "darwin" else ".config/comfy-cli")
    folder.mkdir(parents=True)
    (folder / "config.ini").write_bytes(text.encode("latin-1"))


@pytest.mark.usefixtures("quiet_port")
@pytest.mark.parametrize("key", ["default_workspace", "recent_workspace"])
def test_comfy_clis_workspace_is_found(key: str, tmp_path: Path, home: Path) -> None:
    path = installation(tmp_path / "100% comfy")
    workspace_ini(home, f"[DEFAULT]\n{key} = {path}\n")
    embedded(tmp_path / "engines")
    found = find(wish(discover=True), tmp_path)
    assert (found.how, found.launch.cwd) == (COMFY_CLI, str(path))


@pytest.mark.usefixtures("quiet_port")
def test_comfy_clis_own_python_starts_a_workspace_without_a_venv(tmp_path: Path, home: Path) -> None:
    path = installation(tmp_path / "comfy", python=None)
    workspace_ini(home, f"[DEFAULT]\ndefault_workspace = {path}\n")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "comfy"
    script.write_text(f"#!{sys.executable}\nimport comfy_cli\n")
    script.chmod(0o755)
    assert find(wish(discover=True), tmp_path).launch.argv[0] == sys.executable


@pytest.mark.usefixtures("quiet_port")
@pytest.mark.parametrize(
    "ini",
    [
        pytest.param("", id="empty"),
        pytest.param("[DEFAULT]\n", id="no workspace"),
        pytest.param("[DEFAULT]\ndefault_workspace = /no/such\n", id="a workspace that is gone"),
        pytest.param("[DEFAULT]\ndefault_workspace =\n", id="an empty workspace"),
        pytest.param("no section = 1\n", id="no section"),
        pytest.param("[DEFAULT]\nx\n[DEFAULT\n", id="no INI"),
        pytest.param("[DEFAULT]\ndefault_workspace = /\xff\n", id="no UTF-8"),
        pytest.param("[DEFAULT]\ndefault_workspace = /a\x00b\n", id="NUL"),
    ],
)
def test_a_damaged_ini_of_comfy_cli_counts_as_none(ini: str, tmp_path: Path, home: Path) -> None:
    workspace_ini(home, ini)
    embedded(tmp_path / "engines")
    assert find(wish(discover=True), tmp_path).how == "embedded"


def test_without_discovery_nothing_is_looked_for(tmp_path: Path, home: Path) -> None:
    workspace_ini(home, f"[DEFAULT]\ndefault_workspace = {installation(tmp_path / 'comfy')}\n")
    embedded(tmp_path / "engines")
    found = find(wish(), tmp_path)
    assert found.how == "embedded"
    assert found.launch.name == f"comfyui-{ENGINE_VERSION}"
    assert {"--disable-all-custom-nodes", "--cpu"} <= set(found.launch.arguments)
    assert found.launch.arguments[-1] == "--lowvram"


@pytest.mark.usefixtures("quiet_port")
def test_a_server_on_the_usual_port_goes_before_a_workspace(tmp_path: Path, home: Path) -> None:
    try:
        server = serve(COMFYUI, port=8188)
    except OSError:
        pytest.skip("somebody listens on port 8188")
    path = installation(tmp_path / "comfy")
    workspace_ini(home, f"[DEFAULT]\ndefault_workspace = {path}\n")
    found = find(wish(discover=True), tmp_path)
    named = find(wish(discover=True, path=str(path)), tmp_path)
    server.shutdown()
    server.server_close()
    assert (found.url, found.launch) == (DEFAULT_URL, None)
    assert named.launch.cwd == str(path)
