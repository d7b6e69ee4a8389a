"""Several engines side by side: which are whole, which one is chosen, how they are removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.engines import (
    choose_install,
    folder_bytes,
    list_installs,
    list_leftovers,
    pids_using,
    remove_folders,
    version_key,
)
from comfymodal.comfyui.find import EngineWish, find_engine
from comfymodal.errors import NotReadyError


def write_engine(engines: Path, version: str, **more: object) -> Path:
    root = engines / f"comfyui-{version}"
    (root / "ComfyUI").mkdir(parents=True)
    (root / "ComfyUI/main.py").touch()
    (root / "venv/bin").mkdir(parents=True)
    (root / "venv/bin/python").touch()
    description = {"comfyui_path": "ComfyUI", "python": "venv/bin/python", "device": "cpu", "shims": []}
    (root / "engine.json").write_text(json.dumps({"version": version, **description, **more}))
    return root


def test_engines_are_listed_newest_first(tmp_path: Path) -> None:
    for version in ("0.3.9", "0.3.75", "0.10.0", "0.3.75-rc1"):
        write_engine(tmp_path, version, source="git", size_bytes=7)
    found = list_installs(tmp_path)
    assert [install.version for install in found] == ["0.10.0", "0.3.75", "0.3.75-rc1", "0.3.9"]
    assert {(install.source, install.size_bytes) for install in found} == {("git", 7)}


@pytest.mark.parametrize(
    ("there", "named", "chosen"),
    [
        (("0.3.75", "0.9.0"), None, "0.3.75"),
        (("0.3.70", "0.9.0"), None, "0.9.0"),
        (("0.3.75", "0.9.0"), "0.9.0", "0.9.0"),
        (("0.3.75",), "0.9.0", None),
        ((), None, None),
    ],
)
def test_the_named_engine_else_the_embedded_else_the_newest(
    tmp_path: Path, there: tuple[str, ...], named: str | None, chosen: str | None
) -> None:
    for version in there:
        write_engine(tmp_path, version)
    found = choose_install(tmp_path, named)
    assert (found.version if found else None) == chosen


def test_what_is_no_engine_is_told_apart(tmp_path: Path) -> None:
    write_engine(tmp_path, "0.3.75")
    (write_engine(tmp_path, "0.3.76") / "venv/bin/python").unlink()
    (tmp_path / ".comfyui-0.3.77.partial").mkdir()
    (tmp_path / "comfyui-file").touch()
    found = {(left.version, left.kind, left.root.name) for left in list_leftovers(tmp_path)}
    assert found == {
        ("0.3.76", "damaged", "comfyui-0.3.76"),
        ("0.3.77", "unfinished", ".comfyui-0.3.77.partial"),
    }


def test_a_removal_takes_what_a_killed_one_left(tmp_path: Path) -> None:
    keep, doomed = write_engine(tmp_path, "0.3.75"), write_engine(tmp_path, "0.3.76")
    (tmp_path / ".comfyui-0.3.74.99.removed" / "venv").mkdir(parents=True)
    remove_folders([doomed], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [keep.name]


def test_the_size_counts_what_links_are_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert 1000 <= folder_bytes(tmp_path) < 1000 + 4096
    assert folder_bytes(tmp_path / "nowhere") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_process_on_an_engines_python_is_found(tmp_path: Path) -> None:
    python = write_engine(tmp_path, "0.3.75") / "venv/bin/python"
    python.unlink()
    python.symlink_to(sys.executable)
    with subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert pids_using(tmp_path / "comfyui-0.3.75") == [process.pid]
        assert pids_using(tmp_path / "comfyui-0.3.7") == []
        process.kill()


def test_versions_sort_as_numbers() -> None:
    assert sorted(["0.10.1", "0.3.75", "0.3.9", "1.0"], key=version_key) == ["0.3.9", "0.3.75", "0.10.1", "1.0"]


def wish(**more: object) -> EngineWish:
    given: dict[str, Any] = {
        **{"url": None, "path": None, "python": None, "arguments": (), "discover": False, "idle_stop_s": None},
        **{"boot_timeout_s": 1.0, "models": None, **more},
    }
    return EngineWish(**given)


def test_a_named_version_is_used_or_asked_for_and_nothing_else_in_its_place(tmp_path: Path) -> None:
    root = write_engine(tmp_path, "0.3.76", source="git")
    found = find_engine(wish(version="0.3.76", discover=True), engines=tmp_path, environ={})
    assert found is not None
    assert found.launch is not None
    assert (found.how, found.launch.cwd) == ("comfyui.version", str(root / "ComfyUI"))
    with pytest.raises(NotReadyError, match=r"0\.3\.77 .* is not installed; installed: 0\.3\.76") as refused:
        find_engine(wish(version="0.3.77"), engines=tmp_path, environ={})
    assert refused.value.hint == "comfymodal engine install --source git --version 0.3.77"
    assert find_engine(wish(version="0.3.75"), engines=tmp_path, environ={}) is None


def test_only_the_embedded_engine_goes_without_frontend_and_api_nodes(tmp_path: Path) -> None:
    write_engine(tmp_path, "0.3.76", source="git")
    newest = find_engine(wish(), engines=tmp_path, environ={})
    write_engine(tmp_path, "0.3.75")
    embedded = find_engine(wish(), engines=tmp_path, environ={})
    assert newest is not None
    assert newest.launch is not None
    assert embedded is not None
    assert embedded.launch is not None
    assert (newest.how, embedded.how) == ("installed", "embedded")
    assert "--disable-api-nodes" not in newest.launch.arguments
    assert {"--disable-api-nodes", "--front-end-root"} < set(embedded.launch.arguments)
