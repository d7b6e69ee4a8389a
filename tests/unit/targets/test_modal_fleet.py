from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from modal.types import LogEntry

from comfymodal.errors import ServiceError
from comfymodal.targets.modal.fleet import LiveApp, LiveContainer, apps_in, containers_in, run_from
from comfymodal.targets.modal.logs import LogLine, RunScope, lines_of, scope_from
from comfymodal.targets.modal.modal_cli import last_words, rows_in
from comfymodal.targets.modal.warm import Warmth, warmth_from

AT = datetime(2026, 11, 21, 13, 20, tzinfo=UTC)
T = AT.timestamp()


def test_containers_come_oldest_first_and_those_that_start_last() -> None:
    rows = [
        {"container_id": "ta-2", "app_id": "ap", "app_name": "a", "start_time": "Pending"},
        {"container_id": "ta-1", "app_id": "ap", "app_name": "a", "start_time": "2026-11-21 13:20:05+00:00"},
        {"container_id": "ta-0", "app_id": "ap", "app_name": "a", "start_time": "2026-11-21 15:20:00+02:00"},
    ]
    assert containers_in(rows) == [
        LiveContainer("ta-0", "a", T),
        LiveContainer("ta-1", "a", T + 5),
        LiveContainer("ta-2", "a", None),
    ]


def test_only_our_apps_that_may_bill_count() -> None:
    rows = [
        {"app_id": "1", "description": "comfymodal-a-render", "state": "deployed", "tasks": "2"},
        {"app_id": "2", "description": "comfymodal-b-render", "state": "stopped", "tasks": "0"},
        {"app_id": "3", "description": "somebody-elses", "state": "deployed", "tasks": "1"},
        {"app_id": "4", "description": "comfymodal-c-doctor", "state": "ephemeral", "tasks": "0"},
    ]
    assert apps_in(rows) == [LiveApp("1", "comfymodal-a-render", 2), LiveApp("4", "comfymodal-c-doctor", 0)]


@pytest.mark.parametrize(
    ("entry", "ended_at"),
    [
        pytest.param({}, None, id="goes on"),
        pytest.param({"outcome": {"status": "failed", "ended_at": T + 9}}, T + 9, id="ended"),
        pytest.param({"outcome": {"status": "failed"}}, T, id="ended without a time"),
    ],
)
def test_a_board_entry_tells_whether_its_container_is_at_it(entry: dict[str, Any], ended_at: float | None) -> None:
    container = {"container_id": "ta-1", "started_at": T}
    run = run_from("r", {"seq": 1, "container": container, "job": {"gpu": "H100"}, **entry})
    assert run is not None
    assert (run.container_id, run.gpu, run.ended_at) == ("ta-1", "H100", ended_at)


@pytest.mark.parametrize("entry", [None, {}, {"seq": 0, "call_id": "fc-1"}, {"container": {}}])
def test_a_run_that_no_container_took_is_in_none(entry: dict[str, Any] | None) -> None:
    assert run_from("r", entry) is None


def test_a_note_of_an_older_keeper_is_read() -> None:
    assert warmth_from({"until": T, "call_id": "fc-1"}) == Warmth(T, "fc-1", "", None, 1)
    assert warmth_from(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "it said nothing", id="nothing"),
        pytest.param("a\nb\n\n", "b", id="lines"),
        pytest.param("╭─ Error ─────╮\n│ No such App │\n╰─────────────╯\n", "No such App", id="a frame"),
    ],
)
def test_the_last_words_of_a_failed_command_are_found(text: str, words: str) -> None:
    assert last_words(text) == words


@pytest.mark.parametrize("text", ["", "usage: modal", '{"a": 1}', "[1]", "null"])
def test_an_answer_that_is_no_list_of_rows_names_the_command(text: str) -> None:
    with pytest.raises(ServiceError, match="modal container list") as caught:
        rows_in(text, "modal container list")
    assert caught.value.hint is not None


def test_rows_come_as_they_are() -> None:
    assert rows_in(json.dumps([{"a": "ü"}]), "x") == [{"a": "ü"}]
    assert rows_in("[]", "x") == []


def entry(message: str, *context: str, object_id: str = "ap-1", after_s: float = 0.0) -> LogEntry:
    return LogEntry(message, AT + timedelta(seconds=after_s), "stdout", object_id, list(context))


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        pytest.param(entry("a\nb\n", "fu-1", "fc-1", "in-1", "ta-1"), [("fc-1", "a"), ("fc-1", "b")], id="two lines"),
        pytest.param(entry("x\n", "fu-1", "ta-1"), [("", "x")], id="of no call"),
        pytest.param(entry("x", "in-1", "ta-1", object_id="fc-2"), [("fc-2", "x")], id="a call's own log"),
        pytest.param(entry("\x1b[32mgreen\x1b[0m\r\n", "ta-1"), [("", "green")], id="colours"),
        pytest.param(entry(" 10%\r 20%\n", "ta-1"), [("", " 10%"), ("", " 20%")], id="a progress bar"),
        pytest.param(entry("\n", "ta-1"), [("", "")], id="an empty line"),
    ],
)
def test_an_entry_becomes_lines(said: LogEntry, lines: list[tuple[str, str]]) -> None:
    found = lines_of([said])
    assert [(line.call_id, line.text) for line in found] == lines
    assert {(line.at, line.container_id) for line in found} == {(T, "ta-1")}


@pytest.mark.parametrize(
    ("line", "is_of_run"),
    [
        pytest.param(LogLine(T + 1, "ta-1", "", "stdout", ""), True, id="its container meanwhile"),
        pytest.param(LogLine(T + 1, "ta-2", "", "stdout", ""), False, id="another container"),
        pytest.param(LogLine(T - 1, "ta-1", "", "stdout", ""), False, id="before"),
        pytest.param(LogLine(T + 10.3, "ta-1", "", "stdout", ""), True, id="read late from ComfyUI's log"),
        pytest.param(LogLine(T + 11, "ta-1", "", "stdout", ""), False, id="after"),
        pytest.param(LogLine(T + 1, "ta-1", "fc-1", "stdout", ""), False, id="in the call's own log already"),
        pytest.param(LogLine(T + 1, "ta-1", "fc-2", "stdout", ""), False, id="of another call"),
        pytest.param(LogLine(T + 1, "", "", "system", ""), False, id="of no container"),
    ],
)
def test_lines_beside_a_call_are_its_runs_by_container_and_time(line: LogLine, is_of_run: bool) -> None:
    assert RunScope("fc-1", "ta-1", T, T + 10).has(line) is is_of_run
    assert not RunScope("fc-1", "", T, T + 10).has(line)


def test_the_first_run_of_a_container_has_its_start_too() -> None:
    container = {"container_id": "ta-1", "container_started_at": T - 60, "started_at": T, "is_first": True}
    assert scope_from("fc-1", container, None) == RunScope("fc-1", "ta-1", T - 60, None)
    later = scope_from("fc-1", {**container, "is_first": False}, {"ended_at": T + 5})
    assert later == RunScope("fc-1", "ta-1", T, T + 5)
    assert scope_from(None, None, None) == RunScope("", "", 0.0, None)
