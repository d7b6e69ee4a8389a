"""Jobs against a server that speaks ComfyUI's protocol and misbehaves in chosen ways."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotReadyError
from comfymodal.jobs import render
from comfymodal.jobs.contract import MANIFEST_FILE
from comfymodal.jobs.follow import QUEUE_AHEAD
from comfymodal.jobs.manifest import Manifest, read_results
from tests.doubles.comfy_server import PIXELS, ComfyServer, comfy_server
from tests.unit.jobs.render_samples import GRAPH, RUN_ID, FolderPlace, TestEngine, build_job, prompt_ids, statuses


def rendered(
    server: ComfyServer, job: dict[str, Any], tmp_path: Path, **more: Any
) -> tuple[dict[str, Any], FolderPlace]:
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url), **more)
        return render.run(job, place), place


PATIENT = {
    "history appears late": ComfyServer(history_delay_s=0.3),
    "never told the end": ComfyServer(is_silent=True),
    "a prompt vanishes": ComfyServer(vanishing=frozenset({1})),
    "server restarts": ComfyServer(prompt_s=0.1),
}


@pytest.fixture(scope="module", autouse=True)
def patient(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[tuple[dict[str, Any], FolderPlace]]]]:
    """Jobs that must wait seconds to be sure of something, run beside the other tests of this file."""
    with ThreadPoolExecutor() as pool:
        begun = {}
        for name, server in PATIENT.items():
            how, count = (rendered_with_a_restart, 14) if name == "server restarts" else (rendered, 3)
            begun[name] = pool.submit(how, server, build_job(count), tmp_path_factory.mktemp("patient"))
        yield begun


def rendered_with_a_restart(
    server: ComfyServer, job: dict[str, Any], tmp_path: Path
) -> tuple[dict[str, Any], FolderPlace]:
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url))

        def restart_once(events: list[dict[str, Any]]) -> None:
            if len(place.of_type("prompt_done")) >= 2 and server.connections == 1:
                served.do(server.restart)

        place.wish = restart_once
        return render.run(job, place), place


def leftovers(place: FolderPlace) -> list[str]:
    return [path.name for path in place.folder.rglob("*.part")]


def test_one_prompt_leaves_its_output_its_log_and_its_job(tmp_path: Path) -> None:
    job = build_job()
    outcome, place = rendered(ComfyServer(), job, tmp_path)

    assert (outcome["status"], outcome["error"], outcome["run_id"]) == ("succeeded", None, RUN_ID)
    assert outcome["engine"] == {
        "comfyui_version": "0.3.75",
        "pytorch_version": "2.13.0+cpu",
        "python_version": "3.11.7",
        "device": "cpu",
        "device_type": "cpu",
        "vram_total_bytes": 1,
    }
    (output,) = outcome["prompts"][0]["outputs"]
    assert output == {
        "node_id": "9",
        "title": "Save",
        "class_type": "SaveImage",
        "kind": "image",
        "file": "outputs/00000-9-000-img_00000_.png",
        "name": "img_00000_.png",
        "size_bytes": len(PIXELS),
        "sha256": hashlib.sha256(PIXELS).hexdigest(),
        "is_temporary": False,
    }
    assert (place.folder / output["file"]).read_bytes() == PIXELS
    assert (place.folder / "log.txt").read_text() == "got prompt\n"
    assert json.loads((place.folder / "job.json").read_text()) == job
    assert read_results(place.folder / MANIFEST_FILE)[0] == outcome["prompts"][0]
    assert place.commits >= 1


def test_events_tell_the_story_in_order(tmp_path: Path) -> None:
    _, place = rendered(ComfyServer(), build_job(), tmp_path)
    kinds = [event["type"] for event in place.events]
    assert kinds == [
        *("phase", "prompt_queued", "prompt_started", "node", "step", "step", "node", "step", "step"),
        *("prompt_saving", "prompt_done"),
    ]
    assert [(e["done"], e["total"], e["title"]) for e in place.of_type("node")] == [
        (0, 2, "EmptyImage"),
        (1, 2, "Save"),
    ]
    assert place.events[-1] == {"type": "prompt_done", "prompt": 0, "status": "succeeded", "outputs": 1}


def test_fifty_prompts_are_queued_ahead_but_not_all_at_once(tmp_path: Path) -> None:
    server = ComfyServer(others_ahead=3)
    outcome, place = rendered(server, build_job(50), tmp_path)

    assert outcome["status"] == "succeeded"
    assert server.posted == server.executed == prompt_ids(50)
    assert 2 <= server.most_queued <= QUEUE_AHEAD
    assert len(list((place.folder / "outputs").iterdir())) == 50
    assert [event["prompt"] for event in place.of_type("prompt_done")] == list(range(50))


def test_fifty_prompts_of_somebody_else_are_waited_for(tmp_path: Path) -> None:
    server = ComfyServer(others_ahead=50)
    outcome, _ = rendered(server, build_job(2), tmp_path)
    assert outcome["status"] == "succeeded"
    assert server.interrupts == []


def test_a_job_without_prompts_needs_no_engine(tmp_path: Path) -> None:
    outcome = render.run(build_job(0), FolderPlace(tmp_path, NotReadyError("must not be asked")))
    assert (outcome["prompts"], outcome["error"]) == ([], None)


def test_a_place_without_an_engine_says_so_in_the_outcome(tmp_path: Path) -> None:
    outcome = render.run(build_job(), FolderPlace(tmp_path, NotReadyError("no engine here", hint="install one")))
    assert outcome["status"] == "failed"
    assert outcome["error"] == {"code": "not_ready", "message": "no engine here", "hint": "install one"}


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(ComfyServer(done_messages=3), id="told three times"),
        pytest.param(ComfyServer(ws_delay_s=0.4), id="a slow WebSocket"),
        pytest.param(ComfyServer(view_cuts=2), id="downloads cut twice"),
        pytest.param(ComfyServer(ws_status=404, prompt_s=0.1), id="no WebSocket at all"),
    ],
)
def test_a_prompt_is_collected_once_however_its_end_is_told(server: ComfyServer, tmp_path: Path) -> None:
    outcome, place = rendered(server, build_job(2), tmp_path)
    assert (outcome["status"], statuses(outcome)) == ("succeeded", ["succeeded", "succeeded"])
    assert len(server.posted) == 2
    assert len(place.of_type("prompt_done")) == 2
    assert len((place.folder / MANIFEST_FILE).read_text().splitlines()) == 2
    assert leftovers(place) == []


@pytest.mark.parametrize(
    "said",
    [
        pytest.param('{"type": "execution_cached", "data": {"prompt_id": "PROMPT", "nodes": 7}}', id="nodes no list"),
        pytest.param('{"type": "execution_cached", "data": {"prompt_id": "PROMPT"}}', id="no nodes"),
        pytest.param('{"type": "progress", "data": {"prompt_id": "PROMPT", "value": "x", "max": [1]}}', id="words"),
        pytest.param('{"type": "progress", "data": {"prompt_id": "PROMPT", "value": NaN, "max": Infinity}}', id="NaN"),
        pytest.param('{"type": "executing", "data": {"prompt_id": "PROMPT", "node": {"a": 1}}}', id="node no text"),
        pytest.param('{"type": "executed", "data": {"prompt_id": "PROMPT", "output": null}}', id="no output"),
        pytest.param('{"type": "executing", "data": {"node": null}}', id="null without a prompt"),
        pytest.param('{"type": "executing", "data": {"node": null, "prompt_id": "other"}}', id="another's end"),
        pytest.param("nonsense", id="no JSON"),
    ],
)
def test_odd_messages_are_survived_and_steps_are_numbers(said: str, tmp_path: Path) -> None:
    outcome, place = rendered(ComfyServer(extra_messages=(said,)), build_job(), tmp_path)
    assert outcome["status"] == "succeeded"
    # What is emitted must be JSON that every reader takes.
    json.dumps(place.events, allow_nan=False)
    assert all(isinstance(event["value"], int | float) for event in place.of_type("step"))


@pytest.mark.parametrize("meta", ["a title", [], None, 5, {"title": None}, {"title": 5}])
def test_any_meta_of_a_node_is_survived(meta: Any, tmp_path: Path) -> None:
    graph = {**GRAPH, "9": {**GRAPH["9"], "_meta": meta}}
    outcome, _ = rendered(ComfyServer(), build_job(graph=graph), tmp_path)
    assert outcome["prompts"][0]["outputs"][0]["title"] in ("SaveImage", "5")


def listed(*names: str, kind: str = "output", subfolder: str = "") -> Any:
    files = [{"filename": name, "subfolder": subfolder, "type": kind} for name in names]
    return lambda number: {"9": {"images": files}}


@pytest.mark.parametrize("reads_folder", [False, True], ids=["asks the server", "reads its folder"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../../../evil.png", id="up"),
        pytest.param("/etc/evil.png", id="absolute"),
        pytest.param("..\\..\\evil.png", id="backslashes"),
        pytest.param("nul\x00.png", id="NUL"),
        pytest.param("CON.png", id="device"),
        pytest.param("x" * 300 + ".png", id="long"),
        pytest.param("\ud800half.png", id="half a surrogate pair"),
        pytest.param("наименование.png", id="unicode"),
        pytest.param("..", id="dots"),
    ],
)
def test_no_name_of_the_server_leaves_the_runs_folder(name: str, reads_folder: bool, tmp_path: Path) -> None:
    with comfy_server(ComfyServer(outputs=listed(name, subfolder="../.."))) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url, folder=tmp_path / "engine" if reads_folder else None))
        outcome = render.run(build_job(), place)
    assert outcome["status"] == "succeeded"
    (output,) = outcome["prompts"][0]["outputs"]
    assert (place.folder / output["file"]).read_bytes() == PIXELS
    assert (place.folder / output["file"]).resolve().parent == (place.folder / "outputs").resolve()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and place.folder not in path.parents] == []


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    def outputs(number: int) -> dict[str, Any]:
        return {
            node: {"images": [{"filename": "a.png", "subfolder": folder, "type": "output"} for folder in ("", "b")]}
            for node in ("9:1", "9_1", "a-very-long-node-id-1", "a-very-long-node-id-2", "x" * 400)
        }

    outcome, place = rendered(ComfyServer(outputs=outputs), build_job(), tmp_path)
    files = [output["file"] for output in outcome["prompts"][0]["outputs"]]
    assert outcome["status"] == "succeeded"
    assert len(set(files)) == len(files) == 10
    assert {path.name for path in (place.folder / "outputs").iterdir()} == {Path(file).name for file in files}


@pytest.mark.parametrize(("keeps", "count"), [(False, 0), (True, 1)])
def test_previews_are_kept_only_when_asked_for(keeps: bool, count: int, tmp_path: Path) -> None:
    server = ComfyServer(outputs=listed("p.png", kind="temp"))
    outcome, _ = rendered(server, build_job(keep_temporary=keeps), tmp_path)
    assert len(outcome["prompts"][0]["outputs"]) == count
    assert outcome["status"] == "succeeded"


def test_texts_that_are_no_unicode_reach_the_manifest(tmp_path: Path) -> None:
    server = ComfyServer(outputs=lambda number: {"9": {"text": ["half \ud83d of it", "ünï 😀"]}})
    outcome, place = rendered(server, build_job(), tmp_path)
    assert outcome["status"] == "succeeded"
    kept = read_results(place.folder / MANIFEST_FILE)[0]["texts"]
    assert [text["text"] for text in kept] == ["half \ud83d of it", "ünï 😀"]


def test_an_output_the_server_lost_fails_its_prompt_only(tmp_path: Path) -> None:
    outcome, place = rendered(ComfyServer(view_status=404), build_job(2), tmp_path)
    assert (outcome["status"], statuses(outcome)) == ("failed", ["failed", "failed"])
    assert outcome["error"]["code"] == "transfer_failed"
    assert "img_00000_.png" in outcome["error"]["message"]
    assert leftovers(place) == []


ERROR = ["execution_error", {"node_id": "9", "node_type": "SaveImage", "exception_type": "E", "exception_message": "b"}]


@pytest.mark.parametrize(
    ("last", "status", "code"),
    [
        pytest.param(ERROR, "failed", "run_failed", id="error"),
        pytest.param(["execution_error", {}], "failed", "run_failed", id="error without a word"),
        pytest.param(["nothing"], "failed", "run_failed", id="no last message"),
        pytest.param(["execution_interrupted", {"node_id": "9"}], "cancelled", None, id="interrupted by another"),
    ],
)
def test_the_end_of_a_prompt_is_told_by_its_last_message(
    last: list[Any], status: str, code: str | None, tmp_path: Path
) -> None:
    outcome, _ = rendered(ComfyServer(failing={0: last}), build_job(), tmp_path)
    assert (statuses(outcome), outcome["status"]) == ([status], status)
    assert (outcome["error"] or {}).get("code") == code
    # A node that failed may have saved before: that is kept.
    assert len(outcome["prompts"][0]["outputs"]) == 1


def test_one_failed_prompt_of_three_is_partial(tmp_path: Path) -> None:
    outcome, _ = rendered(ComfyServer(failing={1: ERROR}), build_job(3), tmp_path)
    assert (outcome["status"], statuses(outcome)) == ("partial", ["succeeded", "failed", "succeeded"])


NODE_ERRORS = {"9": {"errors": [{"type": "required_input_missing", "message": "Missing", "details": "x"}]}}


def test_a_refusal_is_told_and_nothing_runs(tmp_path: Path) -> None:
    server = ComfyServer(refusal={"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": NODE_ERRORS})
    outcome, _ = rendered(server, build_job(2), tmp_path)
    assert (outcome["status"], statuses(outcome)) == ("failed", ["refused", "refused"])
    assert outcome["error"]["message"] == "node 9 (SaveImage): Missing: x"
    assert server.executed == []


@pytest.mark.parametrize("allows", [False, True])
def test_200_with_node_errors_is_a_refusal_unless_partial_is_allowed(allows: bool, tmp_path: Path) -> None:
    server = ComfyServer(node_errors=NODE_ERRORS, others_ahead=5)
    outcome, _ = rendered(server, build_job(allow_partial=allows), tmp_path)
    assert outcome["status"] == ("partial" if allows else "failed")
    assert statuses(outcome) == ["succeeded" if allows else "refused"]
    assert outcome["error"]["code"] == "workflow_invalid"
    assert ("--allow-partial" in str(outcome["error"]["hint"])) != allows
    # What the server had queued was withdrawn.
    assert server.executed == (prompt_ids(1) if allows else [])


def test_nonsense_to_a_post_ends_the_job_with_an_error(tmp_path: Path) -> None:
    outcome, _ = rendered(ComfyServer(post_status=502), build_job(3), tmp_path)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "service_failed")
    assert "HTTP 502" in outcome["error"]["message"]


@pytest.mark.parametrize("name", ["history appears late", "never told the end"])
def test_a_prompt_is_found_by_asking_when_its_end_is_not_told(name: str, patient: Any) -> None:
    outcome, place = patient[name].result()
    assert (outcome["status"], statuses(outcome)) == ("succeeded", ["succeeded"] * 3)
    assert PATIENT[name].posted == prompt_ids(3)
    assert len(place.of_type("prompt_done")) == 3


def test_a_prompt_that_vanishes_from_the_queue_is_lost_and_the_others_go_on(patient: Any) -> None:
    outcome, _ = patient["a prompt vanishes"].result()
    assert (outcome["status"], statuses(outcome)) == ("partial", ["succeeded", "lost", "succeeded"])
    assert outcome["error"]["code"] == "engine_died"
    assert f"runs again {RUN_ID}" in outcome["error"]["hint"]
    assert outcome["ended_at"] - outcome["started_at"] < 10


def test_a_restarted_server_loses_what_it_had_and_renders_the_rest(patient: Any) -> None:
    outcome, _ = patient["server restarts"].result()
    server, found = PATIENT["server restarts"], statuses(outcome)
    assert outcome["status"] == "partial"
    assert found[:2] == ["succeeded", "succeeded"]
    assert "lost" in found
    assert found[-1] == "succeeded"
    assert len(found) == 14
    assert server.connections >= 2
    # What was lost is not posted again behind the operator's back.
    assert sorted(server.posted) == prompt_ids(14)


def test_a_dead_engine_is_named_with_its_last_words(tmp_path: Path) -> None:
    server = ComfyServer(prompt_s=20)
    engine = TestEngine("")
    began = time.monotonic()
    with comfy_server(server) as served:
        engine.url = served.url
        place = FolderPlace(tmp_path, engine)

        def kill(events: list[dict[str, Any]]) -> None:
            if place.of_type("node") and engine.death_note is None:
                engine.death_note = "ComfyUI (pid 1) ended with signal 9"
                served.do(server.restart)

        place.wish = kill
        outcome = render.run(build_job(2), place)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "engine_died")
    assert outcome["error"]["message"] == "ComfyUI (pid 1) ended with signal 9"
    assert time.monotonic() - began < 8


def test_a_server_that_is_not_there_is_an_outcome(tmp_path: Path) -> None:
    outcome = render.run(build_job(), FolderPlace(tmp_path, TestEngine("http://127.0.0.1:1")))
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "engine_died")
    assert "stopped answering" in outcome["error"]["message"]


def stop_after(count: int) -> Any:
    return lambda events: "stop" if sum(e["type"] == "prompt_done" for e in events) >= count else None


def test_a_stop_keeps_what_is_finished_and_withdraws_the_rest(tmp_path: Path) -> None:
    server = ComfyServer(prompt_s=0.15)
    outcome, place = rendered(server, build_job(20), tmp_path, wish=stop_after(2))

    assert outcome["status"] == "cancelled"
    assert statuses(outcome)[:2] == ["succeeded", "succeeded"]
    assert set(statuses(outcome)[2:]) <= {"succeeded", "cancelled"}
    assert outcome["error"] is None
    assert len(server.posted) < 20
    assert (server.pending, server.running) == ([], [])
    assert set(server.interrupts) <= set(prompt_ids(20))
    assert place.of_type("phase")[-1]["phase"] == "stopping"


def test_a_stop_asked_for_at_once_posts_nothing(tmp_path: Path) -> None:
    server = ComfyServer()
    outcome, _ = rendered(server, build_job(5), tmp_path, wish=lambda events: "stop")
    assert (outcome["status"], outcome["prompts"], server.posted) == ("cancelled", [], [])


def test_a_stop_never_touches_prompts_of_others(tmp_path: Path) -> None:
    server = ComfyServer(others_ahead=40)
    outcome, _ = rendered(
        server, build_job(2), tmp_path, wish=lambda events: "stop" if events[-1]["type"] == "prompt_queued" else None
    )
    assert (outcome["status"], server.interrupts, server.executed) == ("cancelled", [], [])
    assert len(server.pending) > 0


def test_a_deadline_that_has_passed_posts_nothing(tmp_path: Path) -> None:
    server = ComfyServer()
    outcome, _ = rendered(server, build_job(3), tmp_path, deadline=time.time() - 1)
    assert (outcome["status"], outcome["error"]["code"], server.posted) == ("failed", "run_failed", [])
    assert "time limit" in outcome["error"]["message"]


def test_a_deadline_in_the_middle_keeps_what_is_finished(tmp_path: Path) -> None:
    server = ComfyServer(prompt_s=0.2)
    outcome, _ = rendered(server, build_job(9), tmp_path, deadline=time.time() + 0.6)
    assert outcome["status"] == "partial"
    assert "time limit" in outcome["error"]["message"]
    assert statuses(outcome)[0] == "succeeded"
    assert server.pending == []


def test_a_deadline_that_a_budget_set_is_told_as_one(tmp_path: Path) -> None:
    job = {**build_job(3), "is_budget_deadline": True}
    outcome, _ = rendered(ComfyServer(), job, tmp_path, deadline=time.time() - 1)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "budget_reached")


def test_a_node_that_shows_no_sign_of_life_is_given_up(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome, _ = rendered(ComfyServer(prompt_s=20.0), {**build_job(2), "stall_s": 0.5}, tmp_path)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "engine_died")
    assert "comfyui.stall_timeout" in outcome["error"]["message"]
    assert time.monotonic() - began < 5


def test_a_server_that_hangs_is_given_up_although_it_answers_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    server = ComfyServer(prompt_s=20.0)
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url))
        # Every answer takes longer than the whole test, as of a process that is stopped.
        place.wish = lambda events: setattr(server, "answer_delay_s", 30.0) if place.of_type("node") else None
        outcome = render.run({**build_job(), "stall_s": 3.0}, place)
    assert outcome["error"]["code"] == "engine_died"
    assert time.monotonic() - began < 8


def test_a_deadline_that_passes_with_the_last_output_changes_nothing(tmp_path: Path) -> None:
    # The download takes the job past its deadline, but then all is done.
    deadline = time.time() + 0.4
    outcome, _ = rendered(ComfyServer(view_cuts=2), build_job(), tmp_path, deadline=deadline)
    assert time.time() > deadline
    assert (outcome["status"], outcome["error"]) == ("succeeded", None)


def test_a_restarted_job_takes_up_what_is_there_and_posts_nothing_twice(tmp_path: Path) -> None:
    job = build_job(12)
    server = ComfyServer(prompt_s=0.05)
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url))

        def die(events: list[dict[str, Any]]) -> None:
            if len(place.of_type("prompt_done")) >= 3:
                raise KeyboardInterrupt

        place.wish = die
        with pytest.raises(KeyboardInterrupt):
            render.run(job, place)
        begun = len(server.posted)
        second = FolderPlace(tmp_path, TestEngine(served.url))
        outcome = render.run(job, second)
    assert 3 < begun < 12
    assert (outcome["status"], len(outcome["prompts"])) == ("succeeded", 12)
    assert sorted(server.posted) == prompt_ids(12)
    assert sorted(server.executed) == prompt_ids(12)


def test_a_complete_manifest_needs_no_engine(tmp_path: Path) -> None:
    job = build_job(3)
    first, _ = rendered(ComfyServer(), job, tmp_path)
    second = render.run(job, FolderPlace(tmp_path, NotReadyError("must not be asked")))
    assert (second["status"], second["prompts"]) == ("succeeded", first["prompts"])


def test_a_torn_manifest_renders_only_what_was_torn(tmp_path: Path) -> None:
    job = build_job(3)
    _, place = rendered(ComfyServer(), job, tmp_path)
    manifest = place.folder / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:-40])
    server = ComfyServer()
    outcome, _ = rendered(server, job, tmp_path)
    assert (outcome["status"], server.posted) == ("succeeded", prompt_ids(3)[2:])
    assert sorted(read_results(manifest)) == [0, 1, 2]


def test_collect_only_renders_nothing_and_finds_what_the_server_still_has(tmp_path: Path) -> None:
    job = build_job(3)
    server = ComfyServer()
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url))
        render.run(job, place)
        began = time.monotonic()
        del server.history[prompt_ids(3)[1]]
        # As after a worker that was killed before it noted anything.
        (place.folder / MANIFEST_FILE).write_bytes(b"")
        outcome = render.run({**job, "collect_only": True}, FolderPlace(tmp_path, TestEngine(served.url)))
    assert (outcome["status"], statuses(outcome)) == ("partial", ["succeeded", "lost", "succeeded"])
    assert len(server.posted) == 3
    assert time.monotonic() - began < 1


def test_an_outputs_volume_that_is_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    outcome = render.run(build_job(), FolderPlace(tmp_path, NotReadyError("must not be asked")))
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "transfer_failed")
    assert str(tmp_path / "outputs") in outcome["error"]["message"]


def test_a_disk_that_fails_in_the_middle_is_a_disk_error(tmp_path: Path) -> None:
    server = ComfyServer(prompt_s=0.1)
    with comfy_server(server) as served:
        place = FolderPlace(tmp_path, TestEngine(served.url))

        def break_outputs(events: list[dict[str, Any]]) -> None:
            outputs = place.folder / "outputs"
            if place.of_type("prompt_started") and outputs.is_dir():
                outputs.rename(tmp_path / "moved")
                outputs.write_text("a file")

        place.wish = break_outputs
        outcome = render.run(build_job(2), place)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "transfer_failed")
    assert "runs fetch" in outcome["error"]["hint"]


def test_inputs_are_uploaded_before_anything_is_posted(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "ab12.png").write_bytes(PIXELS)
    inputs = [{"file": "ab12.png", "sha256": "x", "size_bytes": len(PIXELS)}]
    server = ComfyServer()
    outcome, _ = rendered(server, build_job(inputs=inputs), tmp_path)
    assert outcome["status"] == "succeeded"
    assert server.uploads == {"comfymodal/ab12.png": PIXELS}


@pytest.mark.parametrize("data", [None, b"half"], ids=["missing", "half there"])
def test_an_input_that_is_not_whole_is_not_rendered_with(data: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    if data is not None:
        (tmp_path / "inputs" / "ab12.png").write_bytes(data)
    server = ComfyServer()
    outcome, _ = rendered(server, build_job(inputs=[{"file": "ab12.png", "size_bytes": 300}]), tmp_path)
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "transfer_failed")
    assert (server.posted, server.uploads) == ([], {})


def test_a_job_leaves_no_thread_and_no_open_manifest_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    rendered(ComfyServer(), build_job(), tmp_path)
    assert threading.active_count() <= before
    assert Manifest.open(tmp_path / "outputs" / "runs" / RUN_ID, build_job()["prompts"]).is_complete
