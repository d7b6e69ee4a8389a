"""The double of Modal's control plane, with the real client before it and the real container runtime behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import modal
import psutil
import pytest

from tests.conftest import ENGINE_DATA
from tests.doubles.modal_cloud.client import ModalCloud, container_python

# Runs in containers: `perform` does what it is told, one step after the other, and says what came of each.
DEMO = """
import os
import sys
import time
from pathlib import Path

import modal
import modal.experimental

OUT = Path(os.environ.get("DEMO_OUT", "/nowhere"))
STEPS = {}
HELD = []


def step(function):
    STEPS[function.__name__] = function
    return function


def volume():
    return modal.Volume.from_name("demo-out")


def notes():
    return modal.Dict.from_name("demo-notes", create_if_missing=True)


@step
def write(name, text):
    (OUT / name).parent.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(text)


@step
def read(name):
    return (OUT / name).read_text() if (OUT / name).exists() else None


@step
def delete(name):
    (OUT / name).unlink()


@step
def commit():
    volume().commit()


@step
def reload():
    try:
        volume().reload()
    except RuntimeError as error:
        return str(error)


@step
def hold(name):
    HELD.append((OUT / name).open())


@step
def let_go():
    HELD.pop().close()


@step
def note(key, value):
    return notes().put(key, value, skip_if_exists=True)


@step
def await_note(key):
    while key not in notes():
        time.sleep(0.05)


@step
def count(key):
    number = notes().get(key, 0) + 1
    notes()[key] = number
    return number


@step
def fail_before(key, number):
    if count(key) < number:
        raise ValueError(f"not yet the attempt number {number}")


@step
def say(text):
    print(text, flush=True)


@step
def complain(text):
    print(text, file=sys.stderr, flush=True)


@step
def environ(name):
    return os.environ.get(name)


@step
def lists(path):
    return sorted(os.listdir(path))


@step
def ids():
    return [modal.current_function_call_id(), modal.current_input_id(), os.environ["MODAL_TASK_ID"]]


@step
def stop_fetching():
    modal.experimental.stop_fetching_inputs()


@step
def linger(seconds):
    time.sleep(seconds)


def perform(*steps):
    return [STEPS[name](*arguments) for name, *arguments in steps]


def perform_at_last(at_last, *steps):
    try:
        return perform(*steps)
    finally:
        perform(*at_last)


def broken():
    raise AssertionError("never gets here")


class Box:
    @modal.enter()
    def begin(self):
        print("box begins", flush=True)
        self.runs = 0

    @modal.method()
    def run(self, *steps):
        self.runs += 1
        return {"runs": self.runs, "results": perform(*steps)}

    @modal.exit()
    def end(self):
        print("box ends", flush=True)
        notes()["box ended"] = os.environ["MODAL_TASK_ID"]


class BrokenBox:
    @modal.enter()
    def begin(self):
        raise LookupError("no such model")

    @modal.method()
    def run(self):
        return 1
"""

PACKAGE = "modal_cloud_demo"


@dataclass(frozen=True)
class Demo:
    """An app that is deployed, and the client it was deployed with."""

    cloud: ModalCloud
    client: modal.Client
    app: modal.App

    def function(self, name: str) -> Any:
        return modal.Function.from_name("demo", name, client=self.client)

    def spawn(self, name: str, *arguments: Any) -> Any:
        return self.function(name).spawn(*arguments)

    def box(self) -> Any:
        return modal.Cls.from_name("demo", "Box", client=self.client)

    def call(self, call_id: str) -> Any:
        return modal.FunctionCall.from_id(call_id, self.client)

    @property
    def notes(self) -> modal.Dict:
        return modal.Dict.from_name("demo-notes", create_if_missing=True, client=self.client)

    @property
    def volume(self) -> modal.Volume:
        return modal.Volume.from_name("demo-out", client=self.client)

    def await_note(self, key: str) -> None:
        wait_until(lambda: key in self.notes)

    def running(self, call: Any) -> dict[str, Any]:
        """The container that runs this call."""
        return self.cloud.wait_for_container(lambda found: bool(found["call_id"] == call.object_id))

    def end_containers(self, *names: str) -> None:
        """Let nothing warm be left that an earlier test has marked."""
        for found in self.cloud.containers():
            if found["function"] in names:
                self.cloud.kill_container(found["task_id"])
        wait_until(lambda: not any(found["function"] in names for found in self.cloud.containers()))


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def modal_python() -> Path:
    return container_python(ENGINE_DATA / "containers")


@pytest.fixture(scope="module")
def demo_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package of functions, imported here; containers get it as Modal gets it to them."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / f"{PACKAGE}.py").write_text(DEMO)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield __import__(PACKAGE)
    del sys.modules[PACKAGE]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, modal_python: Path) -> Iterator[ModalCloud]:
    made = start_cloud(tmp_path_factory.mktemp("cloud"), modal_python, is_flat=False)
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture(scope="module")
def demo(cloud: ModalCloud, demo_code: Any) -> Demo:
    client = connect(cloud)
    return Demo(cloud, client, deploy(client, demo_code))


def start_cloud(folder: Path, python: Path, *, is_flat: bool) -> ModalCloud:
    (folder / "buckets" / "cold").mkdir(parents=True)
    return ModalCloud.start(
        folder,
        container_python=python,
        image_env={"BUILT": "by nobody"},
        hide=[Path(__file__).parents[2]],
        buckets=folder / "buckets",
        is_flat=is_flat,
    )


def connect(cloud: ModalCloud, token_id: str | None = None) -> modal.Client:
    environ = cloud.environ
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODAL_SERVER_URL", environ["MODAL_SERVER_URL"])
        return modal.Client.from_credentials(token_id or environ["MODAL_TOKEN_ID"], environ["MODAL_TOKEN_SECRET"])


def build_app(client: modal.Client, code: Any, **options: Any) -> modal.App:
    out = modal.Volume.from_name("demo-out", create_if_missing=True, client=client)
    keys = modal.Secret.from_dict({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    cold = modal.CloudBucketMount("cold", secret=keys, key_prefix="in/", read_only=True)
    image = (
        modal.Image.debian_slim("3.11")
        .env({"DEMO_OUT": "/volumes/demo/out", "BUILT": "no", "WORDS": "two words"})
        .add_local_python_source(PACKAGE)
    )
    app = modal.App("demo", image=image, include_source=False, tags={"project": "demo"})
    functions: dict[str, dict[str, Any]] = {
        "plain": {},
        "again": {"retries": 2},
        "short": {"timeout": 1, "startup_timeout": 60},
        "single": {"max_containers": 1},
        "deep": {"volumes": {"/root/not/here/out": out}},
        "reader": {"volumes": {"/volumes/demo/out": out.read_only()}},
        "cold": {"volumes": {"/volumes/demo/out": cold}},
    }
    for name, own in functions.items():
        app.function(name=name, **{"volumes": {"/volumes/demo/out": out}, **own, **options})(code.perform)
    app.function(name="at_last", volumes={"/volumes/demo/out": out})(code.perform_at_last)
    app.cls(volumes={"/volumes/demo/out": out}, gpu="L40S", scaledown_window=2)(code.Box)
    app.cls()(code.BrokenBox)
    return app


def deploy(client: modal.Client, code: Any) -> modal.App:
    return build_app(client, code).deploy(client=client)


def test_a_spawned_call_gives_its_result_as_often_as_asked(demo: Demo) -> None:
    call = demo.spawn("plain", ["ids"], ["environ", "WORDS"], ["environ", "BUILT"])
    [[call_id, input_id, task_id], words, built] = call.get(timeout=20)
    assert (call_id, words, built) == (call.object_id, "two words", "by nobody")
    assert input_id.startswith("in-")
    assert demo.call(call.object_id).get(timeout=0)[0][2] == task_id
    assert demo.function("plain").remote(["ids"])[0][2] == task_id


def test_a_class_is_begun_once_and_ends_when_idle(demo: Demo) -> None:
    first = demo.box()().run.remote(["ids"])
    second = demo.box()().run.remote(["ids"])
    assert (first["runs"], second["runs"]) == (1, 2)
    task_id = first["results"][0][2]
    demo.await_note("box ended")
    assert demo.notes["box ended"] == task_id
    ended = demo.cloud.wait_for_container(lambda found: found["task_id"] == task_id and found["state"] == "ended")
    assert (ended["exit_code"], ended["gpu"]) == (0, "L40S")


def test_containers_do_not_see_the_checkout(demo: Demo) -> None:
    if demo.cloud.is_flat:
        pytest.skip("needs root and unshare")
    checkout = Path(__file__).parents[2]
    assert list(checkout.iterdir())
    assert demo.function("plain").remote(["lists", str(checkout)]) == [[]]


def test_mount_points_do_not_appear_on_this_machine(demo: Demo) -> None:
    if demo.cloud.is_flat:
        pytest.skip("needs root and unshare")
    assert demo.function("plain").remote(["lists", "/volumes/demo"]) == [["out"]]
    assert "out" in demo.function("deep").remote(["lists", "/root/not/here"])[0]
    assert not Path("/volumes/demo").exists()
    assert not Path("/root/not").exists()


def test_what_is_committed_is_seen_and_what_is_not_is_lost_by_a_kill(demo: Demo) -> None:
    call = demo.spawn(
        "again",
        ["read", "kill/lost"],
        ["write", "kill/kept", "1"],
        ["commit"],
        ["write", "kill/lost", "1"],
        ["count", "kill tries"],
        ["await_note", "kill go on"],
    )
    demo.await_note("kill tries")
    demo.cloud.kill_container(demo.running(call)["task_id"])
    wait_until(lambda: demo.notes["kill tries"] == 2)
    assert [found.path for found in demo.volume.listdir("kill")] == ["kill/kept"]
    demo.notes["kill go on"] = True
    assert call.get(timeout=20)[0] is None
    assert (demo.cloud.volume_folder("demo-out") / "kill" / "kept").read_text() == "1"


def test_a_killed_container_fails_the_call_when_there_are_no_retries(demo: Demo) -> None:
    call = demo.spawn("plain", ["linger", 60])
    demo.cloud.kill_container(demo.running(call)["task_id"])
    with pytest.raises(modal.exception.InternalFailure, match="exited unexpectedly"):
        call.get(timeout=20)


def test_an_exception_is_tried_again_and_then_raised(demo: Demo) -> None:
    assert demo.spawn("again", ["fail_before", "third", 3]).get(timeout=20) == [None]
    with pytest.raises(ValueError, match="not yet the attempt number 5"):
        demo.spawn("again", ["fail_before", "fifth", 5]).get(timeout=20)
    assert demo.notes["fifth"] == 3


def test_reload_fails_with_an_open_file_and_brings_what_others_committed(demo: Demo) -> None:
    demo.function("single").remote(["write", "open/mine", "1"], ["commit"])
    demo.function("again").remote(["reload"], ["write", "open/theirs", "2"], ["delete", "open/mine"], ["commit"])
    found = demo.function("single").remote(
        ["read", "open/theirs"],
        ["hold", "open/mine"],
        ["reload"],
        ["let_go"],
        ["reload"],
        ["read", "open/theirs"],
        ["read", "open/mine"],
    )
    assert "there are open files preventing the operation" in found[2]
    assert "open/mine" in found[2]
    assert [found[0], *found[3:]] == [None, None, None, "2", None]


def test_a_read_only_volume_cannot_be_written(demo: Demo) -> None:
    if demo.cloud.is_flat:
        pytest.skip("needs root and unshare")
    demo.function("plain").remote(["write", "fixed/file", "1"], ["commit"])
    demo.end_containers("reader")
    assert demo.function("reader").remote(["read", "fixed/file"]) == ["1"]
    with pytest.raises(OSError, match="Read-only file system"):
        demo.function("reader").remote(["write", "fixed/file", "2"])


def test_a_bucket_shows_what_is_in_it_now_and_cannot_be_written(demo: Demo) -> None:
    bucket = demo.cloud.folder / "buckets" / "cold"
    (bucket / "in").mkdir()
    (bucket / "in" / "early").write_text("1")
    (bucket / "beside").touch()
    assert demo.function("cold").remote(["read", "early"], ["read", "beside"], ["read", "late"]) == ["1", None, None]
    (bucket / "in" / "late").write_text("2")
    assert demo.function("cold").remote(["read", "late"]) == ["2"]
    if not demo.cloud.is_flat:
        with pytest.raises(OSError, match="Read-only file system"):
            demo.function("cold").remote(["write", "late", "3"])


def test_a_pending_call_is_cancelled_at_once(demo: Demo) -> None:
    demo.cloud.do("hold_inputs", on=True)
    try:
        call = demo.spawn("plain", ["note", "never", 1])
        with pytest.raises(TimeoutError):
            call.get(timeout=0.2)
        call.cancel()
        with pytest.raises(modal.exception.RemoteError):
            call.get(timeout=5)
    finally:
        demo.cloud.do("hold_inputs", on=False)
    assert "never" not in demo.notes


def test_a_running_call_can_clean_up_when_it_is_cancelled(demo: Demo) -> None:
    at_last = [["write", "cancelled", "saved"], ["commit"]]
    call = demo.spawn("at_last", at_last, ["note", "cancel me", 1], ["linger", 60])
    demo.await_note("cancel me")
    container = demo.running(call)
    call.cancel()
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=10)
    assert b"".join(demo.volume.read_file("cancelled")) == b"saved"
    assert container["task_id"] in [found["task_id"] for found in demo.cloud.containers("idle")]


def test_a_cancelled_call_can_take_its_container_along(demo: Demo) -> None:
    call = demo.spawn("plain", ["linger", 60])
    task_id = demo.running(call)["task_id"]
    call.cancel(terminate_containers=True)
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=5)
    demo.cloud.wait_for_container(lambda found: found["task_id"] == task_id and found["state"] == "ended")


def test_a_preempted_call_runs_again_and_that_is_no_retry(demo: Demo) -> None:
    at_last = [["count", "preempted"], ["write", "preempted", "saved"], ["commit"]]
    call = demo.spawn("at_last", at_last, ["ids"], ["note", "preempt me", 1], ["await_note", "preempt on"])
    demo.await_note("preempt me")
    container = demo.running(call)
    demo.cloud.preempt(container["task_id"], grace_s=10)
    wait_until(lambda: "preempted" in demo.notes)
    demo.notes["preempt on"] = True
    call_id, input_id, task_id = call.get(timeout=20)[0]
    assert (call_id, input_id) == (call.object_id, container["input_id"])
    assert task_id != container["task_id"]
    assert demo.notes["preempted"] == 2


def test_a_preempted_container_that_does_not_end_is_killed(demo: Demo) -> None:
    at_last = [["await_note", "never said"]]
    call = demo.spawn("at_last", at_last, ["note", "stubborn", 1], ["linger", 60])
    demo.await_note("stubborn")
    task_id = demo.running(call)["task_id"]
    demo.cloud.preempt(task_id, grace_s=0.5)
    demo.cloud.wait_for_container(lambda found: found["call_id"] == call.object_id and found["task_id"] != task_id)
    call.cancel(terminate_containers=True)


def test_a_call_that_takes_too_long_fails(demo: Demo) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError, match="hit its timeout of 1s"):
        demo.spawn("short", ["linger", 60]).get(timeout=20)


def test_a_call_goes_on_while_the_control_plane_is_away(demo: Demo) -> None:
    call = demo.spawn("plain", ["note", "before", 1], ["await_note", "come back"], ["ids"])
    demo.await_note("before")
    demo.cloud.go_away(3)
    with pytest.raises(modal.exception.Error):
        call.get(timeout=20)

    def is_back() -> bool:
        try:
            demo.notes["come back"] = True
        except modal.exception.Error:
            return False
        return True

    wait_until(is_back)
    assert demo.call(call.object_id).get(timeout=20)[2][0] == call.object_id


@pytest.mark.soak
def test_containers_are_kept_as_the_autoscaler_is_told(demo: Demo) -> None:
    demo.end_containers("plain")
    function = demo.function("plain")
    function.autoscaler.update(min_containers=2)
    assert function.autoscaler.settings().min_containers == 2
    wait_until(lambda: len([one for one in demo.cloud.containers("idle") if one["function"] == "plain"]) == 2)
    function.autoscaler.update(min_containers=0, scaledown_window=2)
    wait_until(lambda: not [one for one in demo.cloud.containers() if one["function"] == "plain"])


def test_one_container_at_most_runs_one_call_after_the_other(demo: Demo) -> None:
    calls = [demo.spawn("single", ["ids"], ["linger", 0.1]) for _ in range(3)]
    assert len({call.get(timeout=20)[0][2] for call in calls}) == 1
    assert demo.function("single").get_current_stats().num_total_runners == 1


def test_a_container_that_stops_fetching_leaves_the_rest_to_another(demo: Demo) -> None:
    calls = [demo.spawn("single", ["stop_fetching"], ["ids"], ["linger", 0.1]) for _ in range(2)]
    first, second = [call.get(timeout=20)[1][2] for call in calls]
    assert first != second


def test_logs_can_be_fetched_by_call_and_followed(demo: Demo) -> None:
    demo.function("plain").remote(["say", "somebody else's"])
    app = modal.App.lookup("demo", client=demo.client)
    heard: list[str] = []
    begun = threading.Event()

    def follow() -> None:
        for entry in app.logs.stream(timeout=5):
            heard.append(entry.message.strip())
            begun.set()
            if "the end" in heard:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    while not begun.wait(0.2):
        demo.function("plain").remote(["say", "is anybody there"])
    # Two pipes: what is said in one and the other at the same moment has no order.
    pause = ["linger", 0.1]
    call = demo.spawn("plain", ["say", "to all"], pause, ["complain", "aloud"], pause, ["say", "the end"])
    call.get(timeout=20)
    follower.join(20)
    assert heard[-3:] == ["to all", "aloud", "the end"]
    since = datetime.now(UTC) - timedelta(minutes=5)
    found = list(call.logs.fetch(since=since))
    assert [(entry.message.strip(), entry.source) for entry in found] == [
        ("to all", "stdout"),
        ("aloud", "stderr"),
        ("the end", "stdout"),
    ]
    assert [entry.message.strip() for entry in call.logs.fetch(since=since, source="stderr")] == ["aloud"]
    demo.cloud.do("forget_logs")
    assert list(call.logs.fetch(since=since)) == []


def test_another_gpu_is_another_pool(demo: Demo) -> None:
    usual = demo.box()().run.remote(["ids"])["results"][0][2]
    other = demo.box().with_options(gpu="H100:2", scaledown_window=30)().run.remote(["ids"])["results"][0][2]
    gpus = {found["task_id"]: found["gpu"] for found in demo.cloud.containers(None)}
    assert (gpus[usual], gpus[other]) == ("L40S", "H100:2")
    again = demo.box().with_options(gpu="H100:2", scaledown_window=30)().run.remote(["ids"])
    assert (again["runs"], again["results"][0][2]) == (2, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpu": "L41S"}, "Unknown GPU type: 'L41S'"),
        ({"timeout": 86_401}, "at most 86400"),
        ({"gpu": "T4", "nonpreemptible": True}, "nonpreemptible"),
    ],
)
def test_what_modal_refuses_is_refused(demo: Demo, options: dict[str, Any], words: str) -> None:
    app = modal.App("refused", include_source=False)
    app.function(name="refused", **options)(sys.modules[PACKAGE].perform)
    with pytest.raises(modal.exception.InvalidError, match=words):
        app.deploy(client=demo.client)
    with pytest.raises(modal.exception.NotFoundError):
        modal.App.lookup("refused", client=demo.client)


def test_secrets_have_the_keys_they_must_have(demo: Demo) -> None:
    modal.Secret.objects.create("keys", {"ONE": "1"}, client=demo.client)
    with pytest.raises(modal.exception.ConflictError, match="TWO"):
        modal.Secret.from_name("keys", required_keys=["ONE", "TWO"], client=demo.client).hydrate()
    secret = modal.Secret.from_name("keys", client=demo.client)
    secret.update({"TWO": "2"})
    modal.Secret.from_name("keys", required_keys=["ONE", "TWO"], client=demo.client).hydrate()
    with pytest.raises(modal.exception.NotFoundError):
        modal.Secret.from_name("no-keys", client=demo.client).hydrate()
    with_secret = demo.function("plain").with_options(secrets=[secret])
    assert with_secret.remote(["environ", "ONE"], ["environ", "TWO"]) == ["1", "2"]


def test_results_expire(demo: Demo) -> None:
    call = demo.spawn("plain", ["ids"])
    call.get(timeout=20)
    demo.cloud.do("expire_results")
    with pytest.raises(modal.exception.OutputExpiredError):
        demo.call(call.object_id).get(timeout=1)


def test_a_failure_before_and_a_lost_answer_after(demo: Demo) -> None:
    demo.cloud.do("fail", rpc="FunctionMap", times=2)
    assert demo.spawn("plain", ["count", "failed before"]).get(timeout=20) == [1]
    demo.cloud.do("lose_answer", rpc="FunctionMap")
    demo.spawn("plain", ["count", "lost after"]).get(timeout=20)
    # Told twice under one key, done once.
    assert demo.notes["lost after"] == 1


@pytest.mark.parametrize("version", [1, 2])
def test_clients_put_list_read_and_remove_files(demo: Demo, tmp_path: Path, version: int) -> None:
    volume = modal.Volume.from_name(f"files-{version}", version=version, create_if_missing=True, client=demo.client)
    data = os.urandom(9 * 1024 * 1024)
    (tmp_path / "large").write_bytes(data)
    with volume.batch_upload() as batch:
        batch.put_file(tmp_path / "large", "/folder/large")
        batch.put_file(tmp_path / "large", "/other")
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(tmp_path / "large", "/other")
    assert [(entry.path, entry.type.name) for entry in volume.listdir("/")] == [
        ("folder", "DIRECTORY"),
        ("other", "FILE"),
    ]
    assert [(entry.path, entry.size) for entry in volume.listdir("folder")] == [("folder/large", len(data))]
    assert b"".join(volume.read_file("folder/large")) == data
    with (tmp_path / "back").open("wb") as file:
        volume.read_file_into_fileobj("folder/large", file)
    assert (tmp_path / "back").read_bytes() == data
    volume.remove_file("folder", recursive=True)
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("folder/large"))
    assert [entry.path for entry in volume.listdir("/", recursive=True)] == ["other"]


def test_blocks_can_come_slowly(demo: Demo, tmp_path: Path) -> None:
    volume = modal.Volume.from_name("slow", version=2, create_if_missing=True, client=demo.client)
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    with volume.batch_upload() as batch:
        batch.put_file(tmp_path / "file", "file")
    demo.cloud.do("slow_blocks", bytes_per_s=20_000)
    begun = time.monotonic()
    assert len(b"".join(volume.read_file("file"))) == 10_000
    demo.cloud.do("slow_blocks", bytes_per_s=0)
    assert time.monotonic() - begun > 0.4


def test_dicts(demo: Demo) -> None:
    found = modal.Dict.from_name("words", create_if_missing=True, client=demo.client)
    assert found.put("a", 1, skip_if_exists=True)
    assert not found.put("a", 2, skip_if_exists=True)
    found.update(b=[2], c=None)
    assert (found["a"], found.len(), "c" in found, "d" in found) == (1, 3, True, False)
    assert sorted(found.items(), key=str) == [("a", 1), ("b", [2]), ("c", None)]
    assert (found.pop("b"), found.get("b"), sorted(found.keys())) == ([2], None, ["a", "c"])
    found.clear()
    assert found.len() == 0


def test_a_wrong_token_and_a_wrong_environment(demo: Demo) -> None:
    with pytest.raises(modal.exception.AuthError):
        modal.App.lookup("demo", client=connect(demo.cloud, token_id="ak-somebody"))
    with pytest.raises(modal.exception.NotFoundError, match="nowhere"):
        modal.App.lookup("demo", client=demo.client, environment_name="nowhere")


def test_what_keeps_a_container_from_starting_reaches_the_caller(demo: Demo) -> None:
    broken = modal.Cls.from_name("demo", "BrokenBox", client=demo.client)
    with pytest.raises(LookupError, match="no such model"):
        broken().run.spawn().get(timeout=20)


def test_workspace_rates_and_tags(demo: Demo) -> None:
    workspace = modal.Workspace.from_context(client=demo.client)
    rates = workspace.billing.rates()
    assert rates["gpu_hour_cost_l40s"] > 1
    app = modal.App.lookup("demo", client=demo.client)
    app.set_tags({"project": "other"})
    assert app.get_tags() == {"project": "other"}


def test_everything_asked_is_on_record(demo: Demo) -> None:
    call = demo.spawn("plain", ["ids"])
    call.get(timeout=20)
    last = demo.cloud.requests("FunctionMap")[-1]
    assert last["caller"] == "client"
    assert last["body"]["function_call_invocation_type"] == "FUNCTION_CALL_INVOCATION_TYPE_ASYNC"
    box = [one for one in demo.cloud.requests("FunctionCreate") if one["body"]["function"]["function_name"] == "Box.*"]
    assert box[0]["body"]["function"]["resources"]["gpu_config"] == {"count": 1, "gpu_type": "L40S"}
    journal = (demo.cloud.folder / "requests.jsonl").read_text().splitlines()
    assert json.loads(journal[0])["rpc"] == demo.cloud.requests()[0]["rpc"]
    assert {one["caller"] for one in demo.cloud.requests("ContainerHello")} <= {
        one["task_id"] for one in demo.cloud.containers(None)
    }


def test_a_new_deployment_lets_the_old_one_finish(demo: Demo, demo_code: Any) -> None:
    old_id = demo.function("single").hydrate().object_id
    call = demo.spawn("single", ["note", "old runs", 1], ["await_note", "new is there"], ["ids"])
    demo.await_note("old runs")
    deploy(demo.client, demo_code)
    new = demo.function("single")
    assert new.hydrate().object_id == old_id
    demo.notes["new is there"] = True
    old_task = call.get(timeout=20)[2][2]
    assert new.remote(["ids"])[0][2] != old_task
    demo.cloud.wait_for_container(lambda found: found["task_id"] == old_task and found["state"] == "ended")


@pytest.mark.soak
def test_the_command_line_of_modal_works_too(demo: Demo) -> None:
    task_id = demo.function("plain").remote(["ids"])[0][2]
    demo.box()().run.remote()
    environ = {**os.environ, **demo.cloud.environ}
    commands = {
        "containers": ["container", "list", "--json"],
        "apps": ["app", "list", "--json"],
        "calls": ["function", "calls", "demo/plain", "--json"],
        "box calls": ["function", "calls", "demo/Box.*", "--all-variants", "--since", "1h", "--json"],
        "token": ["token", "info"],
        "environments": ["environment", "list", "--json"],
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "modal", *argv], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name, argv in commands.items()
    }
    said = {name: process.communicate(timeout=60) for name, process in started.items()}
    assert [process.returncode for process in started.values()] == [0] * len(commands), said
    listed = {one["container_id"] for one in json.loads(said["containers"][0])}
    # One that waits for nothing may have ended before Modal's command line had started.
    assert task_id in {one["task_id"] for one in demo.cloud.containers(None)} >= listed != set()
    assert [one["state"] for one in json.loads(said["apps"][0]) if one["description"] == "demo"] == ["deployed"]
    assert json.loads(said["calls"][0])[0]["status"] == "success"
    assert {one["status"] for one in json.loads(said["box calls"][0])} == {"success"}
    assert b"double" in said["token"][0]
    assert [one["name"] for one in json.loads(said["environments"][0])] == ["main"]


def test_containers_end_with_the_double_even_if_it_is_killed(
    tmp_path: Path, modal_python: Path, demo_code: Any
) -> None:
    cloud = start_cloud(tmp_path / "cloud", modal_python, is_flat=False)
    demo = Demo(cloud, connect(cloud), deploy(connect(cloud), demo_code))
    call = demo.spawn("plain", ["note", "runs", 1], ["linger", 60])
    demo.await_note("runs")
    pid = demo.running(call)["pid"]
    assert psutil.pid_exists(pid)
    (double,) = [found for found in psutil.Process().children() if str(tmp_path / "cloud") in " ".join(found.cmdline())]
    double.send_signal(signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), 5)
    cloud.stop()


def test_stopping_an_app_ends_its_containers_and_calls(tmp_path: Path, modal_python: Path, demo_code: Any) -> None:
    cloud = start_cloud(tmp_path / "cloud", modal_python, is_flat=False)
    try:
        client = connect(cloud)
        demo = Demo(cloud, client, deploy(client, demo_code))
        call = demo.spawn("plain", ["note", "runs", 1], ["linger", 60])
        demo.await_note("runs")
        modal.App.lookup("demo", client=client).stop()
        with pytest.raises(modal.exception.RemoteError):
            call.get(timeout=5)
        wait_until(lambda: not cloud.containers())
        with pytest.raises(modal.exception.NotFoundError):
            modal.App.lookup("demo", client=client)
    finally:
        cloud.stop()


def test_without_namespaces_volumes_are_where_the_environment_says(
    tmp_path: Path, modal_python: Path, demo_code: Any
) -> None:
    cloud = start_cloud(tmp_path / "cloud", modal_python, is_flat=True)
    try:
        client = connect(cloud)
        demo = Demo(cloud, client, deploy(client, demo_code))
        demo.function("plain").remote(["write", "flat", "1"], ["commit"])
        assert (cloud.volume_folder("demo-out") / "flat").read_text() == "1"
        (cloud.folder / "buckets" / "cold" / "in").mkdir()
        (cloud.folder / "buckets" / "cold" / "in" / "flat").write_text("2")
        assert demo.function("cold").remote(["read", "flat"]) == ["2"]
        found = demo.function("plain").remote(["hold", "flat"], ["reload"], ["let_go"], ["reload"])
        assert "there are open files" in found[1]
        assert found[3] is None
        call = demo.spawn("at_last", [["write", "saved", "1"], ["commit"]], ["note", "runs", 1], ["linger", 60])
        demo.await_note("runs")
        cloud.preempt(demo.running(call)["task_id"])
        wait_until((cloud.volume_folder("demo-out") / "saved").exists)
        call.cancel(terminate_containers=True)
    finally:
        cloud.stop()
    assert "Traceback" not in cloud.log


def test_the_interpreter_of_containers_has_modal_and_little_else(modal_python: Path) -> None:
    listed = subprocess.run(
        [modal_python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True
    )
    names = {one["name"].lower() for one in json.loads(listed.stdout)}
    assert "modal" in names
    assert not names & {"comfymodal", "pydantic", "pytest", "torch"}
    assert shutil.which("python", path=str(modal_python.parent))
