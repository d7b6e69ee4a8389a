from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotFoundError, NotReadyError
from comfymodal.runs.ledger import SCHEMA_VERSION, Ledger, Run

RUN = Run(
    id="261121-093012-k7f3",
    kind="render",
    target="local",
    status="submitting",
    title="workflow.json",
    created_at=1000.0,
    ended_at=None,
    call_id=None,
    again_of=None,
    request={"job": {"prompts": [{"graph": {"1": "ü 猫"}}]}},
    result=None,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "deep" / "ledger.sqlite")
    yield made
    made.close()


def add(ledger: Ledger, *ids: str) -> None:
    for number, run_id in enumerate(ids):
        ledger.add(replace(RUN, id=run_id, created_at=float(number)))


def test_a_run_comes_back_as_it_went_in(ledger: Ledger) -> None:
    ledger.add(RUN)
    assert ledger.get(RUN.id) == RUN


def test_a_run_goes_from_submitting_to_its_end(ledger: Ledger) -> None:
    ledger.add(RUN)
    assert ledger.get(RUN.id).is_active
    ledger.note_call(RUN.id, "12@3.5")
    running = ledger.get(RUN.id)
    assert (running.status, running.call_id, running.is_active) == ("running", "12@3.5", True)
    ledger.settle(RUN.id, status="failed", ended_at=2000.5, result={"error": None})
    ledger.settle(RUN.id, status="succeeded", ended_at=2001.5, result={"outputs": [1]})
    ended = ledger.get(RUN.id)
    assert (ended.status, ended.ended_at, ended.result) == ("succeeded", 2001.5, {"outputs": [1]})
    assert not ended.is_active


def test_texts_that_are_no_unicode_can_be_kept_and_looked_for(ledger: Ledger) -> None:
    ledger.add(replace(RUN, title="caf\udce9.json", request={"path": "/caf\udce9"}))
    ledger.settle(RUN.id, status="failed", ended_at=1.0, result={"text": "half \ud83d"})
    found = ledger.get(RUN.id)
    assert found.title == "caf\\udce9.json"
    assert (found.request, found.result) == ({"path": "/caf\udce9"}, {"text": "half \ud83d"})
    with pytest.raises(NotFoundError):
        ledger.get("\udcff")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("261121-093012-k7f3", "261121-093012-k7f3", id="whole"),
        pytest.param("261121-093012", "261121-093012-k7f3", id="beginning"),
        pytest.param("26", "261121-093012-k7f3", id="two characters"),
        pytest.param("250101-000000-aaaa", "250101-000000-aaaa", id="an id that another begins with"),
        pytest.param("last", "261121-093012-k7f3", id="last"),
    ],
)
def test_a_run_is_found_by_the_beginning_of_its_id(name: str, found: str, ledger: Ledger) -> None:
    add(ledger, "250101-000000-aaaa", "250101-000000-aaaa2", "261121-093012-k7f3")
    assert ledger.get(name).id == found


@pytest.mark.parametrize("name", ["250101", "250101-000000-aaa", "2", ""])
def test_a_beginning_of_several_ids_names_them(name: str, ledger: Ledger) -> None:
    add(ledger, "250101-000000-aaaa", "250101-000000-aaaa2", "261121-093012-k7f3")
    with pytest.raises(NotFoundError) as caught:
        ledger.get(name)
    assert "250101-000000-aaaa2" in caught.value.message


@pytest.mark.parametrize("name", ["%", "_", "26%", "2_1121", "%k7f3", "\\", "\\%", "'", "x' OR 1=1 --", "\x00", "LAST"])
def test_wildcards_are_characters_like_any_other(name: str, ledger: Ledger) -> None:
    add(ledger, "250101-000000-aaaa", "261121-093012-k7f3")
    with pytest.raises(NotFoundError, match="no run"):
        ledger.get(name)


@pytest.mark.parametrize("odd", ["50%", "a_b", "back\\slash", "quo'te"])
def test_an_id_with_wildcards_is_found_by_its_beginning(odd: str, ledger: Ledger) -> None:
    add(ledger, odd + "-one", "5011", "axb-one", "backslash", "quote")
    assert ledger.get(odd).id == odd + "-one"


def test_an_empty_ledger_has_no_last_run(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="'last'"):
        ledger.get("last")
    assert ledger.newest(limit=5) == []


def test_the_newest_come_first_and_ids_break_ties(ledger: Ledger) -> None:
    for run_id, at in (("b", 5.0), ("a", 5.0), ("c", 1.0), ("d", 9.0)):
        ledger.add(replace(RUN, id=run_id, created_at=at))
    assert [run.id for run in ledger.newest(limit=3)] == ["d", "b", "a"]


def test_an_id_is_entered_once(ledger: Ledger) -> None:
    ledger.add(RUN)
    with pytest.raises(NotReadyError):
        ledger.add(replace(RUN, title="other"))
    assert ledger.get(RUN.id).title == "workflow.json"
    # And the ledger still works.
    add(ledger, "another")


def test_what_cannot_be_json_is_not_half_entered(ledger: Ledger) -> None:
    with pytest.raises(TypeError):
        ledger.add(replace(RUN, request={"x": object()}))
    ledger.add(RUN)
    assert len(ledger.newest(limit=5)) == 1


def test_a_ledger_is_opened_again_with_what_it_held(tmp_path: Path) -> None:
    for number in range(3):
        ledger = Ledger(tmp_path / "ledger.sqlite")
        add(ledger, f"run-{number}")
        ledger.close()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert len(ledger.newest(limit=5)) == 3
    ledger.close()


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(NotReadyError, match="newer comfymodal") as caught:
        Ledger(path)
    assert "pip install -U comfymodal" in str(caught.value.hint)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    connection.close()


@pytest.mark.parametrize("kind", ["text", "folder", "folder is a file"])
def test_a_ledger_that_cannot_be_used_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("no database" * 100)
    if kind == "folder is a file":
        path = path / "ledger.sqlite"
    with pytest.raises(NotReadyError, match=r"ledger\.sqlite"):
        Ledger(path)


def test_a_ledger_that_is_damaged_later_is_our_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("DROP TABLE runs")
    other.close()
    for call in (lambda: ledger.get("last"), lambda: ledger.add(RUN), lambda: ledger.note_call("a", "b")):
        with pytest.raises(NotReadyError):
            call()
    ledger.close()


def _write_many(path: Path, who: str, results: Any) -> None:
    try:
        for number in range(40):
            # A command opens the ledger, writes a little, and ends.
            ledger = Ledger(path)
            ledger.add(replace(RUN, id=f"{who}-{number:03d}", created_at=float(number)))
            ledger.note_call(f"{who}-{number:03d}", "call")
            ledger.settle(f"{who}-{number:03d}", status="succeeded", ended_at=1.0, result={})
            ledger.close()
        results.put(None)
    except BaseException as error:
        results.put(repr(error))
        raise


def test_commands_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    writers = [context.Process(target=_write_many, args=(path, who, results)) for who in "abc"]
    for writer in writers:
        writer.start()
    assert [results.get(timeout=60) for _ in writers] == [None] * 3
    for writer in writers:
        writer.join(60)
    ledger = Ledger(path)
    found = ledger.newest(limit=1000)
    ledger.close()
    assert len(found) == 120
    assert {run.status for run in found} == {"succeeded"}
