"""`notify` as an operator has it: a command, a Slack, a picture, a log; and a command that ends as without it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from PIL import Image

from tests.conftest import WORKFLOWS, Cli
from tests.doubles.slack import TOKEN, Slack, slack
from tests.e2e.modal_world import ModalCli

PROJECT = """version: 1
notify:
  team: {type: slack, token_env: SLACK_BOT_TOKEN, channel: renders}
  pager: {type: webhook, url_env: PAGER_URL}
"""


@pytest.fixture
def double() -> Iterator[Slack]:
    with slack() as made:
        yield made


@pytest.fixture
def told_cli(cli: Cli, double: Slack) -> Cli:
    """In a project that tells a bot, whose token is in `.env`, and a webhook."""
    (cli.cwd / "comfymodal.yaml").write_text(PROJECT)
    (cli.cwd / ".env").write_text(f"SLACK_BOT_TOKEN={TOKEN}\n")
    return Cli(cli.cwd, {**cli.environ, "SLACK_API_URL": double.api, "PAGER_URL": double.plain})


def test_a_render_is_told_with_its_picture(told_cli: Cli, double: Slack) -> None:
    done = told_cli("render", WORKFLOWS / "image.json", "--json")
    assert (done.code, done.json["warnings"]) == (0, [])
    (message,), (file,), (document,) = double.messages, double.files, double.documents
    assert done.run["id"] in message["text"]
    with Image.open(io.BytesIO(file["data"])) as image:
        assert image.format == "JPEG"
    names = [output["path"].rpartition("/")[2] for output in done.outputs]
    assert document["outputs"] == {"count": len(names), "names": names}
    assert file["title"] == names[0]
    assert document["run"]["status"] == "succeeded"


def test_a_render_that_fails_is_told_with_the_end_of_its_log(told_cli: Cli, double: Slack) -> None:
    done = told_cli("render", WORKFLOWS / "node_error.json", "--json")
    assert done.code == 1
    (document,) = double.documents
    assert document["event"] == "failed"
    assert document["error"]["message"] == done.error["message"]
    assert "Prompt executed in" in document["log_tail"].splitlines()[-1]
    assert len(double.messages) == 1


def test_a_render_ends_alike_when_nobody_can_be_told(told_cli: Cli, double: Slack) -> None:
    double.always = "cut"
    cli = Cli(told_cli.cwd, {**told_cli.environ, "PAGER_URL": ""})
    done = cli("render", WORKFLOWS / "image.json", "--json")
    assert done.code == 0
    assert len(done.outputs) == 1
    assert [warning.partition(": not told: ")[0] for warning in done.json["warnings"]] == [
        "notify pager",
        "notify team",
    ]
    assert "doubleSecret" not in done.stdout + done.stderr


def test_doctor_knows_who_is_told(told_cli: Cli, double: Slack) -> None:
    rows = {row["check"]: row["status"] for row in told_cli("doctor", "--json").json["data"]["checks"]}
    assert (rows["notify team"], rows["notify pager"]) == ("ok", "ok")
    assert double.asked == []
    rows = {row["check"]: row["status"] for row in told_cli("doctor", "--live", "--json").json["data"]["checks"]}
    assert (rows["live: notify team"], rows["live: notify pager"]) == ("ok", "ok")
    assert len(double.messages) == len(double.documents) == 1


@pytest.mark.soak
def test_a_detached_run_on_modal_is_told_by_the_list_that_sees_its_end(modal_cli: ModalCli, double: Slack) -> None:
    with (modal_cli.cwd / "comfymodal.yaml").open("a") as file:
        file.write("notify: {pager: {type: webhook, url_env: PAGER_URL}}\n")
    cli = replace(modal_cli, environ={**modal_cli.environ, "PAGER_URL": double.plain})
    begun = cli("render", WORKFLOWS / "node_error.json", "--detach", "--json")
    assert (begun.code, double.asked) == (0, []), begun.stderr
    give_up_at = time.monotonic() + 120
    while cli("runs", "list", "--json").json["data"]["runs"][0]["status"] == "running":
        assert time.monotonic() < give_up_at
    cli("runs", "list")
    (document,) = double.documents
    assert (document["event"], document["run"]["id"], document["run"]["gpu"]) == ("failed", begun.run["id"], "L40S")
    assert float(document["run"]["cost"]) > 0
    assert "Prompt executed in" in document["log_tail"]
