"""`sync` from its words to its report: what runs, in which order, what is asked, how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.rates import sync_rate
from comfymodal.errors import (
    BudgetError,
    CancelledError,
    ComfymodalError,
    ConflictError,
    NotFoundError,
    NotReadyError,
    PartialError,
    ProjectError,
    ServiceError,
    UsageError,
)
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Question
from comfymodal.operations.render import Again
from comfymodal.operations.runs import again_run, attach_run, list_runs, show_run
from comfymodal.operations.sync import SyncRequest, plan_push, push, sync
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.sync_results import SyncReport
from comfymodal.operations.waiting import Waiting
from tests.unit.operations.sync_target import (
    OFFLINE,
    REMOTES,
    Clerk,
    SyncTarget,
    context_of,
    failed,
    outcome,
    path,
)

IN_STEP = outcome(path("a", "same", result="same"))
COPIED = outcome(path("a", "new", 3_000, result="copied", verified=True), path("b", "same", result="same"))
STOPPED = outcome(
    path("a", "new", result="copied"), path("b", "new", result="failed"), status="cancelled", rclone_s=1.0
)


def run(
    target: SyncTarget, folder: Path, *words: str, clerk: Clerk | None = None, **more: Any
) -> tuple[SyncReport, Context]:
    context = context_of(target, folder)
    wish = Wish(**{key: more.pop(key) for key in list(more) if key in Wish.__slots__})
    return sync(SyncRequest(words, wish, folder, **more), context, clerk or Clerk()), context


def names(target: SyncTarget) -> list[str]:
    return [job["pair"]["name"] for job in target.jobs]


def modes(target: SyncTarget) -> list[str]:
    return [job["mode"] for job in target.jobs]


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        pytest.param((), ["models", "loras-up", "renders"], id="all one-way pairs"),
        pytest.param(("library",), ["library"], id="one by name"),
        pytest.param(("loras-up", "models", "models"), ["loras-up", "models"], id="two by name, each once"),
        pytest.param(("store:a", "models:/"), [""], id="two places"),
        pytest.param(("store:a", "copy/"), [""], id="a place and a folder"),
    ],
)
def test_words_are_pairs_or_two_places(words: tuple[str, ...], pairs: list[str], tmp_path: Path) -> None:
    target = SyncTarget([IN_STEP] * 3)
    done, _ = run(target, tmp_path, *words)
    assert names(target) == pairs
    assert (done.exit_code, [pair["is_in_step"] for pair in done.pairs]) == (0, [True] * len(pairs))


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        pytest.param(("store:a",), UsageError, "store:a is a place", id="one place"),
        pytest.param(("store:a", "models", "up"), UsageError, "store:a is a place", id="a place among names"),
        pytest.param(("modles",), NotFoundError, "no sync pair called modles", id="no such pair"),
        pytest.param(("stoer:a", "models:/"), UsageError, "stoer", id="no such remote"),
        pytest.param(("store:a", "b2:a"), UsageError, "two remotes", id="two remotes"),
    ],
)
def test_words_that_are_neither_are_refused(
    words: tuple[str, ...], kind: type[ComfymodalError], said: str, tmp_path: Path
) -> None:
    target = SyncTarget()
    with pytest.raises(kind, match=said):
        run(target, tmp_path, *words)
    assert target.jobs == []


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        pytest.param("", "REMOTE:folder", id="none"),
        pytest.param('sync: {both: {from: "store:x", to: "models:/", two_way: true}}', "sync both", id="two-way only"),
    ],
)
def test_a_project_without_one_way_pairs_is_told_how_to_go_on(pairs: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        sync(SyncRequest(), context_of(SyncTarget(), tmp_path, REMOTES + pairs), Clerk())
    assert words in str(caught.value.hint)


def test_what_was_copied_is_told_and_kept(tmp_path: Path) -> None:
    done, context = run(SyncTarget([COPIED]), tmp_path, "models")
    (pair,) = done.pairs
    assert (pair["copied_files"], pair["copied_bytes"], pair["bytes_per_s"], pair["is_in_step"]) == (
        1,
        3000,
        1500,
        True,
    )
    assert [(found["path"], found["result"], found["verified"]) for found in done.paths] == [
        ("a", "copied", True),
        ("b", "same", None),
    ]
    assert done.run is not None
    assert done.run == pair["run"]
    assert (done.run.kind, done.run.title, done.run.status) == ("sync", "sync models", "succeeded")
    # The ledger has what somebody may ask for: not what was in step.
    shown = show_run("last", context, Clerk())
    assert isinstance(shown, SyncReport)
    assert [found["path"] for found in shown.paths] == ["a"]
    assert shown.pairs[0]["counts"] == {"new": 1, "same": 1}


@pytest.mark.parametrize(
    ("endings", "code", "worst"),
    [
        pytest.param([IN_STEP, COPIED, IN_STEP], 0, None, id="all well"),
        pytest.param([failed(OFFLINE), COPIED, IN_STEP], 5, "service_failed", id="the first failed"),
        pytest.param([OFFLINE, COPIED, IN_STEP], 5, "service_failed", id="the first was not even taken"),
        pytest.param(
            [failed(ConflictError("c"), "partial"), failed(NotReadyError("no key")), IN_STEP], 4, "not_ready", id="two"
        ),
        pytest.param([IN_STEP, failed(PartialError("some"), "partial"), IN_STEP], 6, "partial", id="partial"),
    ],
)
def test_one_pair_that_fails_does_not_keep_the_others_from_it(
    endings: Sequence[Mapping[str, Any] | ComfymodalError], code: int, worst: str | None, tmp_path: Path
) -> None:
    target = SyncTarget(list(endings))
    done, context = run(target, tmp_path)
    assert names(target) == ["models", "loras-up", "renders"]
    assert (done.exit_code, (done.error or {}).get("code"), done.run) == (code, worst, None)
    assert [pair["name"] for pair in done.pairs] == names(target)
    assert not any(run.is_active for run in context.ledger.newest(limit=9))


def test_one_that_was_stopped_ends_them_all(tmp_path: Path) -> None:
    target, clerk = SyncTarget([IN_STEP, STOPPED, IN_STEP]), Clerk()
    done, _ = run(target, tmp_path, clerk=clerk)
    assert names(target) == ["models", "loras-up"]
    assert clerk.warnings == ["not begun: renders"]
    assert done.exit_code == CancelledError.exit_code
    assert done.error is not None
    assert done.error["message"] == "the sync was stopped; 1 of 2 files were copied"
    assert done.error["hint"] == "run it again, it goes on: comfymodal sync loras-up"


def test_nothing_starts_when_one_of_several_could_not(tmp_path: Path) -> None:
    target = SyncTarget([IN_STEP] * 3)
    context = context_of(target, tmp_path)
    context.environ = {key: value for key, value in context.environ.items() if not key.startswith("AWS")}
    with pytest.raises(NotReadyError, match="no keys for the remote store"):
        sync(SyncRequest(), context, Clerk())
    assert target.jobs == []


@pytest.mark.parametrize(
    ("mode", "paths", "code"),
    [
        pytest.param("status", [path("a", "same")], 0, id="in step"),
        pytest.param("status", [path("a", "new")], 6, id="not in step"),
        pytest.param("plan", [path("a", "new"), path("b", "same")], 0, id="a plan"),
        pytest.param("plan", [path("a", "conflict")], 6, id="a plan with a conflict"),
        pytest.param("plan", [path("../a", "refused")], 6, id="a plan with a name that is refused"),
    ],
)
def test_looking_has_an_answer_by_its_exit_code(
    mode: str, paths: list[dict[str, Any]], code: int, tmp_path: Path
) -> None:
    target = SyncTarget([outcome(*paths)])
    done, _ = run(target, tmp_path, "models", mode=mode)
    assert (modes(target), done.exit_code, done.error) == ([mode], code, None)
    results = {"same": "same", "conflict": "conflict"}
    assert [found["result"] for found in done.paths] == [results.get(each["action"]) for each in paths]


DOOMED = [path("old", "delete_here", 10**9), path("b", "same")]


def test_deletions_are_shown_and_only_those_agreed_to_are_done(tmp_path: Path) -> None:
    target, clerk = SyncTarget([outcome(*DOOMED), COPIED]), Clerk()
    done, _ = run(target, tmp_path, "models", delete=True, clerk=clerk)
    (question,) = clerk.questions
    assert isinstance(question, Question)
    assert (question.details, question.ask) == (("models:/: old",), "Delete it?")
    assert "models: 1 file (1.0 GB) to delete, into the trash of its place" in question.summary
    assert modes(target) == ["plan", "run"]
    assert target.jobs[1]["approved"] == {"here": ["old"], "there": [], "force": False}
    assert done.exit_code == 0


def test_a_no_to_deletions_copies_nothing_either(tmp_path: Path) -> None:
    target = SyncTarget([outcome(*DOOMED)])
    done, _ = run(target, tmp_path, "models", delete=True, clerk=Clerk(answer=False))
    assert (modes(target), done.exit_code) == (["plan"], 4)
    assert (done.error or {})["message"] == "nothing was deleted, nothing was copied"


def test_without_anything_to_delete_nobody_is_asked(tmp_path: Path) -> None:
    target, clerk = SyncTarget([COPIED, COPIED]), Clerk()
    run(target, tmp_path, "models", delete=True, clerk=clerk)
    assert clerk.questions == []
    assert target.jobs[1]["approved"] == {"here": [], "there": [], "force": False}


def test_a_plan_that_failed_is_the_end(tmp_path: Path) -> None:
    target = SyncTarget([failed(OFFLINE)])
    done, _ = run(target, tmp_path, "models", delete=True)
    assert (modes(target), done.exit_code) == (["plan"], 5)


def test_many_deletions_need_a_person(tmp_path: Path) -> None:
    many = outcome(*[path(f"f{number}", "delete_there") for number in range(3)])
    clerk = Clerk()
    target = SyncTarget([many, COPIED])
    run(target, tmp_path, "models", delete=True, clerk=clerk)
    assert target.jobs[1]["approved"]["force"] is True
    assert "that is 3 of 10 files there" in clerk.questions[0].summary

    target = SyncTarget([many])
    refused, _ = run(target, tmp_path, "models", delete=True, may_force=False)
    assert (modes(target), refused.exit_code, (refused.error or {})["code"]) == (["plan"], 3, "sync_refused")


def test_a_dry_run_says_how_long_and_how_much(tmp_path: Path) -> None:
    target = SyncTarget([COPIED, outcome(path("a", "new", 30_000_000))])
    context = context_of(target, tmp_path)
    sync(SyncRequest(("models",)), context, Clerk())
    done = sync(SyncRequest(("models",), Wish(mode="plan")), context, Clerk())
    (pair,) = done.pairs
    # 1,500 bytes per second was the one before.
    assert pair["eta_s"] == 20_000
    assert pair["cost"] is not None
    assert pair["cost"]["remote_kind"] == "s3"
    assert "30.0 MB down" in pair["cost"]["lines"][0]


def test_a_detached_sync_is_not_waited_for(tmp_path: Path) -> None:
    target = SyncTarget([COPIED])
    done, context = run(target, tmp_path, "models", waiting=Waiting(is_detached=True))
    assert (done.exit_code, done.pairs[0]["status"], done.pairs[0]["is_in_step"]) == (0, "running", None)
    assert done.run is not None
    attached = attach_run(done.run.id, context, Clerk(), out=None, waiting=Waiting())
    assert (attached.exit_code, attached.error) == (0, None)

    with pytest.raises(UsageError, match="--detach goes with one pair"):
        run(SyncTarget(), tmp_path, waiting=Waiting(is_detached=True))


def test_on_modal_its_price_is_told_and_its_cost_noted(tmp_path: Path) -> None:
    container = {"id": "ta-1", "started_at": 100.0, "ended_at": 160.0, "enter_s": 0.0, "is_first": True}
    target, clerk = SyncTarget([{**COPIED, "container": container}], name="modal"), Clerk()
    done, context = run(target, tmp_path, "models", clerk=clerk)
    (price,) = clerk.of_type("price")
    assert (price["gpu"], price["typical"], price["deadline_s"]) == ("2 cores, 4 GiB", None, 86_370.0)
    assert target.jobs[0]["deadline_s"] == 86_370.0
    assert done.run is not None
    (row,) = context.ledger.newest(limit=1)
    assert row.cost_nanodollars == sync_rate().cost(60)
    assert context.ledger.reserved() == 0


def test_a_budget_shortens_a_sync_on_modal(tmp_path: Path) -> None:
    target = SyncTarget([COPIED], name="modal")
    text = REMOTES + 'sync: {models: {from: "store:x", to: "models:/"}}\ncosts: {per_run_usd: %s}\n'
    context = context_of(target, tmp_path, text % "0.10")
    sync(SyncRequest(("models",)), context, Clerk())
    # 2,850 s, less 60 for its start and 20 for its idle end.
    assert target.jobs[0]["deadline_s"] == 2_770.0
    assert target.jobs[0]["is_budget_deadline"] is True

    context = context_of(SyncTarget(name="modal"), tmp_path, text % "0.001")
    done = sync(SyncRequest(("models",)), context, Clerk())
    assert (done.exit_code, (done.error or {})["code"]) == (BudgetError.exit_code, BudgetError.code)


def test_a_run_that_was_lost_says_how_to_go_on(tmp_path: Path) -> None:
    target = SyncTarget([COPIED])
    done, context = run(target, tmp_path, "models", waiting=Waiting(is_detached=True))
    assert done.run is not None
    # As after a kill: nobody has it any more, and nothing was left.
    context.ledger.note_call(done.run.id, "")
    lost = show_run(done.run.id, context, Clerk())
    assert (lost.exit_code, (lost.error or {})["code"]) == (6, "transfer_failed")
    assert (lost.error or {})["hint"].endswith(f"comfymodal runs again {done.run.id}")
    assert [found.status for found in list_runs(context, Clerk(), limit=5).runs] == ["partial"]


def test_a_sync_is_attached_to_from_another_machine(tmp_path: Path) -> None:
    target = SyncTarget([COPIED], name="modal")
    done, _ = run(target, tmp_path, "models", waiting=Waiting(is_detached=True))
    assert done.run is not None
    (elsewhere := tmp_path / "elsewhere").mkdir()
    other = context_of(target, elsewhere)
    attached = attach_run(done.run.id, other, Clerk(), out=None, waiting=Waiting())
    assert isinstance(attached, SyncReport)
    assert (attached.exit_code, attached.pairs[0]["copied_files"]) == (0, 1)
    assert [found.title for found in list_runs(other, Clerk(), limit=5).runs] == ["sync models"]


def test_the_same_sync_again(tmp_path: Path) -> None:
    target = SyncTarget([failed(OFFLINE), COPIED])
    first, context = run(target, tmp_path, "models", exclude=("x",))
    assert first.run is not None
    again = again_run(first.run.id, context, Clerk(), Again())
    assert (again.exit_code, names(target)) == (0, ["models", "models"])
    assert target.jobs[1]["rules"] == target.jobs[0]["rules"]
    with pytest.raises(UsageError, match="no GPU"):
        again_run(first.run.id, context, Clerk(), Again(gpu="L4"))


def test_a_push_takes_the_folder_of_its_run_and_nothing_else(tmp_path: Path) -> None:
    target = SyncTarget([COPIED])
    context = context_of(target, tmp_path)
    pair = plan_push("renders", "outputs", "runs", context, Clerk())
    done = push(pair, "run-1", context, Clerk())
    assert done.exit_code == 0
    assert target.jobs[0]["rules"]["include"] == ["/runs/run-1/**"]
    assert (target.jobs[0]["direction"], target.jobs[0]["here"]["role"]) == ("push", "outputs")


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        pytest.param('{from: "models:/", to: "store:x"}', "takes one from outputs:/", id="another volume"),
        pytest.param('{from: "outputs:/other", to: "store:x"}', "takes one from outputs:/", id="another folder"),
        pytest.param('{from: "store:x", to: "outputs:/"}', "takes one from outputs:/", id="the other way round"),
        pytest.param('{from: "outputs:/", to: "inputs:/"}', "to a remote or a folder", id="to a volume"),
    ],
)
def test_a_push_needs_a_pair_that_begins_where_runs_lie(pair: str, words: str, tmp_path: Path) -> None:
    context = context_of(SyncTarget(), tmp_path, f"{REMOTES}sync: {{up: {pair}}}\n")
    with pytest.raises(UsageError, match=words):
        plan_push("up", "outputs", "runs", context, Clerk())


def test_a_push_that_fails_raises_nothing(tmp_path: Path) -> None:
    context = context_of(SyncTarget([ServiceError("nobody answers")]), tmp_path)
    done = push(plan_push("renders", "outputs", "runs", context, Clerk()), "run-1", context, Clerk())
    assert (done.exit_code, done.pairs[0]["status"]) == (5, "failed")
