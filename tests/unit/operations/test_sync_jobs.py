"""A pair as a job: where it runs, which end is here, what is looked at before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ComfymodalError, NotFoundError, NotReadyError, UsageError
from comfymodal.operations.ends import pair_of, typed_pair
from comfymodal.operations.sync_jobs import Draft, Wish, check, draft_again, draft_of, place_words, surroundings
from comfymodal.targets.base import Setup
from tests.unit.operations.sync_target import KEYS, Clerk, SyncTarget, context_of, project_context


def typed(folder: Path, source: str, goal: str, *, target: str, wish: Wish | None = None) -> Draft:
    context = project_context(folder, target=target)
    return draft_of(typed_pair(source, goal, context.project, folder), wish or Wish(), context)


@pytest.mark.parametrize(
    ("project_target", "ends", "target", "kinds", "mounts"),
    [
        pytest.param("local", ("store:x", "models:/"), "local", ("volume", "remote"), ["models"], id="a pull, here"),
        pytest.param("modal", ("store:x", "models:/"), "modal", ("volume", "remote"), ["models"], id="a pull, there"),
        pytest.param("modal", ("inputs:/a", "b2:y"), "modal", ("volume", "remote"), ["inputs"], id="a push"),
        pytest.param(
            "modal", ("models:/a", "datasets:/b"), "modal", ("volume", "volume"), ["datasets", "models"], id="volumes"
        ),
        pytest.param("modal", ("store:x", "./here"), "local", ("folder", "remote"), [], id="a bucket and a folder"),
        pytest.param("modal", ("./here", "models:/x"), "local", ("folder", "api"), [], id="a folder to a volume"),
        pytest.param("modal", ("models:/x", "./here"), "local", ("folder", "api"), [], id="a volume to a folder"),
        pytest.param("local", ("./here", "models:/x"), "local", ("volume", "folder"), ["models"], id="two folders"),
    ],
)
def test_a_sync_runs_where_its_ends_are(
    project_target: str, ends: tuple[str, str], target: str, kinds: tuple[str, str], mounts: list[str], tmp_path: Path
) -> None:
    draft = typed(tmp_path, *ends, target=project_target)
    assert draft.target == target
    assert (draft.job["here"]["kind"], draft.job["there"]["kind"]) == kinds
    assert draft.job["mounts"] == mounts


def test_a_container_gets_the_secrets_of_its_remotes_only(tmp_path: Path) -> None:
    assert typed(tmp_path, "b2:x", "models:/", target="modal").job["secrets"] == ["my-b2"]
    assert typed(tmp_path, "models:/", "datasets:/", target="modal").job["secrets"] == []
    assert typed(tmp_path, "b2:x", "models:/", target="local").job["secrets"] == []


def test_a_volume_behind_the_api_carries_modals_names(tmp_path: Path) -> None:
    text = "modal: {environment: main}\nvolumes: {models: {name: my-models}}\n"
    context = project_context(tmp_path, text, target="modal")
    draft = draft_of(typed_pair("./here", "models:/x", context.project, tmp_path), Wish(), context)
    end = {"kind": "api", "role": "models", "name": "my-models", "environment": "main", "path": "x"}
    assert draft.job["there"] == end
    assert place_words(draft.there, "local", context) == "models:/x (volume my-models)"


def test_the_flags_meet_the_pairs_own_rules(tmp_path: Path) -> None:
    context = project_context(tmp_path)
    wish = Wish(include=("loras/**",), exclude=("*.tmp",), delete=True, prefer="here", bwlimit="1M", transfers=2)
    job = draft_of(pair_of(context.project, "models"), wish, context).job
    rules = {"delete": True, "prefer": "here", "allow_empty": False}
    assert job["rules"] == {**rules, "include": ["loras/**"], "exclude": ["*.ckpt", "*.tmp"]}
    assert job["limits"] == {"transfers": 2, "bwlimit": "1M"}
    assert job["pair"] == {"name": "models", "from": "store:comfy", "to": "models:/"}


@pytest.mark.parametrize(
    ("ends", "target", "exclude"),
    [
        pytest.param(("outputs:/", "store:x"), "local", ["/runs/??????-??????-*-????/**"], id="all outputs"),
        pytest.param(("outputs:/runs", "store:x"), "modal", ["/??????-??????-*-????/**"], id="all runs"),
        pytest.param(("outputs:/", "./here"), "modal", ["/runs/??????-??????-*-????/**"], id="behind the API"),
        pytest.param(("outputs:/other", "store:x"), "local", [], id="another folder"),
        pytest.param(("models:/", "store:x"), "local", [], id="another volume"),
    ],
)
def test_the_folders_of_syncs_themselves_stay_where_they_are(
    ends: tuple[str, str], target: str, exclude: list[str], tmp_path: Path
) -> None:
    assert typed(tmp_path, *ends, target=target).job["rules"]["exclude"] == exclude


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        typed(tmp_path, "store:x", "models:/", target="local", wish=Wish(include=("{a",)))


def test_a_run_of_it_again_asks_anew_what_may_be_deleted(tmp_path: Path) -> None:
    context = project_context(tmp_path)
    draft = draft_of(pair_of(context.project, "models"), Wish(delete=True), context)
    first = draft.approving({"here": ["a"], "there": [], "force": False}).run(context)
    once_more = draft_again(first).run(context)
    assert first.request["job"]["approved"] == {"here": ["a"], "there": [], "force": False}
    assert once_more.request["job"]["approved"] is None
    assert (once_more.again_of, once_more.title, once_more.id != first.id) == (first.id, "sync models", True)
    for key in ("here", "there", "rules", "pair"):
        assert once_more.request["job"][key] == first.request["job"][key]


def test_what_is_shown_of_a_place_says_what_lies_behind_it(tmp_path: Path) -> None:
    context = project_context(tmp_path)
    draft = draft_of(pair_of(context.project, "loras-up"), Wish(), context)
    folder = tmp_path / "state" / "volumes" / "comfy-models"
    assert place_words(draft.here, "local", context) == f"models:/loras (folder {folder})"
    assert place_words(draft.here, "modal", context) == "models:/loras (volume comfy-models)"
    assert place_words(draft.there, "local", context) == "b2:comfy/loras (bucket models)"


def test_keys_may_lie_in_the_env_file_and_nothing_else_of_it_gets_in(tmp_path: Path) -> None:
    context = project_context(tmp_path, keys={"AWS_ACCESS_KEY_ID": "from-outside"})
    (tmp_path / ".env").write_text(
        "AWS_ACCESS_KEY_ID=from-file\nAWS_SECRET_ACCESS_KEY=hidden\nPYTHONPATH=/elsewhere\nSTORE_KEY=\n"
    )
    draft = draft_of(pair_of(context.project, "models"), Wish(), context)
    found = surroundings(draft, context)
    environ: Any = found.target.environ  # type: ignore[attr-defined]
    assert {name: environ.get(name) for name in KEYS} == {
        "AWS_ACCESS_KEY_ID": "from-outside",
        "AWS_SECRET_ACCESS_KEY": "hidden",
    }
    assert "PYTHONPATH" not in environ
    assert "STORE_KEY" not in environ
    assert "AWS_SECRET_ACCESS_KEY" not in context.environ
    check(draft, found, Clerk())


def no_keys(folder: Path) -> tuple[str, str]:
    return "store:x", "models:/"


def no_folder(folder: Path) -> tuple[str, str]:
    return str(folder / "nowhere"), "models:/x"


def a_file(folder: Path) -> tuple[str, str]:
    (folder / "file").write_text("")
    return str(folder / "file"), "models:/x"


@pytest.mark.parametrize(
    ("ends", "more", "kind", "words"),
    [
        pytest.param(no_keys, {}, NotReadyError, "no keys for the remote store", id="no keys"),
        pytest.param(no_folder, {}, NotFoundError, "nowhere does not exist", id="no folder"),
        pytest.param(a_file, {}, NotFoundError, "file is no folder", id="a file"),
        pytest.param(
            no_folder, {"COMFYMODAL_RCLONE": "/nowhere/rclone"}, NotReadyError, "/nowhere/rclone", id="no rclone"
        ),
    ],
)
def test_what_can_be_known_is_known_before_anything_starts(
    ends: Any, more: dict[str, str], kind: type[ComfymodalError], words: str, tmp_path: Path
) -> None:
    context = project_context(tmp_path, keys=more)
    source, goal = ends(tmp_path)
    draft = draft_of(typed_pair(source, goal, context.project, tmp_path), Wish(), context)
    with pytest.raises(kind, match=words):
        check(draft, surroundings(draft, context), Clerk())


def test_a_folder_that_is_written_to_need_not_be_there(tmp_path: Path) -> None:
    context = project_context(tmp_path)
    draft = draft_of(typed_pair("store:x", "./new", context.project, tmp_path), Wish(), context)
    check(draft, surroundings(draft, context), Clerk())


def test_on_modal_the_app_that_moves_files_is_set_up_after_a_yes(tmp_path: Path) -> None:
    setup = Setup("not deployed", ("1 min",), "Deploy it?", "another time", "add --yes")
    target, clerk = SyncTarget(name="modal", setup=setup), Clerk()
    context = context_of(target, tmp_path)
    draft = draft_of(pair_of(context.project, "models"), Wish(), context)
    check(draft, context, clerk)
    assert (clerk.questions, target.set_up_kinds) == ([setup], ["sync"])

    target.setup = setup
    with pytest.raises(NotReadyError, match="nothing was set up"):
        check(draft, context, Clerk(answer=False))
