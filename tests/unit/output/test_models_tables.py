from __future__ import annotations

from comfymodal.operations.models_results import (
    DiskUse,
    FolderUse,
    ModelInfo,
    ModelsTree,
    ModelsUnused,
    ModelView,
    Tidied,
    TrashListed,
    TrashRow,
)
from comfymodal.operations.results import RunView
from comfymodal.operations.sync_results import ErrandReport
from comfymodal.output.models_tables import models_table

GB = 10**9


def view(path: str, size: int = GB) -> ModelView:
    folder, _, name = path.partition("/")
    return ModelView(path, folder, name, size)


def rows(result: object) -> list[tuple[str, ...]]:
    found = models_table(result)
    assert found is not None
    return found[1]


def test_a_tree_has_each_folder_once_with_its_size() -> None:
    models = (view("loras/people/a.safetensors"), view("loras/people/b.safetensors"), view("vae/ae.safetensors"))
    assert rows(ModelsTree("volume comfy-models", models, 3 * GB)) == [
        ("loras/", "2.0 GB"),
        ("  people/", "2.0 GB"),
        ("    a.safetensors", "1.0 GB"),
        ("    b.safetensors", "1.0 GB"),
        ("vae/", "1.0 GB"),
        ("  ae.safetensors", "1.0 GB"),
        ("3 models in volume comfy-models", "3.0 GB"),
    ]


def test_what_takes_room_and_what_frees_it() -> None:
    folders = (FolderUse("loras", 2, 2 * GB, True), FolderUse("ipadapter", 1, GB, False), FolderUse("", 1, 5, False))
    assert rows(DiskUse("volume comfy-models", folders, 4, 3 * GB + 5, GB, 2 * GB)) == [
        ("loras", "2.0 GB", "2 files"),
        ("ipadapter", "1.0 GB", "1 file, of a custom node"),
        ("(no folder: ComfyUI does not look here)", "5 B", "1 file"),
        ("(half-written)", "1.0 GB", "the same models add goes on with it"),
        ("(trash)", "2.0 GB", "comfymodal trash empty"),
        ("all in volume comfy-models", "6.0 GB", "4 models"),
    ]


def test_unused_says_since_when_it_is_known() -> None:
    unused = ModelsUnused("volume x", (view("loras/a.safetensors"),), GB, "2026-10-02T00:00:00.000Z", 12)
    never = ModelsUnused("volume x", (), 0, None, 0)

    assert rows(unused)[-1] == (
        "1 model that no render has named since 2026-10-02 (12 renders on this machine)",
        "1.0 GB",
    )
    assert rows(never) == [("0 models that no render has named", "0 B")]


def info(**more: object) -> ModelInfo:
    known: dict[str, object] = {
        **{"path": "loras/a.safetensors", "place": "volume x", "size_bytes": 1200, "format": "safetensors"},
        **dict.fromkeys(("is_lora", "title", "base_model", "rank", "alpha", "steps", "resolution", "sha256"), None),
        **{"trigger_words": (), "tensors": None, "parameters": None, "dtypes": {}, "metadata": {}},
    }
    return ModelInfo(**{**known, **more})  # type: ignore[arg-type]


def test_a_lora_tells_all_it_knows_and_nothing_else() -> None:
    full = info(
        is_lora=True,
        base_model="sdxl",
        rank=16,
        alpha=8.0,
        trigger_words=("anna", "hat"),
        tensors=2,
        parameters=2_600_000,
        dtypes={"BF16": 2_600_000},
    )

    assert rows(full) == [
        ("file", "loras/a.safetensors"),
        ("in", "volume x"),
        ("size", "1.2 kB (1200 bytes)"),
        ("format", "safetensors"),
        ("base model", "sdxl"),
        ("LoRA", "rank 16, alpha 8"),
        ("trigger words", "anna, hat"),
        ("tensors", "2"),
        ("parameters", "2.60 million (BF16 100%)"),
    ]
    assert rows(info(format="pickle"))[-1] == ("format", "pickle (not looked into: opening one can run code)")


def test_what_was_done_and_what_would_be() -> None:
    moved = {"path": "unet/a", "to": "vae/a", "size_bytes": 5, "result": "moved"}
    failed = {"path": "b", "size_bytes": 5, "result": "failed", "error": {"message": "there is no b any more"}}

    assert rows(Tidied("move", "volume x", False, 1, 5, (moved,))) == [
        ("unet/a", "5 B", "moved to vae/a"),
        ("1 file in volume x", "5 B", ""),
    ]
    assert rows(Tidied("trash", "volume x", False, 0, 0, (failed,)))[0] == ("b", "5 B", "there is no b any more")
    assert rows(Tidied("empty", "volume x", True, 1, 5, ({**moved, "result": "would"},)))[0] == (
        "unet/a",
        "5 B",
        "would be deleted for good",
    )
    assert rows(Tidied("empty", "volume x", False, 0, 0, ())) == [("nothing in the trash of volume x", "0 B", "")]


def test_the_trash() -> None:
    row = TrashRow("models:/", "20261121T130300Z", "loras/a", 5, "2026-11-21T13:03:00.000Z")

    assert rows(TrashListed("volume x", (row,), 5)) == [
        ("loras/a", "5 B", "20261121T130300Z", "models:/"),
        ("1 file in the trash of volume x", "5 B"),
    ]


def test_a_download_says_whether_it_was_checked() -> None:
    run = RunView("r1", "download", "succeeded", "local", "add", "", None, None, {}, None)
    result = {
        **{"path": "loras/a", "size_bytes": 2 * GB, "sha256": "ab", "verified": True, "seconds": 4.0},
        **{"action": "downloaded", "resumed_from_bytes": GB},
    }

    assert rows(ErrandReport(run, result, None, 0)) == [
        ("loras/a", "2.0 GB", "downloaded in 4.0 s, 1.0 GB were there", "sha256 ab, checked")
    ]
    unchecked = {**result, "verified": False, "resumed_from_bytes": 0}
    assert rows(ErrandReport(run, unchecked, None, 0))[0][3].endswith("not checked: nothing told what it should be")
    assert (
        rows(ErrandReport(run, {**result, "action": "already_there"}, None, 0))[0][2] == "was there already, the same"
    )
    assert rows(ErrandReport(run, {}, {"code": "x"}, 5)) == [("run r1: succeeded",)]
