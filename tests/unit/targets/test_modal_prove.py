"""What a container can tell about its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.targets.modal.prove import is_read_only


def test_a_folder_that_takes_a_file_is_not_read_only_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert is_read_only(tmp_path, "probe") is False
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_proves_nothing(tmp_path: Path) -> None:
    assert is_read_only(tmp_path / "missing", "probe") is False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that not even root may write to")
def test_a_folder_that_refuses_a_file_is_read_only() -> None:
    assert is_read_only(Path("/proc"), "probe") is True
