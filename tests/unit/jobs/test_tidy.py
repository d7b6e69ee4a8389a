"""The tidy job in a place made of folders, and in a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.jobs.tidy import run
from comfymodal.storage.ends import RemoteEnd, end_to_dict
from comfymodal.storage.trash import list_trash
from tests.doubles.serve_s3 import KEYS, serve_s3
from tests.doubles.storage_place import FolderPlace


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path, {})


def write(place: FolderPlace, *paths: str) -> None:
    for path in paths:
        file = place.volumes["models"] / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


def do(place: FolderPlace, action: str, *items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    job = {"version": 1, "kind": "tidy", "run_id": "r", "action": action, "role": "models", "items": list(items)}
    return run({**job, **more}, place)


def item(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(path), **more}


def files(place: FolderPlace) -> list[str]:
    root = place.volumes["models"]
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith(".comfymodal"))


def test_a_model_goes_to_the_trash_and_comes_back(place: FolderPlace) -> None:
    write(place, "loras/people/a.safetensors", "loras/b.safetensors")
    away = do(place, "trash", item("loras/people/a.safetensors"))

    assert (away["status"], away["error"]) == ("succeeded", None)
    assert (away["result"]["files"], away["result"]["size_bytes"]) == (1, 26)
    assert files(place) == ["loras/b.safetensors"]
    assert not (place.volumes["models"] / "loras/people").exists()
    assert (place.leased, place.commits) == (["models"], ["models"])
    (path,) = away["result"]["paths"]
    assert path["stamp"] == away["result"]["stamp"]

    back = do(place, "restore", item("loras/people/a.safetensors", stamp=path["stamp"]))
    assert (back["status"], [each["result"] for each in back["result"]["paths"]]) == ("succeeded", ["restored"])
    assert files(place) == ["loras/b.safetensors", "loras/people/a.safetensors"]


def test_a_file_that_is_no_longer_what_was_shown_is_left_alone(place: FolderPlace) -> None:
    write(place, "loras/a.safetensors", "loras/b.safetensors")
    done = do(place, "trash", {"path": "loras/a.safetensors", "size_bytes": 5}, item("loras/b.safetensors"))

    assert (done["status"], done["error"]["code"], done["result"]["files"]) == ("partial", "partial", 1)
    assert [each["result"] for each in done["result"]["paths"]] == ["failed", "trashed"]
    assert files(place) == ["loras/a.safetensors"]


def test_a_model_that_is_a_link_goes_to_the_trash_as_one(place: FolderPlace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "big.safetensors"
    elsewhere.write_text("weights")
    write(place, "loras/b.safetensors")
    (place.volumes["models"] / "loras/a.safetensors").symlink_to(elsewhere)
    done = do(place, "trash", {"path": "loras/a.safetensors", "size_bytes": 7})

    assert done["status"] == "succeeded", done["error"]
    assert elsewhere.read_text() == "weights"


def test_a_model_gets_another_name_and_never_that_of_another(place: FolderPlace) -> None:
    write(place, "unet/a.safetensors", "loras/b.safetensors")
    done = do(place, "move", item("unet/a.safetensors", to="diffusion_models/flux/a.safetensors"))
    refused = do(place, "move", item("loras/b.safetensors", to="diffusion_models/flux/a.safetensors"))

    assert done["status"] == "succeeded"
    assert (refused["status"], refused["error"]["code"]) == ("failed", "conflict")
    assert files(place) == ["diffusion_models/flux/a.safetensors", "loras/b.safetensors"]
    # ComfyUI's own folder stays.
    assert (place.volumes["models"] / "unet").is_dir()


@pytest.mark.parametrize("to", ["../a", "loras/../../a", "/etc/a"])
def test_nothing_leaves_the_volume(place: FolderPlace, to: str) -> None:
    write(place, "loras/a.safetensors")
    done = do(place, "move", item("loras/a.safetensors", to=to))

    assert (done["status"], done["error"]["code"]) == ("failed", "sync_refused")
    assert files(place) == ["loras/a.safetensors"]


def test_what_is_gone_is_an_error_and_its_place_taken_too(place: FolderPlace) -> None:
    write(place, "loras/a.safetensors")
    stamp = do(place, "trash", item("loras/a.safetensors"))["result"]["stamp"]
    write(place, "loras/a.safetensors")
    taken = do(place, "restore", item("loras/a.safetensors", stamp=stamp))
    gone = do(place, "trash", item("loras/z.safetensors"))

    assert taken["error"]["code"] == "conflict"
    assert gone["error"]["code"] == "not_found"
    assert len(list_trash(place.volumes["models"])) == 1


def test_the_trash_is_emptied_for_good(place: FolderPlace) -> None:
    write(place, "loras/a.safetensors", "loras/b.safetensors")
    stamp = do(place, "trash", item("loras/a.safetensors"), item("loras/b.safetensors"))["result"]["stamp"]
    done = do(place, "empty", item("loras/a.safetensors", stamp=stamp))

    assert done["result"]["paths"][0]["result"] == "deleted"
    assert [each.path for each in list_trash(place.volumes["models"])] == ["loras/b.safetensors"]


def test_a_stop_leaves_the_rest_as_it_was(place: FolderPlace) -> None:
    write(place, "loras/a.safetensors")
    place.word = "stop"
    done = do(place, "trash", item("loras/a.safetensors"))

    assert (done["status"], done["result"]["paths"][0]["result"]) == ("cancelled", "skipped")
    assert files(place) == ["loras/a.safetensors"]


def test_the_trash_of_a_bucket(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "s3") as served:
        trash = served.bucket / "lib/.comfymodal/trash/20260101T000000Z"
        (trash / "loras").mkdir(parents=True)
        for name in ("a", "b", "c"):
            (trash / f"loras/{name} ü.safetensors").write_text(name)
        place = FolderPlace(tmp_path / "place", {"STORE_KEY_ID": KEYS.key_id, "STORE_KEY": KEYS.key})
        remote = {"remote": end_to_dict(RemoteEnd(served.remote("lib")))}
        listed = do(place, "list", **remote)
        paths = listed["result"]["paths"]
        restored = do(place, "restore", paths[0], **remote)
        deleted = do(place, "empty", paths[1], {**paths[1], "path": "loras/gone.safetensors"}, **remote)
        left = do(place, "list", **remote)

    assert [(each["path"], each["stamp"], each["size_bytes"]) for each in paths] == [
        (f"loras/{name} ü.safetensors", "20260101T000000Z", 1) for name in ("a", "b", "c")
    ]
    assert (restored["status"], restored["error"]) == ("succeeded", None)
    assert (deleted["status"], deleted["error"]) == ("succeeded", None)
    assert [each["path"] for each in left["result"]["paths"]] == ["loras/c ü.safetensors"]
    assert place.leased == []


def test_wrong_keys_are_said(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "s3") as served:
        place = FolderPlace(tmp_path / "place", {"STORE_KEY_ID": "AKIDWRONGWRONG", "STORE_KEY": "wrong"})
        done = do(place, "list", remote=end_to_dict(RemoteEnd(served.remote("lib"))))
        keyless = do(FolderPlace(tmp_path / "place", {}), "list", remote=end_to_dict(RemoteEnd(served.remote())))

    assert (done["status"], done["error"]["code"]) == ("failed", "not_ready")
    assert keyless["error"]["code"] == "not_ready"
