"""`setup` and `doctor` against the control plane double, by the command line alone."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from comfymodal.operations.doctor import open_patient
from tests.conftest import ENGINE_DATA, Cli, Done
from tests.doubles.modal_cloud.client import REPOSITORY, ModalCloud, container_python

ROLES = ("models", "inputs", "outputs")
KNOWN = ("b2-credentials", "hf-credentials", "civitai-credentials", "slack-credentials")
VALUES = {
    "AWS_ACCESS_KEY_ID": "value-of-the-key-id",
    "AWS_SECRET_ACCESS_KEY": "value-of-the-key",
    "HF_TOKEN": "value-of-hf",
    "CIVITAI_TOKEN": "value-of-civitai",
}
PROOFS = ["app", "mounts", "models", "commit", "secret hf-credentials", "dict", "cancel", "end"]

SLEEPER = """
import modal
app = modal.App("comfymodal-portraits-render", tags={"comfymodal.fingerprint": "%s"}, include_source=False)
@app.function(serialized=True)
def inspect(): pass
"""

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def is_flat() -> bool:
    """Whether containers shall have no file system view of their own; a test may say so."""
    return False


@pytest.fixture
def cloud(tmp_path: Path, is_flat: bool) -> Iterator[ModalCloud]:
    python = container_python(ENGINE_DATA / "containers")
    started = ModalCloud.start(tmp_path / "cloud", container_python=python, hide=[REPOSITORY], is_flat=is_flat)
    yield started
    started.stop()


@pytest.fixture
def modal_cli(cloud: ModalCloud, engineless_cli: Cli) -> Cli:
    """The command line with a token of the double and a project on Modal that needs a Hugging Face token."""
    write_project(engineless_cli)
    return Cli(engineless_cli.cwd, {**engineless_cli.environ, **cloud.environ})


def write_project(cli: Cli, **more: Any) -> None:
    project = {
        "version": 1,
        "project": "portraits",
        "target": "modal",
        "comfyui": {"secrets": ["hf-credentials"]},
        **more,
    }
    (cli.cwd / "comfymodal.yaml").write_text(yaml.safe_dump(project))


def test_setup_makes_what_is_missing_once_and_proves_it(modal_cli: Cli, cloud: ModalCloud) -> None:
    (modal_cli.cwd / ".env").write_text("".join(f"{key}={value}\n" for key, value in VALUES.items()))
    cli = with_env(modal_cli, SLACK_BOT_TOKEN="value-of-slack")
    planned = cli("setup", "--dry-run", "--json")
    asked_to_create = creations(cloud)
    first = cli("setup", "--json")
    made = creations(cloud)
    again = cli("setup", "--json")
    read = cli("setup")

    assert (planned.code, asked_to_create) == (0, [])
    assert set(actions(planned).values()) == {"would create"}
    assert planned.json["data"]["next_command"] == "comfymodal setup"
    assert first.code == 0, first.stderr
    assert set(actions(first).values()) == {"created"}
    assert {row["name"]: row["source"] for row in first.json["data"]["secrets"]} == {
        "b2-credentials": ".env",
        "hf-credentials": ".env",
        "civitai-credentials": ".env",
        "slack-credentials": "the environment",
    }
    assert [row["version"] for row in first.json["data"]["volumes"]] == [2, 2, 2]
    (notice,) = first.json["warnings"]
    assert "still calls version 2 of its volumes beta" in notice
    assert first.json["data"]["next_command"] == "comfymodal deploy"
    assert len(made) == 7
    # Nothing was made, or overwritten, the second time.
    assert creations(cloud) == made
    assert set(actions(again).values()) == {"kept"}
    assert again.json["warnings"] == []
    assert read.stdout.splitlines()[-1].split("\t")[:2] == ["next", "comfymodal deploy"]
    assert "volume\tcomfy-models\tkept\tversion 2, for models, 0 entries at the top\n" in read.stdout


def test_values_of_secrets_reach_modal_and_nothing_else(modal_cli: Cli, cloud: ModalCloud) -> None:
    cli = with_env(modal_cli, **VALUES)
    said = [cli(*words) for words in (["setup", "--dry-run"], ["setup", "--json"], ["setup"], ["doctor", "--json"])]
    cloud.do("fail", rpc="SecretGetOrCreate", status="INVALID_ARGUMENT", times=1)
    said.append(cli("setup", "--json-events"))
    sent = [request["body"].get("env_dict") for request in cloud.requests("SecretGetOrCreate")]

    assert {"HF_TOKEN": VALUES["HF_TOKEN"]} in sent
    for done in said:
        for value in [*VALUES.values(), cloud.environ["MODAL_TOKEN_SECRET"]]:
            assert value not in done.stdout + done.stderr
    for path in modal_cli.state.rglob("*"):
        assert not path.is_file() or b"value-of" not in path.read_bytes()


@pytest.mark.soak
def test_what_is_there_is_kept_as_it_is(modal_cli: Cli, cloud: ModalCloud) -> None:
    modal(modal_cli, "volume", "create", "comfy-models", "--version=1")
    modal(modal_cli, "secret", "create", "hf-credentials", "HF_TOKEN=theirs")
    modal(modal_cli, "secret", "create", "b2-credentials", "AWS_ACCESS_KEY_ID=theirs")
    before = creations(cloud)
    done = with_env(modal_cli, **VALUES)("setup", "--json")
    secrets = {row["name"]: row for row in done.json["data"]["secrets"]}

    assert done.code == 0
    assert actions(done)["comfy-models"] == "kept"
    assert done.json["data"]["volumes"][0]["version"] == 1
    assert "the volume comfy-models is one of version 1 and is kept as it is" in done.json["warnings"][1]
    assert secrets["hf-credentials"]["action"] == "kept"
    # Not needed by this project, so no error; still told.
    assert (secrets["b2-credentials"]["action"], secrets["b2-credentials"]["missing"]) == (
        "lacks keys",
        ["AWS_SECRET_ACCESS_KEY"],
    )
    made = creations(cloud)[len(before) :]
    assert {request["body"]["deployment_name"] for request in made} == {
        "comfy-inputs",
        "comfy-outputs",
        "civitai-credentials",
    }
    assert cloud.requests("SecretUpdate") == []


@pytest.mark.parametrize("way", ["nobody set it", "lacks keys", "unknown"])
def test_a_secret_that_the_project_needs_ends_setup_with_4(modal_cli: Cli, way: str) -> None:
    name = "hf-credentials"
    if way == "lacks keys":
        modal(modal_cli, "secret", "create", name, "TOKEN=theirs")
    if way == "unknown":
        name = "mine"
        write_project(modal_cli, comfyui={"secrets": [name]})
    done = modal_cli("setup", "--json")
    row = next(row for row in done.json["data"]["secrets"] if row["name"] == name)
    checked = modal_cli("doctor", "--json")

    assert done.code == 4
    assert row["is_needed"] is True
    assert row["action"] == ("lacks keys" if way == "lacks keys" else "not set")
    assert row["hint"]
    # Everything else was made all the same.
    assert {action for name, action in actions(done).items() if name.startswith("comfy-")} == {"created"}
    assert (checked.code, rows(checked)[f"secret {name}"]["status"]) == (4, "fail")
    assert rows(checked)[f"secret {name}"]["hint"]


def test_a_volume_of_version_1_is_made_when_the_project_says_so(modal_cli: Cli, cloud: ModalCloud) -> None:
    write_project(modal_cli, volumes={role: {"version": 1} for role in ROLES}, comfyui={"secrets": []})
    done = modal_cli("setup", "--json")

    assert done.code == 0
    assert [row["version"] for row in done.json["data"]["volumes"]] == [1, 1, 1]
    assert done.json["warnings"] == []
    assert {request["body"]["version"] for request in creations(cloud)} == {"VOLUME_FS_VERSION_V1"}


@pytest.mark.parametrize(
    ("project", "environ", "code", "said"),
    [
        pytest.param({}, {"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}, 4, "no Modal token", id="no token"),
        pytest.param({}, {"MODAL_TOKEN_ID": "ak-other"}, 4, "cannot ask for the workspace", id="wrong token"),
        pytest.param({"modal": {"workspace": "other"}}, {}, 4, "the project wants other", id="other workspace"),
        pytest.param({"modal": {"environment": "dev"}}, {}, 4, "has no environment dev", id="no such environment"),
        pytest.param({}, {"MODAL_SERVER_URL": "http://127.0.0.1:{closed}"}, 5, "does not answer", id="no service"),
        pytest.param({"target": "local"}, {}, 2, "renders on this machine", id="local project"),
    ],
)
def test_setup_says_at_once_why_modal_cannot_be_used(
    modal_cli: Cli, project: dict[str, Any], environ: dict[str, str], code: int, said: str
) -> None:
    write_project(modal_cli, **project)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        filled = {name: value.format(closed=taken.getsockname()[1]) for name, value in environ.items()}
        began = time.monotonic()
        done = with_env(modal_cli, **filled)("setup", "--json")

    assert time.monotonic() - began < 15
    assert (done.code, done.error["hint"] is not None) == (code, True)
    assert said in done.error["message"]


def test_doctor_finds_nothing_wrong_after_setup(modal_cli: Cli) -> None:
    with_env(modal_cli, **VALUES)("setup")
    done = modal_cli("doctor", "--json")
    found = rows(done)

    assert done.code == 0, done.stdout
    assert list(found) == [
        *("modal", "token", "service", "workspace", "environment", "clock"),
        *(f"volume comfy-{role}" for role in ROLES),
        *(f"secret {name}" for name in KNOWN),
        *("app", "train app", "engine here", "output folder"),
    ]
    assert {name: row["status"] for name, row in found.items() if row["status"] != "ok"} == {
        "secret slack-credentials": "not used",
        "app": "warn",
        "train app": "not used",
        "engine here": "not used",
    }
    assert found["token"]["what"] == "from MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
    assert found["workspace"]["what"] == "double"
    assert found["app"]["hint"] == "comfymodal deploy"
    assert done.json["data"]["is_live"] is False


def test_doctor_names_everything_that_is_missing_each_with_its_remedy(modal_cli: Cli) -> None:
    (modal_cli.cwd / "outputs").touch()
    done = modal_cli("doctor", "--json")
    found = rows(done)
    failed = {name for name, row in found.items() if row["status"] == "fail"}

    assert done.code == 4
    assert failed == {*(f"volume comfy-{role}" for role in ROLES), "secret hf-credentials", "output folder"}
    assert all(found[name]["hint"] for name in failed)
    assert found["volume comfy-models"]["hint"] == "comfymodal setup"
    assert "HF_TOKEN" in found["secret hf-credentials"]["hint"]


def test_doctor_goes_on_where_modal_cannot_be_reached(modal_cli: Cli, tmp_path: Path) -> None:
    profiles = tmp_path / "modal.toml"
    profiles.write_text('[work]\ntoken_id = "ak-x"\ntoken_secret = "as-hush"\nactive = true\n[home]\n')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        down = {"MODAL_SERVER_URL": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        broken = without(modal_cli, "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
        done = with_env(broken, MODAL_CONFIG_PATH=str(profiles), **down)("doctor", "--json")
    found = rows(done)

    assert done.code == 5
    assert found["token"]["what"] == f"profile work of {profiles}"
    assert (found["service"]["status"], bool(found["service"]["hint"])) == ("fail", True)
    assert found["workspace"]["what"] == "cannot be told without: service"
    skipped = [name for name, row in found.items() if row["status"] == "skipped"]
    assert len(skipped) == len(found) - 5
    assert found["output folder"]["status"] == "ok"
    assert "as-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "row", "said"),
    [
        pytest.param("[work\n", "modal", "Modal's client does not start", id="no TOML"),
        pytest.param("token_id = 'ak-x'\n", "modal", "outside of a profile", id="no section"),
        pytest.param("[work]\ntoken_id = ak-x\n", "modal", "cannot be read", id="no quotes"),
        pytest.param("[a]\ntoken_id='ak-x'\n[b]\ntoken_id='ak-y'\n", "token", "none is active", id="none active"),
        pytest.param("", "token", "no Modal token", id="empty"),
    ],
)
def test_doctor_survives_a_broken_modal_profile(modal_cli: Cli, tmp_path: Path, text: str, row: str, said: str) -> None:
    profiles = tmp_path / "modal.toml"
    profiles.write_text(text)
    cli = with_env(without(modal_cli, "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"), MODAL_CONFIG_PATH=str(profiles))
    done = cli("doctor", "--json")
    found = rows(done)

    assert done.code == 4
    assert (found[row]["status"], bool(found[row]["hint"])) == ("fail", True)
    assert said in found[row]["what"]
    assert found["output folder"]["status"] == "ok"


def test_doctor_of_a_local_project_does_not_use_modal(engineless_cli: Cli) -> None:
    done = engineless_cli("doctor", "--json")
    live = engineless_cli("doctor", "--live", "--yes", "--json")
    found = rows(done)

    assert done.code == 0
    assert [name for name, row in found.items() if row["status"] == "not used"] == [
        *("modal", "token", "service", "workspace", "environment", "clock", "volumes", "secrets", "app", "train app")
    ]
    assert (found["engine here"]["status"], found["engine here"]["hint"]) == ("warn", "comfymodal engine install")
    assert (live.code, live.error["code"]) == (2, "usage")


def test_doctor_compares_what_is_deployed_with_the_project(modal_cli: Cli, tmp_path: Path) -> None:
    from comfymodal.targets.modal.plan import fingerprint

    with_env(modal_cli, **VALUES)("setup")
    spec = open_patient(None, environ=modal_cli.environ, cwd=modal_cli.cwd).spec
    assert spec is not None
    found = []
    for deployed in ("0" * 16, fingerprint(spec)):
        (tmp_path / "app.py").write_text(SLEEPER % deployed)
        modal(modal_cli, "deploy", str(tmp_path / "app.py"))
        found.append(rows(modal_cli("doctor", "--json"))["app"])

    assert [row["status"] for row in found] == ["warn", "ok"]
    assert (found[0]["what"], found[0]["hint"]) == (
        "what is deployed differs from the project file",
        "comfymodal deploy",
    )
    assert fingerprint(spec) in found[1]["what"]


def test_live_proves_in_a_container_what_only_an_account_can_tell(modal_cli: Cli, cloud: ModalCloud) -> None:
    if cloud.is_flat:
        pytest.skip("needs root and unshare: read-only mounts")
    with_env(modal_cli, **VALUES)("setup")
    done = modal_cli("doctor", "--live", "--yes", "--json")
    found = rows(done)
    asked = [request["body"] for request in cloud.requests("FunctionCreate")]
    functions = [body["function"] for body in asked if body.get("function")]

    assert done.code == 0, (done.stdout, done.stderr, cloud.log)
    assert [name for name in found if name.startswith("live")] == [f"live: {name}" for name in PROOFS]
    assert {row["status"] for name, row in found.items() if name.startswith("live")} == {"ok"}
    assert 0 < float(done.json["data"]["cost"]) < 0.05
    assert "$0.0552/h" in done.stderr
    (function,) = functions
    assert not function["resources"]["gpu_config"]
    assert {mount["mount_path"]: mount.get("read_only", False) for mount in function["volume_mounts"]} == {
        "/volumes/models": True,
        "/volumes/inputs": False,
        "/volumes/outputs": False,
    }
    assert len(function["secret_ids"]) == 1
    # Nothing is left: no app, no file, no entry.
    assert len(cloud.requests("AppClientDisconnect")) == 1
    assert list(cloud.volume_folder("comfy-outputs").iterdir()) == []
    assert list(cloud.volume_folder("comfy-models").iterdir()) == []
    assert len(cloud.requests("DictPop")) == 1
    wait_until(lambda: not cloud.containers())


def test_live_starts_nothing_without_a_yes_or_with_something_missing(modal_cli: Cli, cloud: ModalCloud) -> None:
    missing = modal_cli("doctor", "--live", "--yes", "--json")
    with_env(modal_cli, **VALUES)("setup")
    unasked = modal_cli("doctor", "--live", "--json")

    assert (missing.code, rows(missing)["live"]["status"]) == (4, "skipped")
    assert rows(missing)["live"]["what"] == "cannot be told without: volume comfy-models"
    assert (unasked.code, rows(unasked)["live"]["status"]) == (4, "fail")
    assert "--yes" in rows(unasked)["live"]["hint"]
    assert unasked.json["data"]["cost"] is None
    assert cloud.requests("AppCreate") == []


@pytest.mark.soak
def test_a_proof_that_fails_is_told_and_the_others_are_made(modal_cli: Cli, cloud: ModalCloud) -> None:
    with_env(modal_cli, **VALUES)("setup")
    cloud.do("fail", rpc="VolumeCommit", status="PERMISSION_DENIED", times=1)
    done = modal_cli("doctor", "--live", "--yes", "--json")
    found = rows(done)

    assert done.code == 5
    assert {name for name, row in found.items() if row["status"] == "fail"} - {"live: models"} == {"live: commit"}
    assert found["live: commit"]["what"].startswith("the container could not commit: PermissionDeniedError")
    assert found["live: commit"]["hint"]
    assert found["live: cancel"]["status"] == "ok"


@pytest.mark.parametrize("is_flat", [True])
def test_models_that_a_container_can_write_to_are_found_out(modal_cli: Cli, cloud: ModalCloud) -> None:
    # Without namespaces the double cannot mount anything read-only.
    with_env(modal_cli, **VALUES)("setup")
    done = modal_cli("doctor", "--live", "--yes", "--json")
    found = rows(done)

    assert done.code == 5
    assert {name for name, row in found.items() if row["status"] == "fail"} == {"live: models"}
    assert found["live: models"]["what"] == "a container can write to the models volume"
    assert found["live: models"]["hint"]
    assert list(cloud.volume_folder("comfy-models").iterdir()) == []


def test_an_app_that_cannot_run_is_a_row_too(modal_cli: Cli, cloud: ModalCloud) -> None:
    with_env(modal_cli, **VALUES)("setup")
    cloud.do("fail", rpc="FunctionCreate", status="RESOURCE_EXHAUSTED", times=1)
    done = modal_cli("doctor", "--live", "--yes", "--json")
    found = rows(done)

    assert (done.code, found["live: end"]["status"], bool(found["live: end"]["hint"])) == (5, "fail", True)
    assert found["live: end"]["what"].startswith("cannot prove anything in a container: ")
    assert "live: mounts" not in found
    assert float(done.json["data"]["cost"]) > 0


def test_a_no_at_the_terminal_starts_nothing_and_the_table_is_shown(modal_cli: Cli, cloud: ModalCloud) -> None:
    with_env(modal_cli, **VALUES)("setup")
    code, screen = at_terminal(modal_cli, "doctor", "--live", answer="n\n")

    assert code == 0, screen
    assert "at worst $0.0055" in screen
    assert re.search(r"^live +skipped +not started", screen, re.MULTILINE)
    assert re.search(r"^environment +ok +main", screen, re.MULTILINE)
    assert cloud.requests("AppCreate") == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_proof_ends_its_app(modal_cli: Cli, cloud: ModalCloud) -> None:
    with_env(modal_cli, **VALUES)("setup")
    cloud.do("hold_inputs", on=True)
    process = modal_cli.start("doctor", "--live", "--yes", "--json")
    wait_until(lambda: bool(cloud.requests("FunctionMap")))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, (out, err)
    assert json.loads(out)["errors"][0]["code"] == "cancelled"
    assert len(cloud.requests("AppClientDisconnect")) == 1


def with_env(cli: Cli, **more: str) -> Cli:
    return Cli(cli.cwd, {**cli.environ, **more})


def without(cli: Cli, *names: str) -> Cli:
    return Cli(cli.cwd, {name: value for name, value in cli.environ.items() if name not in names})


def modal(cli: Cli, *words: str) -> None:
    """Modal's own command line, as the guide's users have used it."""
    argv = [sys.executable, "-m", "modal", *words]
    done = subprocess.run(argv, cwd=cli.cwd, env=dict(cli.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def actions(done: Done) -> dict[str, str]:
    data = done.json["data"]
    return {row["name"]: row["action"] for row in [*data["volumes"], *data["secrets"]]}


def rows(done: Done) -> Rows:
    return {row["check"]: row for row in done.json["data"]["checks"]}


def creations(cloud: ModalCloud) -> list[dict[str, Any]]:
    """Requests that can make a named volume or a secret, or overwrite one."""
    asked = [*cloud.requests("VolumeGetOrCreate"), *cloud.requests("SecretGetOrCreate")]
    found = [request for request in asked if "object_creation_type" in request["body"]]
    return sorted(found, key=lambda request: float(request["at"]))


def at_terminal(cli: Cli, *words: str, answer: str) -> tuple[int, str]:
    """Run a command as a person does, with a terminal for everything; return its exit code and the screen."""
    reader, writer = pty.openpty()
    with subprocess.Popen(
        cli.argv(*words),
        cwd=cli.cwd,
        env={**cli.environ, "COLUMNS": "120", "TERM": "xterm"},
        stdin=writer,
        stdout=writer,
        stderr=writer,
    ) as process:
        os.close(writer)
        screen = b""
        try:
            while part := os.read(reader, 65536):
                screen += part
                if answer and screen.rstrip().endswith(b"[y/N]:"):
                    os.write(reader, answer.encode())
                    answer = ""
        except OSError:
            pass  # Linux tells the end of a terminal so
        finally:
            os.close(reader)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode())
    return process.returncode, plain.replace("\r\n", "\n")


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at, "did not happen in time"
        time.sleep(0.1)
