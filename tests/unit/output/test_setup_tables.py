"""What a person reads of `setup` and `doctor`."""

from __future__ import annotations

from comfymodal.operations.setup_results import CheckRow, DoctorReport, SecretRow, SetupDone, VolumeRow
from comfymodal.output.setup_tables import setup_table


def test_setup_ends_with_the_next_command() -> None:
    done = SetupDone(
        workspace="studio",
        environment="main",
        volumes=(
            VolumeRow("models", "comfy-models", "kept", 1, 12),
            VolumeRow("inputs", "comfy-inputs", "created", 2, 0),
        ),
        secrets=(
            SecretRow("b2-credentials", "created", ("K", "S"), (), ".env", False, None),
            SecretRow("hf-credentials", "kept", ("HF_TOKEN",), (), None, True, None),
            SecretRow("slack-credentials", "not set", ("T",), ("T",), None, False, "export T"),
            SecretRow("mine", "lacks keys", ("A", "B"), ("B",), None, True, "add B"),
        ),
        is_dry_run=False,
        next_command="comfymodal deploy",
        error=None,
        exit_code=0,
    )

    assert setup_table(done) == (
        ("", "name", "is", "what"),
        [
            ("account", "studio", "reached", "environment main"),
            ("volume", "comfy-models", "kept", "version 1, for models, 12 entries at the top"),
            ("volume", "comfy-inputs", "created", "version 2, for inputs"),
            ("secret", "b2-credentials", "created", "K, S, from .env"),
            ("secret", "hf-credentials", "kept", "HF_TOKEN"),
            ("secret", "slack-credentials", "not set", "not needed by this project: export T"),
            ("secret", "mine", "lacks keys", "B: add B"),
            ("next", "comfymodal deploy", "", ""),
        ],
    )


def test_doctor_tells_seconds_that_count_and_the_cost() -> None:
    checks = (
        CheckRow("token", "ok", "from X", None, 0.01),
        CheckRow("service", "fail", "no answer", "is the network up?", 3.0),
    )
    report = DoctorReport("modal", checks, True, "0.00012345", None, 5)

    assert setup_table(report) == (
        ("check", "is", "what", "do"),
        [
            ("token", "ok", "from X", ""),
            ("service", "fail", "no answer (3.0 s)", "is the network up?"),
            ("cost", "", "at most $0.0001, by the list price of a CPU container", ""),
        ],
    )


def test_other_results_have_no_table_here() -> None:
    assert setup_table(object()) is None
