"""What tests use: start the double, ask it what happened, make faults."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.once import PYTHON_TAG, fill_environment, made_once

REPOSITORY = Path(__file__).parents[3]
READY_S = 30.0


@dataclass
class ModalCloud:
    environ: Mapping[str, str]
    """What a client needs in its environment."""
    folder: Path
    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        container_python: Path,
        image_env: Mapping[str, str] | None = None,
        hide: Iterable[Path] = (),
        buckets: Path | None = None,
        is_flat: bool = False,
    ) -> ModalCloud:
        """Start it as a process of its own, which ends with this one; returns when it is ready."""
        folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "tests.doubles.modal_cloud", "--until-eof", "--folder", str(folder)]
        argv += ["--container-python", str(container_python)]
        argv += [word for name, value in (image_env or {}).items() for word in ("--image-env", f"{name}={value}")]
        argv += [word for path in hide for word in ("--hide", str(path))]
        argv += ["--buckets", str(buckets)] if buckets else []
        argv += ["--flat"] if is_flat else []
        with (folder / "double.log").open("a") as log:
            process = subprocess.Popen(
                argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert process.stdout is not None
        environ = {}
        while (line := process.stdout.readline()).strip():
            name, _, value = line.strip().removeprefix("export ").partition("=")
            environ[name] = value
        assert environ, (folder / "double.log").read_text()
        return cls(environ, folder, process)

    @property
    def is_flat(self) -> bool:
        """Whether containers have no namespaces: asked for, or none to be had here."""
        return self.environ["MODAL_CLOUD_MODE"] == "flat"

    @property
    def log(self) -> str:
        """What the double itself complained about."""
        return (self.folder / "double.log").read_text()

    def requests(self, rpc: str | None = None) -> list[dict[str, Any]]:
        """What was asked so far, oldest first: `rpc`, `at` (Unix seconds), `caller`, `body`."""
        found = self._get("/requests" + (f"?{urlencode({'rpc': rpc})}" if rpc else ""))
        assert isinstance(found, list)
        return found

    def containers(self, state: str | None = "alive") -> list[dict[str, Any]]:
        """Containers in this state (starting, idle, busy, ended), all that have not ended, or (None) all."""
        found = self._get("/containers")
        if state == "alive":
            return [one for one in found if one["is_alive"]]
        return [one for one in found if state in (None, one["state"])]

    def wait_for_container(
        self, is_wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 20.0
    ) -> dict[str, Any]:
        """The first container, alive or ended, of which this is true; waits until there is one."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for found in self.containers(None):
                if is_wanted(found):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no such container in {timeout_s:g} s: {self.containers(None)}\n{self.log}")

    def do(self, action: str, **arguments: object) -> None:
        """Ask for one of the faults of `control.py`."""
        data = json.dumps({"do": action, **arguments}).encode()
        request = urllib.request.Request(
            f"{self.environ['MODAL_CLOUD_CONTROL']}/control", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    def kill_container(self, task_id: str) -> None:
        """SIGKILL everything in a container."""
        self.do("kill_container", task_id=task_id)

    def preempt(self, task_id: str, grace_s: float = 30.0) -> None:
        self.do("preempt", task_id=task_id, grace_s=grace_s)

    def go_away(self, seconds: float) -> None:
        """No client reaches the control plane for this long; containers do not notice."""
        self.do("go_away", seconds=seconds)

    def volume_folder(self, name: str) -> Path:
        """The committed state of a volume. To be read only while nothing commits."""
        return Path(self._get("/volumes")[name])

    def stop(self) -> None:
        """End it, and with it every container."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.environ["MODAL_CLOUD_CONTROL"] + path, timeout=30) as answer:
            return json.load(answer)


def container_python(cache: Path, packages: Sequence[str] = ()) -> Path:
    """The interpreter of an environment that has modal, what modal needs, and *packages*; made once in *cache*."""
    version = importlib.metadata.version("modal")
    names = "".join(f"-{package.replace('==', '-')}" for package in packages)
    name = f"modal-{version}{names}-{PYTHON_TAG}"
    folder = made_once(cache, name, lambda new: fill_environment(new, [f"modal=={version}", *packages]))
    return folder / "bin" / "python"
