from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.errors import NotFoundError, ProjectError, UsageError
from comfymodal.operations.ends import one_way_pairs, pair_of, parse_end, typed_pair
from comfymodal.project.load import load_project
from comfymodal.project.schema import Project
from comfymodal.storage.ends import FolderEnd, RemoteEnd, VolumeEnd
from comfymodal.storage.values import Remote

TEXT = """\
version: 1
remotes:
  store: {type: s3, bucket: abc, prefix: comfy, endpoint: "https://s3.us-west-004.backblazeb2.com", secret: mine}
  b2: {type: b2, bucket: abd}
sync:
  models: {from: "store:sdxl", to: "models:/", include: ["a*"], exclude: ["*.ckpt"]}
  both: {from: "b2:", to: "models:/", two_way: true}
  loras-up: {from: ./loras, to: "b2:loras"}
"""


def project(folder: Path, more: str = "") -> Project:
    path = folder / "comfymodal.yaml"
    path.write_text(TEXT + more)
    return load_project(path, environ={}, cwd=folder).settings


STORE = Remote("store", "s3", "abc", "comfy", "https://s3.us-west-004.backblazeb2.com")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("store:", RemoteEnd(STORE, "mine")),
        ("b2:/a/b/", RemoteEnd(Remote("b2", "b2", "abd", "a/b"), "b2-credentials")),
        ("b2:a:b", RemoteEnd(Remote("b2", "b2", "abd", "a:b"), "b2-credentials")),
        ("models:", VolumeEnd("models")),
        ("models:/", VolumeEnd("models")),
        ("datasets:/me/x/", VolumeEnd("datasets", "me/x")),
        ("training:-x", VolumeEnd("training", "-x")),
        ("/a/b:c", FolderEnd("/a/b:c")),
        ("x", FolderEnd("/base/x")),
        ("./models", FolderEnd("/base/models")),
        ("../x/.", FolderEnd("/x")),
    ],
)
def test_ends_that_are_typed_are_read(tmp_path: Path, text: str, end: object) -> None:
    assert parse_end(text, project(tmp_path), Path("/base")) == end


def test_a_remotes_own_folder_comes_first(tmp_path: Path) -> None:
    end = parse_end("store:/sdxl", project(tmp_path), tmp_path)
    assert isinstance(end, RemoteEnd)
    assert end.remote.prefix == "comfy/sdxl"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("stor:x", "stor:x: has no remote and no volume called stor", "did you mean `store:`? remotes: store, b2; "
         "volumes: models, inputs, outputs, datasets, training, cache"),
        ("b2", "b2: must say which place it is", "write b2:folder for the remote, or ./b2 for a folder here"),
        ("models:../x", "models:../x: must not climb out of its place with `..`", None),
        ("", "(empty): must name a place", "write REMOTE:folder, VOLUME:/folder or a folder of this machine "
         "(./folder)"),
        ("a\udcff", "a\\udcff: must be UTF-8 text without control characters", None),
        ("~nobody-here/x", "~nobody-here/x: nobody called nobody-here has a home folder here", None),
        ("C:\\x", "C:\\x: is a folder of Windows, and this machine runs something else", None),
    ],
)  # fmt: skip
def test_what_is_no_end_is_a_mistake_of_the_command_line(
    tmp_path: Path, text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_end(text, project(tmp_path), tmp_path)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_pair_that_is_typed_has_whole_paths(tmp_path: Path) -> None:
    pair = typed_pair("x", "b2:loras", project(tmp_path), tmp_path)
    assert (pair.name, pair.from_text, pair.to_text) == ("", str(tmp_path / "x"), "b2:loras")
    assert (pair.source, pair.is_two_way) == (FolderEnd(str(tmp_path / "x")), False)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("b2:", "store:", "this pair has two remotes (b2, store): one end must be a volume or a folder"),
        ("models:/", "models:", "this pair has the same place at both ends"),
        ("./a", "a/b", "this pair has one end inside the other: the target lies in its source"),
    ],
)
def test_two_ends_that_are_no_pair_are_refused(tmp_path: Path, source: str, target: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed_pair(source, target, project(tmp_path), tmp_path)
    assert caught.value.message == message


def test_links_and_volumes_of_this_machine_do_not_hide_that_two_places_are_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    here = project(tmp_path, "volumes: {models: {path: real}}\n")
    for source, target in (("link", "real"), ("link", "models:/"), ("real/x", "models:/x")):
        with pytest.raises(UsageError, match="the same place at both ends"):
            typed_pair(source, target, here, tmp_path)
    assert typed_pair("real/x", "models:/y", here, tmp_path)
    # On Modal the volume is somewhere else.
    there = project(tmp_path, "volumes: {models: {path: real}}\ntarget: modal\n")
    assert typed_pair("link", "models:/", there, tmp_path).target == VolumeEnd("models")


def test_a_pair_of_the_project_that_is_one_place_here_is_its_mistake(tmp_path: Path) -> None:
    here = project(tmp_path, "  same: {from: ./m, to: 'models:/'}\nvolumes: {models: {path: m}}\n")
    with pytest.raises(ProjectError) as caught:
        pair_of(here, "same")
    assert caught.value.message == "sync.same has the same place at both ends"


def test_pairs_of_the_project_are_found_by_name(tmp_path: Path) -> None:
    found = pair_of(project(tmp_path), "models")
    assert (found.name, found.from_text, found.to_text) == ("models", "store:sdxl", "models:/")
    assert (found.include, found.exclude, found.is_two_way) == (("a*",), ("*.ckpt",), False)
    assert found.target == VolumeEnd("models")
    assert pair_of(project(tmp_path), "both").is_two_way is True


def test_an_unknown_pair_has_near_names(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        pair_of(project(tmp_path), "loras_up")
    assert caught.value.message == "the project has no sync pair called loras_up"
    assert caught.value.hint == "did you mean loras-up? pairs: models, both, loras-up"
    assert caught.value.details["near"] == ["loras-up"]
    with pytest.raises(NotFoundError) as caught:
        pair_of(Project(version=1), "x")
    assert caught.value.hint == "write it under `sync` in comfymodal.yaml"


def test_all_one_way_pairs_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    pairs = one_way_pairs(project(tmp_path))
    assert [pair.name for pair in pairs] == ["models", "loras-up"]
    assert pairs[1].source == FolderEnd(str(tmp_path / "loras"))
