"""A message is one that Slack takes, whatever a run is called and whatever its log says."""

from __future__ import annotations

import html
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from comfymodal.notify.message import Notification
from comfymodal.notify.slack import blocks, escaped
from tests.doubles.slack import wrong_message

TEXT = st.text(st.characters(codec="utf-8"), max_size=200) | st.sampled_from(["&" * 5000, "```<!channel>```" * 400, ""])


@settings(max_examples=60)
@given(TEXT, st.integers(3, 400), st.booleans())
def test_what_is_cut_is_still_whole(text: str, most: int, keeps_end: bool) -> None:
    cut = escaped(text, most, keeps_end=keeps_end)
    assert len(cut) <= most
    plain = html.unescape(cut)
    if cut != html.escape(text, quote=False):
        plain = plain.removeprefix("...") if keeps_end else plain.removesuffix("...")
        assert text.endswith(plain) if keeps_end else text.startswith(plain)


@settings(max_examples=60)
@given(TEXT, TEXT, TEXT)
def test_slack_takes_every_message(title: str, message: str, log: str) -> None:
    run = {"id": title, "kind": "render", "status": "failed", "target": "modal", "title": title, "gpu": log}
    told = Notification(
        event="failed",
        project=title,
        at="",
        run={**run, "seconds": 1e9, "cost": None},
        outputs={"count": 99, "names": [title] * 20},
        summary=message,
        error={"code": "x", "message": message, "hint": log},
        log_tail=log,
        next=title,
    )
    given = {"text": escaped(told.headline, 500), "blocks": blocks(told)}
    assert wrong_message(json.loads(json.dumps(given))) is None


def test_a_log_keeps_its_end_and_stays_in_its_frame() -> None:
    log = "\n".join(f"line {number} ```" for number in range(1000))
    told = Notification(
        "failed", "p", "", run={"id": "i", "kind": "k", "status": "s", "target": "t", "title": "x"}, log_tail=log
    )
    (frame,) = [block["text"]["text"] for block in blocks(told) if block["text"]["text"].startswith("```")]
    assert frame.endswith("line 999 '''\n```")
    assert frame.count("```") == 2
