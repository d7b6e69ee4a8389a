"""Who is told of what, how often, and that a command ends as it would have ended without anybody to tell."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.budget import Limit
from comfymodal.errors import CancelledError, ComfymodalError
from comfymodal.operations.context import Context
from comfymodal.operations.doctor_notify import live_checks, notify_checks
from comfymodal.operations.examine import examine
from comfymodal.operations.news import telling
from comfymodal.operations.notify import notify_budget
from comfymodal.operations.runs import attach_run, list_runs
from comfymodal.operations.sync import SyncRequest, sync
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.sync_results import SyncReport
from comfymodal.operations.waiting import Waiting
from tests.doubles.slack import TOKEN, Slack, slack
from tests.unit.operations.sync_target import KEYS, OFFLINE, PAIRS, REMOTES, Clerk, SyncTarget, failed, outcome, path

COPIED = outcome(path("a", "new", 3_000, result="copied", verified=True))
REFUSED = failed(ComfymodalError("the bucket said no to xoxb-123456789012-abcdef", hint="ask its owner"))

NOTIFY = """
notify:
  team: {type: slack, token_env: SLACK_BOT_TOKEN, channel: renders}
  hook: {type: slack, url_env: SLACK_WEBHOOK_URL, on: [failed, budget]}
  pager: {type: webhook, url_env: PAGER_URL}
"""


@pytest.fixture
def double() -> Iterator[Slack]:
    with slack() as made:
        yield made


@pytest.fixture
def make(double: Slack, tmp_path: Path) -> Callable[..., Context]:
    """A project whose jobs end as given, with the three receivers."""

    def made(*endings: Any, text: str = NOTIFY, environ: dict[str, str] | None = None) -> Context:
        from comfymodal.operations.context import open_context

        secrets = {"SLACK_BOT_TOKEN": TOKEN, "SLACK_WEBHOOK_URL": double.hook, "PAGER_URL": double.plain}
        (tmp_path / "comfymodal.yaml").write_text(f"version: 1\nproject: cats\n{REMOTES}{PAIRS}{text}")
        home = {"HOME": str(tmp_path), "COMFYMODAL_STATE_DIR": str(tmp_path / "state"), "SLACK_API_URL": double.api}
        context = open_context(None, environ={**home, **KEYS, **secrets, **(environ or {})}, cwd=tmp_path)
        context.target = SyncTarget(list(endings))
        context.reopen = lambda flags: context
        return context

    return made


def run(context: Context, clerk: Clerk, waiting: Waiting | None = None, **wish: Any) -> SyncReport:
    request = SyncRequest(("models",), Wish(**wish), context.folder, waiting=waiting or Waiting())
    return sync(request, context, clerk)


def test_a_run_that_finished_is_told_to_those_who_want_it(double: Slack, make: Callable[..., Context]) -> None:
    clerk = Clerk()
    done = run(make(COPIED), clerk)
    assert done.run is not None
    assert (done.exit_code, clerk.warnings) == (0, [])
    assert double.texts == [f"comfymodal: sync sync models finished ({done.run.id})"]
    (document,) = double.documents
    assert (document["event"], document["project"], document["error"]) == ("finished", "cats", None)
    assert document["run"] | {"seconds": 0} == {
        "id": done.run.id,
        "kind": "sync",
        "status": "succeeded",
        "target": "local",
        "title": "sync models",
        "seconds": 0,
        "cost": None,
        "gpu": None,
    }
    assert document["summary"] == "copied 1 files, 3,000 bytes"


def test_a_run_that_failed_is_told_without_the_secrets_in_its_error(
    double: Slack, make: Callable[..., Context]
) -> None:
    done = run(make(REFUSED), Clerk())
    assert done.exit_code == 1
    assert sorted(double.texts) == [f"comfymodal: sync sync models failed ({done.run and done.run.id})"] * 2
    assert double.documents[0]["error"] == {
        "code": "failed",
        "message": "the bucket said no to ***",
        "hint": "ask its owner",
    }


def test_a_job_that_nobody_took_failed_too(double: Slack, make: Callable[..., Context]) -> None:
    done = run(make(OFFLINE), Clerk())
    assert done.exit_code == OFFLINE.exit_code
    assert [document["event"] for document in double.documents] == ["failed"]


@pytest.mark.parametrize(
    ("ending", "wish"),
    [
        pytest.param(outcome(status="cancelled"), {}, id="stopped by somebody"),
        pytest.param(outcome(path("a", "same")), {"mode": "status"}, id="only looked"),
    ],
)
def test_what_somebody_stopped_or_only_looked_at_is_no_news(
    double: Slack, make: Callable[..., Context], ending: Any, wish: dict[str, Any]
) -> None:
    run(make(ending), Clerk(), **wish)
    assert double.asked == []


def test_runs_that_were_too_short_are_not_told(double: Slack, make: Callable[..., Context]) -> None:
    run(make(COPIED, text=NOTIFY.replace("channel: renders", "channel: renders, min_seconds: 3600")), Clerk())
    assert double.messages == []
    assert len(double.documents) == 1


def test_a_detached_run_is_told_once_by_whoever_sees_its_end(double: Slack, make: Callable[..., Context]) -> None:
    context = make(COPIED)
    done = run(context, Clerk(), Waiting(is_detached=True))
    assert (done.exit_code, double.asked) == (0, [])
    list_runs(context, Clerk(), limit=5)
    list_runs(context, Clerk(), limit=5)
    assert done.run is not None
    attach_run(done.run.id, context, Clerk(), out=None, waiting=Waiting())
    assert len(double.documents) == 1


def test_two_who_settle_the_same_run_tell_it_once(double: Slack, make: Callable[..., Context]) -> None:
    context = make(COPIED)
    done = run(context, Clerk(), Waiting(is_detached=True))
    assert done.run is not None
    for _ in range(2):
        with telling(context, Clerk()):
            # As with two terminals: both saw it running.
            context.ledger.settle(done.run.id, status="succeeded", ended_at=time.time(), result={})
            context.news.add(done.run.id)
    assert len(double.documents) == 1


STATUSES: list[Any] = [(status, {"Retry-After": "0"}) for status in (301, 400, 404, 418, 429, 503)]
FAULTS: list[Any] = [*STATUSES, "cut", "page", "list", "broken", "redirect"]


@pytest.mark.parametrize(
    ("fault", "ending", "code"),
    [*[(fault, COPIED, 0) for fault in FAULTS], ((500, {"Retry-After": "0"}), REFUSED, 1), ("cut", REFUSED, 1)],
    ids=[*[f"good {fault}" for fault in FAULTS], "bad 500", "bad cut"],
)
def test_whatever_a_server_answers_the_run_ends_as_it_would(
    double: Slack, make: Callable[..., Context], fault: Any, ending: Any, code: int
) -> None:
    double.always = fault
    clerk = Clerk()
    context = make(ending)
    done = run(context, clerk)
    assert done.exit_code == code
    assert done.run is not None
    assert context.ledger.get(done.run.id).status == ("failed" if code else "succeeded")
    # A plain webhook that answers 200 has taken the message, whatever else it says.
    takes = 1 if fault in ("page", "list", "broken") else 0
    assert len(clerk.warnings) == (3 if code else 2) - takes
    assert not [word for word in clerk.warnings if "doubleSecret" in word or TOKEN in word]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PAGER_URL": ""}, "notify pager: not told: PAGER_URL is not set here (export PAGER_URL"),
        ({"PAGER_URL": "http://[::1"}, "notify pager: not told: PAGER_URL holds no address"),
        ({"PAGER_URL": "http://127.0.0.1:1/x"}, "notify pager: not told: no answer from 127.0.0.1"),
        ({"SLACK_BOT_TOKEN": "xoxb-foreign"}, "notify team: not told: Slack refuses it: invalid_auth"),
        ({"SLACK_API_URL": "no address"}, "notify team: not told: no answer from"),
    ],
)
def test_who_cannot_be_told_is_one_warning_and_the_others_are_told(
    double: Slack, make: Callable[..., Context], environ: dict[str, str], said: str
) -> None:
    clerk = Clerk()
    assert run(make(COPIED, environ=environ), clerk).exit_code == 0
    (warning,) = clerk.warnings
    assert warning.startswith(said)
    assert len(double.messages) + len(double.documents) == 1


def test_a_secret_may_stand_in_the_env_file(double: Slack, make: Callable[..., Context], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"PAGER_URL={double.plain}\n")
    clerk = Clerk()
    run(make(COPIED, environ={"PAGER_URL": ""}), clerk)
    assert (len(double.documents), clerk.warnings) == (1, [])


def test_many_runs_that_ended_unseen_wait_for_a_dead_server_once(double: Slack, make: Callable[..., Context]) -> None:
    double.always = "cut"
    context, clerk = make(*[COPIED] * 4), Clerk()
    for _ in range(4):
        run(context, Clerk(), Waiting(is_detached=True))
    list_runs(context, clerk, limit=9)
    assert len(clerk.warnings) == 2
    assert len(double.asked) == 2


def test_ctrl_c_ends_the_wait_and_the_command_goes_on(double: Slack, make: Callable[..., Context]) -> None:
    double.always = "hang"
    clerk = Clerk()

    def interrupt() -> None:
        # Not before the request is out, so that it is the wait that hears it.
        while not double.asked:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    thread = threading.Thread(target=interrupt)
    thread.start()
    done = run(make(COPIED), clerk)
    thread.join()
    assert done.exit_code == 0
    assert clerk.warnings == ["notify: interrupted; perhaps not everybody was told"]
    assert time.monotonic() - began < 3


def test_after_ctrl_c_nobody_is_told(double: Slack, make: Callable[..., Context]) -> None:
    context = make()
    context.news.add("some-run")
    with pytest.raises(CancelledError), telling(context, Clerk()):
        raise CancelledError("interrupted")
    assert double.asked == []


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_hangs_costs_five_seconds(double: Slack, make: Callable[..., Context], fault: str) -> None:
    double.always = fault
    clerk, began = Clerk(), time.monotonic()
    assert run(make(COPIED), clerk).exit_code == 0
    assert 4.5 < time.monotonic() - began < 8
    assert len(clerk.warnings) == 2


def test_a_part_of_a_budget_is_told(double: Slack, make: Callable[..., Context]) -> None:
    context, clerk = make(), Clerk()
    day = 1_795_219_200.0
    for percent in (80, 100):
        notify_budget(
            context, clerk, Limit("today for tag night", "costs.daily_usd", 5_000_000_000, day), 4_100_000_000, percent
        )
    assert clerk.warnings == []
    assert [document["budget"]["threshold"] for document in double.documents] == [0.8, 1.0]
    assert double.documents[0]["budget"] == {
        "name": "today for tag night",
        "spent": "4.1",
        "limit": "5",
        "threshold": 0.8,
        "since": "2026-11-21T00:00:00.000Z",
    }
    assert double.texts[0] == "comfymodal: project cats has spent 80% of its budget today for tag night"
    # The bot and the webhook of Slack.
    assert len(double.messages) == 4


def test_a_ledger_that_cannot_be_written_is_one_warning(
    double: Slack, make: Callable[..., Context], tmp_path: Path
) -> None:
    context, clerk = make(COPIED), Clerk()
    context.ledger.newest(limit=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "projects" / "cats" / "ledger.sqlite")) as other:
        other.execute("DROP TABLE notified")
    assert run(context, clerk).exit_code == 0
    assert len(clerk.warnings) == 1
    assert clerk.warnings[0].startswith("notify: nobody was told: cannot write to the ledger")
    assert double.asked == []


def test_doctor_says_who_can_be_told_and_tells_nobody(double: Slack, make: Callable[..., Context]) -> None:
    context = make(environ={"SLACK_BOT_TOKEN": ""})
    rows = [row for row, _ in examine(notify_checks(context.project, context.folder, context.environ))]
    assert [(row.check, row.status, row.what) for row in rows] == [
        ("notify team", "warn", "SLACK_BOT_TOKEN is not set here: nobody will be told"),
        ("notify hook", "ok", "SLACK_WEBHOOK_URL is set; on failed, budget"),
        ("notify pager", "ok", "PAGER_URL is set; on finished, failed, budget"),
    ]
    assert "slack-credentials" in str(rows[0].hint)
    assert double.asked == []


def test_doctor_live_sends_a_test(double: Slack, make: Callable[..., Context]) -> None:
    context = make(environ={"SLACK_BOT_TOKEN": "xoxb-foreign"})
    told = examine(live_checks(context.project, context.folder, context.environ))
    assert [(row.check, row.status, finding.exit_code) for row, finding in told] == [
        ("live: notify team", "fail", 4),
        ("live: notify hook", "ok", 0),
        ("live: notify pager", "ok", 0),
    ]
    assert double.texts == ["comfymodal: a test from project cats"]
    assert double.documents[0]["event"] == "test"
