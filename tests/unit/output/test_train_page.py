from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from comfymodal.operations.train_report_results import PromptView, SampleShot, Shot, TrainingPage
from comfymodal.output.page_chart import Line, chart
from comfymodal.output.page_style import COLOURS, POLICY, SCRIPT
from comfymodal.output.train_page import page
from comfymodal.training.curves import Curve, smoothed
from tests.unit.output.result_samples import run_view
from tests.unit.output.train_report_samples import losses, samples, shot, train_report, trained_run, variant

EVIL = (
    '</script></style></title></pre><img src=x onerror=alert(1)><script>alert(1)</script> " onclick="alert(1)" \' & ok'
)
VOID = {"meta", "img", "br", "link", "input", "hr"}
REACHING = {"src", "href", "srcset", "poster", "data", "action", "background", "xlink:href"}


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order. Nothing in it may reach for anything."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open and self._open[-1] == "script" else self.texts).append(data)

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [own for name, own in self.tags if name == tag and css_class in f" {own.get('class', '')} "]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(report: TrainingPage) -> Page:
    source = page(report)
    found = Page(source)
    # The proof that it needs no network: nothing it names lies elsewhere, and the browser is told to ask nobody.
    for _, own in found.tags:
        for name in REACHING & own.keys():
            assert str(own[name]).startswith("data:"), own
        assert not any(name.startswith("on") for name in own), own
    assert not re.search(r"@import|url\((?!#)", source)
    assert not re.search(r"(?:https?:)?//[a-z]", source.replace("http://www.w3.org", ""))
    assert found.scripts == [SCRIPT]
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in found.all("meta")
    return found


def test_a_run_is_told_whole() -> None:
    found = read(train_report())

    for words in (
        *("anna", "261121-093012-train-k7f3", "succeeded", "400 of 400", "A100-80GB", "$1.26", "30:10 min"),
        *("black-forest-labs/FLUX.1-dev", "p3rson", "16, alpha 16", "0.0001, adamw8bit", "loras/anna.safetensors"),
        *("volume:/sets/anna", "24", "512, 768", "making samples", "job: extension"),
        *("comfymodal runs fetch 261121-093012-train-k7f3 --step 300", "can be gone on from", "$2.50/h"),
    ):
        assert words in found.text, words


def test_rows_are_prompts_and_columns_steps() -> None:
    # Made in another order than they are shown in.
    found = read(train_report(trained_run(samples=samples((0, 100, 200))[::-1])))

    told = [own["data-words"] for own in found.all("button")]
    beach, studio = "p3rson at the beach", "a portrait of p3rson, studio light"
    assert told == [
        *(f"before training: {beach}", f"step 100: {beach}", f"step 200: {beach}"),
        *(f"before training: {studio}", f"step 100: {studio}", f"step 200: {studio}"),
    ]
    images = [own for own in found.all("img") if own["src"] != "data:,"]
    assert len(images) == 6
    assert all(str(own["src"]).startswith("data:image/jpeg;base64,") for own in images)


def test_the_curve_has_its_axes_saves_and_words_under_the_mouse() -> None:
    found = read(train_report())

    assert len(found.all("path", "raw")) == len(found.all("svg", "swatch")) == 1
    assert [f"saved at step {step}" in found.text for step in (200, 300, 400)] == [True] * 3
    assert found.all("rect", "probe")
    assert re.search(r"step 2\d\d loss, smoothed: 0\.\d+", found.text)
    assert "loss (logarithmic)" not in found.text


def test_a_loss_that_falls_far_is_drawn_logarithmically() -> None:
    assert "loss (logarithmic)" in read(train_report(trained_run(losses=losses(level=0.01, fall=1.0)))).text


def test_validation_losses_are_drawn_beside_it() -> None:
    run = trained_run(validation=tuple((step, 1.0 / step) for step in range(50, 401, 50)))

    found = read(train_report(run))

    assert len(found.all("circle", "dot")) == 8
    assert "0.0025" in found.text
    assert "says little of its pictures" not in found.text


def test_what_anybody_wrote_stays_text() -> None:
    run = trained_run(
        name=EVIL,
        run=run_view(title=EVIL, target=EVIL, status=EVIL, id=EVIL),
        training={**trained_run().training, "base_model": EVIL, "trigger_word": EVIL, "arch": EVIL},
        config=EVIL,
        prompts=(PromptView(EVIL, EVIL),),
        settings={EVIL: EVIL},
        warnings=(EVIL,),
        error={"message": EVIL, "hint": EVIL},
        published=(EVIL,),
        phases={EVIL: 3.0},
        gpu=EVIL,
        samples=(*samples((0,)), SampleShot(3, 0, Shot(EVIL, None))),
        sheets=(replace(shot(0.3), file=EVIL),),
        losses=losses(30),
    )

    for report in (train_report(run), train_report(run, run, differing=(EVIL,))):
        found = read(report)
        assert EVIL.replace("  ", " ") in found.text
        assert "alert(1)" not in "".join(found.scripts)


def test_a_run_that_left_nothing_still_has_a_page() -> None:
    run = trained_run(
        run=run_view(status="failed", seconds=None, cost=None),
        losses=(),
        samples=(),
        checkpoints=(),
        prompts=(),
        datasets=(),
        published=(),
        phases={},
        attempts=(),
        step=None,
        seconds_per_step=None,
        gpu=None,
        usd_per_hour=None,
        cost=None,
        error={"message": "the GPU's memory does not suffice", "hint": "--gpu H100"},
    )

    found = read(train_report(run))

    for words in (
        "no loss of more than one step",
        "There are no samples",
        "None is kept yet",
        "0 of 400",
        "--gpu H100",
    ):
        assert words in found.text, words


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(((1, 0.5), (2, 0.5), (3, 0.5)), id="flat"),
        pytest.param(((1, 0.0), (2, 0.0)), id="nought"),
        pytest.param(((1, -0.5), (2, 0.25)), id="below nought"),
        pytest.param(((1, 1e-9), (2, 1e9)), id="far apart"),
        pytest.param(((7, 0.1), (8, 0.2)), id="late"),
        pytest.param(tuple((step, 1.0 + step % 7) for step in range(1, 30_000)), id="long"),
    ],
)
def test_any_curve_is_drawn_inside_of_its_frame(curve: Curve) -> None:
    drawn = chart([Line("loss", smoothed(curve), curve)], last_step=10)

    Page(drawn)
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert len(drawn) < 100_000
    path = re.search(r'class="curve" d="M([^"]+)"', drawn)
    assert path is not None
    for point in path[1].split("L"):
        x, y = map(float, point.split())
        assert 0 <= x <= 900
        assert 0 <= y <= 340


def test_a_peak_is_not_thinned_away() -> None:
    curve: Curve = tuple((step, 9.0 if step == 4321 else 1.0) for step in range(1, 10_001))

    drawn = chart([Line("loss", smoothed(curve), curve)], last_step=10_000)

    raw = re.search(r'class="raw" d="M([^"]+)"', drawn)
    assert raw is not None
    heights = [float(point.split()[1]) for point in raw[1].split("L")]
    assert min(heights) < 30
    assert max(heights) > 200


def sweep(**more: Any) -> TrainingPage:
    runs = [variant(0, "5e-05", "16"), variant(1, "0.0001", "16"), variant(2, "0.0001", "32", **more)]
    return train_report(*runs, differing=("network.linear", "train.lr"))


def test_variants_lie_side_by_side() -> None:
    found = read(sweep(status="failed", samples=samples((0, 100), seed=2)))

    for words in ("anna: 3 variants", "network.linear", "train.lr", "5e-05", "anna--lr0.0001--r32", "failed"):
        assert words in found.text, words
    assert "Together $3.63" in found.text
    # One section a prompt, and in it a row for each variant.
    assert len(found.all("h3")) == 2
    rows = ["linear=16 lr=5e-05", "linear=16 lr=0.0001", "linear=32 lr=0.0001"]
    told = [str(own["data-words"]) for own in found.all("button")]
    assert [words for words in told if words.startswith("step 100") and "beach" in words] == [
        f"step 100: {row}: p3rson at the beach" for row in rows
    ]
    assert found.texts.count("no sample") == 2 * 3


def test_lines_of_a_sweep_differ_by_colour_then_by_dashes() -> None:
    runs = [variant(number, f"{number}e-05", "16", samples=()) for number in range(COLOURS * 2 + 1)]

    found = read(train_report(*runs, differing=("train.lr",)))

    lines = [(own.get("stroke"), own.get("stroke-dasharray")) for own in found.all("path", "curve")]
    drawn = lines[-len(runs) :]
    assert len(set(drawn)) == len(runs)
    assert len({stroke for stroke, _ in drawn}) == COLOURS


def test_a_swept_trigger_keeps_the_prompts_together() -> None:
    words = tuple(PromptView(f"[trigger] {place}", f"sks {place}") for place in ("at the beach", "in a forest"))
    others = tuple(replace(each, text=each.text.replace("sks", "ohwx")) for each in words)
    one = replace(variant(0, "1e-4", "16"), prompts=words, settings={"trigger_word": "sks"})
    other = replace(variant(1, "1e-4", "16"), prompts=others, settings={"trigger_word": "ohwx"})

    found = read(train_report(one, other, differing=("trigger_word",)))

    assert len(found.all("h3")) == 2
    assert "[trigger] at the beach" in found.text


def test_what_is_not_on_the_page_is_said() -> None:
    assert "Samples of 7 more steps" in read(train_report(trained_run(steps_hidden=7))).text
