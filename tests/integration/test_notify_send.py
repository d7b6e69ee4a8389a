"""Messages over real connections, to a Slack that refuses what Slack refuses and fails in every way it can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from comfymodal.notify.message import Notification, Picture
from comfymodal.notify.send import Receiver, send
from comfymodal.notify.web import NotSentError
from tests.doubles.slack import CHANNEL_ID, TOKEN, Slack, slack

RUN = {
    "id": "261121-093012-k7f3",
    "kind": "render",
    "status": "succeeded",
    "target": "modal",
    "title": "a <cat> & a dog",
    "gpu": "L40S",
    "seconds": 83.2,
    "cost": "0.0451",
}
TOLD = Notification("finished", "cats", "2026-11-21T09:30:12.000Z", run=RUN, cost_text="$0.0451", next="comfymodal x")
PICTURE = Picture("cat.jpg", "cat.png", b"\xff\xd8not really a picture")


@pytest.fixture
def double() -> Iterator[Slack]:
    with slack() as made:
        yield made


def bot(double: Slack, **more: str) -> Receiver:
    made = Receiver("team", "slack", "SLACK_BOT_TOKEN", TOKEN, "#renders", double.api)
    return replace(made, **more)  # type: ignore[arg-type]


def receivers(double: Slack) -> dict[str, Receiver]:
    return {
        "bot": bot(double),
        "hook": Receiver("hook", "slack", "SLACK_WEBHOOK_URL", double.hook),
        "plain": Receiver("plain", "webhook", "HOOK_URL", double.plain),
    }


def tell(receiver: Receiver, told: Notification = TOLD, *, patience_s: float = 5.0) -> str | None:
    return send(told, receiver, until=time.monotonic() + patience_s)


def why(receiver: Receiver, told: Notification = TOLD, *, patience_s: float = 5.0) -> str:
    with pytest.raises(NotSentError) as caught:
        tell(receiver, told, patience_s=patience_s)
    return f"{caught.value.why} ({caught.value.hint})"


def test_a_bot_writes_and_shows_a_picture_where_it_wrote(double: Slack) -> None:
    assert tell(bot(double), replace(TOLD, picture=PICTURE)) is None
    (message,), (file,) = double.messages, double.files
    assert message["channel"] == "#renders"
    assert message["text"] == "comfymodal: render a &lt;cat&gt; &amp; a dog finished (261121-093012-k7f3)"
    assert (file["name"], file["title"], file["data"]) == ("cat.jpg", "cat.png", PICTURE.data)


def test_a_slack_webhook_gets_blocks_and_a_plain_one_the_document(double: Slack) -> None:
    for name in ("hook", "plain"):
        assert tell(receivers(double)[name], replace(TOLD, picture=PICTURE)) is None
    assert double.messages[0]["blocks"][0]["text"]["text"].startswith(":white_check_mark: *a &lt;cat&gt;")
    assert double.documents == [
        {
            "schema": "comfymodal/notification/1",
            "event": "finished",
            "project": "cats",
            "at": "2026-11-21T09:30:12.000Z",
            "run": RUN,
            **dict.fromkeys(("summary", "outputs", "error", "log_tail", "budget")),
            "next": "comfymodal x",
        }
    ]
    assert double.files == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"secret": "xoxb-another-token"}, "invalid_auth (is the token right?)", id="token"),
        pytest.param({"channel": "nowhere"}, "channel_not_found (is the channel right?", id="channel"),
        pytest.param({"secret": "two words"}, "SLACK_BOT_TOKEN holds no token", id="no token"),
    ],
)
def test_what_slack_refuses_is_told_with_a_remedy(double: Slack, wrong: dict[str, str], said: str) -> None:
    assert said in why(bot(double, **wrong))
    assert double.messages == []


def test_a_webhook_that_was_removed_says_so(double: Slack) -> None:
    gone = replace(receivers(double)["hook"], secret=f"{double.url}/services/T000/B000/removed")
    assert "no_service (the webhook was removed" in why(gone)


def test_a_picture_that_is_refused_does_not_take_the_message_with_it(double: Slack) -> None:
    double.scopes.discard("files:write")
    assert "missing_scope (give the bot" in str(tell(bot(double), replace(TOLD, picture=PICTURE)))
    assert len(double.messages) == 1


def test_a_name_of_a_channel_is_not_what_files_want(double: Slack) -> None:
    """The double refuses it as Slack does, so the id has to come from the answer to the message."""
    tell(bot(double, channel="renders"), replace(TOLD, picture=PICTURE))
    assert double.files
    assert CHANNEL_ID not in double.messages[0].values()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param("bot", (429, {"Retry-After": "0"}), id="429 with a time, bot"),
        pytest.param("hook", (429, {"Retry-After": "0"}), id="429 with a time, hook"),
        pytest.param("plain", (429, {"Retry-After": "1"}), id="429 with a time"),
        pytest.param("plain", (500, {}), id="500"),
    ],
)
def test_a_server_that_stumbles_once_is_asked_once_more(
    double: Slack, name: str, fault: tuple[int, dict[str, str]]
) -> None:
    double.faults = [fault]
    assert tell(receivers(double)[name]) is None
    assert len(double.asked) == 2
    assert len(double.messages) + len(double.documents) == 1


@pytest.mark.parametrize("name", ["bot", "hook", "plain"])
@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        pytest.param((500, {"Retry-After": "0"}), 2, id="500 twice"),
        pytest.param((429, {"Retry-After": "30"}), 1, id="429 for longer than anybody waits"),
        pytest.param((429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), 1, id="429 until a date"),
        pytest.param((403, {}), 1, id="403"),
        pytest.param("redirect", 1, id="redirect"),
        pytest.param("cut", 1, id="cut"),
    ],
)
def test_a_server_that_fails_is_told_without_the_secret(
    double: Slack, name: str, fault: str | tuple[int, dict[str, str]], requests: int
) -> None:
    double.always = fault
    words = why(receivers(double)[name])
    assert len(double.asked) == requests
    assert "doubleSecret" not in words
    assert TOKEN not in words


@pytest.mark.parametrize("name", ["bot", "hook"])
@pytest.mark.parametrize("fault", ["page", "list", "broken"])
def test_an_answer_that_is_not_slacks_counts_as_none(double: Slack, name: str, fault: str) -> None:
    double.always = fault
    assert why(receivers(double)[name]).startswith("the answer is not Slack's (HTTP 200)")


@pytest.mark.parametrize("name", ["bot", "hook", "plain"])
def test_a_server_that_hangs_is_given_up(double: Slack, name: str) -> None:
    double.always = "hang"
    began = time.monotonic()
    assert why(receivers(double)[name], patience_s=0.2).startswith("no answer from 127.0.0.1: it takes too long")
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "address",
    ["hooks.slack.com/secret1", "ftp://x/secret1", "https:///secret1", "https://u:secret1@x/", "https://x/a b secret1"],
)
def test_an_address_that_is_none_is_not_shown(address: str) -> None:
    words = why(Receiver("plain", "webhook", "HOOK_URL", address))
    assert words.startswith("HOOK_URL holds no address")
    assert "secret1" not in words


def test_nobody_there_is_told() -> None:
    gone = Receiver("plain", "webhook", "HOOK_URL", "http://127.0.0.1:1/secret1")
    assert why(gone).startswith("no answer from 127.0.0.1: ")
