"""Where the values of secrets come from, and that nothing shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.errors import InputFileError
from comfymodal.operations.setup import Values, set_hint
from comfymodal.targets.modal.known_secrets import known_secret, secret_names

B2 = known_secret("b2-credentials")
SLACK = known_secret("slack-credentials")


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_environment_wins_over_the_file_key_by_key(tmp_path: Path) -> None:
    folder = written(tmp_path, "AWS_ACCESS_KEY_ID=from-file\nAWS_SECRET_ACCESS_KEY='also # from file'\nOTHER=x\n")
    found = Values.read(folder, {"AWS_ACCESS_KEY_ID": "from-environment"}).find(B2)

    assert found.values == {
        "AWS_ACCESS_KEY_ID": "from-environment",
        "AWS_SECRET_ACCESS_KEY": "also # from file",
    }
    assert (found.missing, found.source) == ((), "the environment and .env")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        pytest.param("", B2.keys, id="empty file"),
        pytest.param("AWS_ACCESS_KEY_ID=\nAWS_SECRET_ACCESS_KEY\n", B2.keys, id="keys without values"),
        pytest.param("export AWS_ACCESS_KEY_ID=a\n", ("AWS_SECRET_ACCESS_KEY",), id="half"),
        pytest.param("# AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n", ("AWS_ACCESS_KEY_ID",), id="a comment"),
    ],
)
def test_keys_without_a_value_are_missing(tmp_path: Path, text: str, missing: tuple[str, ...]) -> None:
    assert Values.read(written(tmp_path, text), {}).find(B2).missing == missing


def test_an_empty_variable_does_not_hide_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path, "SLACK_BOT_TOKEN=from-file\n")
    found = Values.read(folder, {"SLACK_BOT_TOKEN": ""}).find(SLACK)

    assert (found.values, found.missing, found.source) == ({"SLACK_BOT_TOKEN": "from-file"}, (), ".env")


def test_what_is_more_than_needed_is_taken_along(tmp_path: Path) -> None:
    found = Values.read(tmp_path, {"SLACK_BOT_TOKEN": "t", "SLACK_ERROR_CHANNEL": "C1"}).find(SLACK)

    assert dict(found.values) == {"SLACK_BOT_TOKEN": "t", "SLACK_ERROR_CHANNEL": "C1"}


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"HF_TOKEN=\xff\xfe\n")
    with pytest.raises(InputFileError, match=r"\.env is not UTF-8 text") as caught:
        Values.read(tmp_path, {})

    assert caught.value.hint


def test_values_are_never_printed(tmp_path: Path) -> None:
    values = Values.read(written(tmp_path, "HF_TOKEN=hush\n"), {"SLACK_BOT_TOKEN": "hush"})
    found = values.find(known_secret("hf-credentials"))

    assert "hush" not in f"{values!r} {values} {found!r} {found}"


def test_every_secret_is_looked_at_once_and_hints_name_its_keys() -> None:
    assert secret_names(("mine", "hf-credentials")) == (
        "b2-credentials",
        "hf-credentials",
        "civitai-credentials",
        "slack-credentials",
        "mine",
    )
    assert set_hint(known_secret("hf-credentials")) == (
        "export HF_TOKEN, or write it into .env here; then: comfymodal setup"
    )
    assert set_hint(known_secret("mine")).startswith("modal secret create mine KEY=VALUE")
