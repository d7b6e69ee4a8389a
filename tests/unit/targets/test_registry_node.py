"""A node of the Comfy registry, from a small registry on this machine."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfymodal.targets.modal import registry_node


class Registry:
    """Answers `/nodes/things/install` with `answer`, `/node.zip` with `archive`; the first `faults` times with 503."""

    def __init__(self) -> None:
        self.archive = zipped({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n", "sub/x.py": ""})
        self.faults = 0
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                code, body = registry.reply(self.path)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.answer: dict[str, Any] = {
            "version": "1.2.3",
            "status": "NodeVersionStatusActive",
            "downloadUrl": f"{self.url}/node.zip",
        }

    def reply(self, path: str) -> tuple[int, bytes]:
        if self.faults:
            self.faults -= 1
            return 503, b""
        if path == "/node.zip":
            return 200, self.archive
        if path.startswith("/nodes/things/install?"):
            return 200, json.dumps(self.answer).encode()
        return 404, b"{}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def zipped(files: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return held.getvalue()


def install(registry: Registry, folder: Path, *, node_id: str = "things") -> subprocess.CompletedProcess[str]:
    """As an image build runs it: one file, alone, with nothing but the standard library."""
    return subprocess.run(
        [sys.executable, "-I", "-S", registry_node.__file__, node_id, "1.2.3", str(folder)],
        env={"COMFY_REGISTRY_URL": registry.url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_node_lies_in_its_folder(registry: Registry, tmp_path: Path) -> None:
    done = install(registry, tmp_path / "custom_nodes" / "things")

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "custom_nodes" / "things" / "__init__.py").read_text() == "NODE_CLASS_MAPPINGS = {}\n"
    assert (tmp_path / "custom_nodes" / "things" / "sub" / "x.py").exists()
    assert registry.asked == ["/nodes/things/install?version=1.2.3", "/node.zip"]


def test_a_busy_registry_is_asked_again(registry: Registry, tmp_path: Path) -> None:
    registry.faults = 1

    assert install(registry, tmp_path / "things").returncode == 0


def test_an_id_that_is_not_there_is_not_asked_for_again(registry: Registry, tmp_path: Path) -> None:
    done = install(registry, tmp_path / "x", node_id="thongs")

    assert done.returncode == 1
    assert done.stderr == ("cannot install thongs@1.2.3 from the Comfy registry: it is not there (HTTP 404)\n")
    assert len(registry.asked) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": "1.2.4"}, "the registry answered with version 1.2.4"),
        (
            {"status": "NodeVersionStatusFlagged", "status_reason": "mines coins"},
            "the registry says NodeVersionStatusFlagged mines coins",
        ),
        ({"status": "NodeVersionStatusBanned"}, "the registry says NodeVersionStatusBanned"),
        ({"downloadUrl": ""}, "the registry names no download"),
    ],
)
def test_an_answer_that_will_not_do_fails_the_build(
    registry: Registry, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    registry.answer |= changed

    done = install(registry, tmp_path / "things")

    assert done.returncode == 1
    assert done.stderr == f"cannot install things@1.2.3 from the Comfy registry: {words}\n"
    assert not (tmp_path / "things").exists()


@pytest.mark.parametrize("archive", [b"not a zip", zipped({})], ids=["no zip", "empty"])
def test_an_archive_that_will_not_do_fails_the_build(registry: Registry, tmp_path: Path, archive: bytes) -> None:
    registry.archive = archive

    done = install(registry, tmp_path / "things")

    assert done.returncode == 1
    assert done.stderr.startswith("cannot install things@1.2.3 from the Comfy registry: ")


def test_an_archive_cannot_write_outside_its_folder(registry: Registry, tmp_path: Path) -> None:
    registry.archive = zipped({"../../evil.py": "x", "/evil.py": "x"})

    assert install(registry, tmp_path / "a" / "b").returncode == 0
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("evil.py")] == [Path("a/b/evil.py")]


def test_a_folder_that_is_there_is_not_written_over(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()

    assert install(registry, tmp_path / "things").returncode == 1
