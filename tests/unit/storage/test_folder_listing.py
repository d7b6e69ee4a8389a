"""A folder that cannot be read whole is no shorter one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import TransferError
from comfymodal.storage.rclone.find import Rclone
from comfymodal.storage.rclone.listing import find_files, list_files
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.values import Folder

SESSION = Session(Rclone(Path("rclone"), (1, 75, 2)), {}, {}, ())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_looked_at_does_not_count_as_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "b.bin").write_bytes(b"b")
    stat = os.stat

    def fail(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if os.fspath(path).endswith("b.bin"):
            raise OSError(code, os.strerror(code), path)
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(TransferError, match=r"cannot read .*b\.bin"):
        list_files(SESSION, Folder(tmp_path))
    assert set(find_files(SESSION, Folder(tmp_path), ["a.bin", "b.bin"])) == {"a.bin"}


def test_a_link_that_leads_nowhere_or_to_itself_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert set(list_files(SESSION, Folder(tmp_path))) == {"a.bin"}
