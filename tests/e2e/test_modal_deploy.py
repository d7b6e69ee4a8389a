"""What a deploy asks Modal for, what it refuses before, and what drifts from the project file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import WORKFLOWS
from tests.e2e.modal_world import ModalCli, run_modal, write_project

MakeCli = Callable[..., ModalCli]

WHOLE = """\
  gpu: [L40S, A100-80GB]
  timeout: 40m
  boot_timeout: 5m
  min_containers: 0
  buffer_containers: 1
  snapshot: gpu
  secrets: [my-node-secret]
  env: {NODE_MODE: fast}
modal: {region: eu}
"""


def created(cli: ModalCli, function: str) -> dict[str, Any]:
    """The last request that created this function of the project."""
    found: list[dict[str, Any]] = [
        request["body"]
        for request in cli.cloud.requests("FunctionCreate")
        if _function(request["body"])["function_name"].startswith(function)
    ]
    return found[-1]


def _function(body: dict[str, Any]) -> dict[str, Any]:
    ranked = body.get("function_data", {}).get("ranked_functions")
    found: dict[str, Any] = ranked[0]["function"] if ranked else body.get("function") or body["function_data"]
    return found


def test_everything_in_the_project_file_reaches_modal(make_modal_cli: MakeCli) -> None:
    cli = make_modal_cli(max_containers=4, scaledown_window="90s", more=WHOLE)
    run_modal(cli.cloud, cli.environ, "secret", "create", "my-node-secret", "TOKEN=x")
    done = cli("deploy", "--yes", "--json")

    assert done.code == 0, done.stderr
    body = created(cli, "SnapshotRenderBox")
    ranked = body["function_data"]["ranked_functions"]
    cards = [item["function"]["resources"]["gpu_config"]["gpu_type"] for item in ranked]
    assert cards == ["L40S", "A100-80GB"]
    asked = _function(body) | body["function_data"]
    assert asked["timeout_secs"] == 2400
    assert asked["startup_timeout_secs"] == 360
    scaler = asked["autoscaler_settings"]
    assert (scaler["max_containers"], scaler["buffer_containers"], scaler["scaledown_window"]) == (4, 1, 90)
    assert scaler.get("min_containers", 0) == 0
    assert asked["retry_policy"]["retries"] == 2
    assert asked["checkpointing_enabled"] is True
    assert asked["experimental_options"] == {"enable_gpu_snapshot": "True"}
    assert asked.get("max_concurrent_inputs", 0) in (0, 1)
    mounts = {mount["mount_path"]: mount.get("read_only", False) for mount in asked["volume_mounts"]}
    assert mounts == {"/volumes/models": True, "/volumes/inputs": False, "/volumes/outputs": False}
    assert len(asked["secret_ids"]) == 1

    assert asked["scheduler_placement"]["regions"] == ["eu"]
    assert done.json["data"]["per_hour"] == "up to $3.38/h"
    # The workspace's own prices came along, and price what follows.
    rates = cli("costs", "rates", "--json").json["data"]
    assert (rates["source"], rates["region"]) == ("workspace", "eu")

    # What inspects and what keeps warm reads nothing of the operator's, and runs on no GPU.
    for name in ("inspect", "keep_warm"):
        other = _function(created(cli, name))
        assert not other.get("volume_mounts")
        assert not other.get("secret_ids")
        assert other["scheduler_placement"]["regions"] == ["eu"]
        assert not other.get("resources", {}).get("gpu_config", {}).get("gpu_type")
    tags = [request["body"]["tags"] for request in cli.cloud.requests("AppSetTags")][-1]
    assert tags == {
        "comfymodal.project": cli.project,
        "comfymodal.kind": "render",
        "comfymodal.fingerprint": done.json["data"]["fingerprint"],
    }


@pytest.mark.soak
def test_gpu_of_one_run_opens_a_pool_of_its_own(modal_cli: ModalCli) -> None:
    done = modal_cli("render", WORKFLOWS / "image.json", "--gpu", "a100-80gb", "--json")

    assert done.code == 0, done.stderr
    (asked,) = [request["body"] for request in modal_cli.cloud.requests("FunctionBindParams")][-1:]
    assert asked["function_options"]["resources"]["gpu_config"]["gpu_type"] == "A100-80GB"
    # GPU alone is another: everything else stays as it was deployed.
    assert not asked["function_options"].get("replace_volume_mounts")
    assert any(one["gpu"] == "A100-80GB" for one in modal_cli.cloud.containers(None))


@pytest.mark.soak
def test_drift_is_seen_named_and_asked_about(make_modal_cli: MakeCli) -> None:
    cli = make_modal_cli()
    assert cli("deploy", "--yes").code == 0
    write_project(cli.cwd, cli.project, more="  gpu: A100-80GB\n")

    unasked = cli("render", WORKFLOWS / "image.json", "--json")
    forbidden = cli("render", WORKFLOWS / "image.json", "--no-deploy", "--yes", "--json")
    plan = cli("deploy", "--dry-run", "--json")
    done = cli("render", WORKFLOWS / "image.json", "--yes", "--json")

    assert (unasked.code, forbidden.code, plan.code, done.code) == (4, 4, 0, 0), done.stderr
    assert "is not what comfymodal.yaml says" in unasked.error["message"]
    assert "comfymodal deploy" in forbidden.error["hint"]
    (change,) = [item for item in plan.json["data"]["changes"] if item["key"] != "comfymodal"]
    assert (change["key"], change["old"], change["new"]) == ("comfyui.gpu", "L40S", "A100-80GB")
    assert plan.json["data"]["build_minutes"] == 0
    again = cli("deploy", "--json")
    assert (again.code, again.json["data"]["status"]) == (0, "unchanged")


def test_a_deploy_that_is_unsound_is_not_taken_for_the_one_before(make_modal_cli: MakeCli) -> None:
    cli = make_modal_cli()
    assert cli("deploy", "--yes").code == 0
    sound = (cli.cwd / "comfymodal.yaml").read_text()
    (cli.cwd / "comfymodal.yaml").write_text(sound.replace("[--cpu,", "[--no-such-flag, --cpu,"))
    failed = cli("deploy", "--yes", "--json")
    (cli.cwd / "comfymodal.yaml").write_text(sound)
    forbidden = cli("render", WORKFLOWS / "image.json", "--no-deploy", "--json")

    assert (failed.code, forbidden.code) == (4, 4)
    assert "--no-such-flag" in failed.error["message"]
    assert "comfymodal deploy" in forbidden.error["hint"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("  gpu: L40\n", "did you mean L40S"),
        ("  gpu: H100:9\n", "more than one container takes"),
        ("  timeout: 25h\n", "24h"),
        ("  custom_nodes: [ComfyUI-VideoHelperSuite]\n", "lower-case"),
        ("  env: {HF_TOKEN: abc}\n", "secret"),
    ],
)
def test_what_modal_would_refuse_is_refused_here_with_its_line(make_modal_cli: MakeCli, more: str, words: str) -> None:
    cli = make_modal_cli(more=more)
    before = len(cli.cloud.requests())
    done = cli("deploy", "--yes")

    assert done.code == 3
    assert words in done.stderr
    assert "comfymodal.yaml:9:" in done.stderr
    assert len(cli.cloud.requests()) == before


def test_without_a_token_or_a_service_nothing_hangs(make_modal_cli: MakeCli) -> None:
    cli = make_modal_cli()
    nobody = ModalCli(
        cli.cwd, {key: value for key, value in cli.environ.items() if not key.startswith("MODAL_TOKEN")}, cli.cloud, ""
    )
    nowhere = ModalCli(cli.cwd, {**cli.environ, "MODAL_SERVER_URL": "http://127.0.0.1:9"}, cli.cloud, "")

    no_token = nobody("render", WORKFLOWS / "image.json", "--json", timeout_s=20)
    no_service = nowhere("render", WORKFLOWS / "image.json", "--json", timeout_s=20)
    wrong = ModalCli(cli.cwd, {**cli.environ, "MODAL_TOKEN_ID": "ak-other"}, cli.cloud, "")
    bad_token = wrong("render", WORKFLOWS / "image.json", "--json", timeout_s=20)

    assert (no_token.code, no_service.code, bad_token.code) == (4, 5, 4)
    assert "modal token new" in no_token.error["hint"]
    assert "does not answer" in no_service.error["message"]
    assert "token" in bad_token.error["hint"]


def test_another_workspace_is_refused(make_modal_cli: MakeCli) -> None:
    cli = make_modal_cli(more="modal: {workspace: somebody-else}\n")
    done = cli("deploy", "--yes", "--json")

    assert done.code == 4
    assert "somebody-else" in done.error["message"]
