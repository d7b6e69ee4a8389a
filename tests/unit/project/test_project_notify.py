"""Receivers of notifications in the project file: what is read, and that no secret can stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfymodal.project.schema import Receiver
from tests.unit.project.test_project_sync import load, refusal, refusals

NOTIFY = "version: 1\nnotify: {team: {%s}}\n"


def test_receivers_are_read_with_their_defaults(tmp_path: Path) -> None:
    text = (
        "version: 1\nnotify:\n"
        "  bot: {type: slack, token_env: SLACK_BOT_TOKEN, channel: C0123456789, on: [failed], min_seconds: 60}\n"
        "  hook: {type: slack, url_env: SLACK_WEBHOOK_URL}\n"
        "  other: {type: webhook, url_env: HOOK_URL, on: []}\n"
    )
    assert dict(load(tmp_path, text).settings.notify) == {
        "bot": Receiver(
            type="slack", token_env="SLACK_BOT_TOKEN", channel="C0123456789", on=("failed",), min_seconds=60
        ),
        "hook": Receiver(type="slack", url_env="SLACK_WEBHOOK_URL", on=("finished", "failed", "budget")),
        "other": Receiver(type="webhook", url_env="HOOK_URL", on=()),
    }


@pytest.mark.parametrize(
    ("entry", "key", "said"),
    [
        ("type: slack", "", "needs one of url_env (an incoming webhook) and token_env (a bot)"),
        ("type: slack, token_env: A, url_env: B", ".token_env", "needs one of url_env"),
        ("type: slack, token_env: A", ".token_env", "needs channel"),
        ("type: slack, url_env: A, channel: b", ".channel", "counts only for a bot (token_env)"),
        ("type: webhook", "", "needs url_env"),
        ("type: webhook, url_env: A, channel: b", ".channel", "counts only for a bot of type slack"),
        ("type: webhook, url_env: A, token_env: B", ".token_env", "counts only for a bot of type slack"),
        ("type: slack, url_env: https://example.com/x", ".url_env", "must be the name of an env var"),
        ("type: slack, token_env: A, channel: https://example.com/x", ".channel", "must be the id of a channel"),
        ("type: mail, url_env: A", ".type", "must be 'slack' or 'webhook', not \"mail\""),
        ("type: slack, url_env: A, on: [done]", ".on[0]", "must be 'finished', 'failed' or 'budget'"),
        ("type: slack, url_env: A, min_seconds: -1", ".min_seconds", "must be 0 to 1000000"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(entry: str, key: str, said: str, tmp_path: Path) -> None:
    place, message, _ = refusal(tmp_path, NOTIFY % entry)
    assert place.endswith(f" notify.team{key}")
    assert message.startswith(said)


@pytest.mark.parametrize("key", ["url", "webhook", "webhook_url", "token", "address", "secret"])
def test_a_secret_written_into_the_file_is_refused(key: str, tmp_path: Path) -> None:
    value = "https://hooks.slack.com/services/T000/B000/aBcDeFgH"
    found = refusals(tmp_path, NOTIFY % f"type: slack, url_env: A, {key}: '{value}'")
    assert [message for _, message, _ in found] == [
        "unknown key",
        "looks like a token or key; secrets are names, never values",
    ]
    assert "env" in str(found[0][2])
    assert value not in str(found)
