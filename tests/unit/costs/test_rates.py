from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.costs.rates import (
    GPUS,
    LIST,
    GpuChoice,
    Rate,
    container_rate,
    cpu_rate,
    dollars,
    hourly_text,
    money_json,
    money_text,
    nanodollars_of,
    parse_gpu,
    parse_money,
    region_multiplier,
    sync_rate,
    training_rate,
)
from comfymodal.errors import NotReadyError


@pytest.mark.parametrize(
    ("text", "name", "count", "label", "card"),
    [
        ("L40S", "L40S", 1, "L40S", "L40S"),
        (" l40s ", "L40S", 1, "L40S", "L40S"),
        ("h100:2", "H100", 2, "H100:2", "H100"),
        ("T4:1", "T4", 1, "T4", "T4"),
        ("A10G", "A10", 1, "A10", "A10"),
        ("a10g:4", "A10", 4, "A10:4", "A10"),
        ("A100", "A100", 1, "A100", "A100-40GB"),
        ("a100-80gb:8", "A100-80GB", 8, "A100-80GB:8", "A100-80GB"),
        ("H100!:3", "H100!", 3, "H100!:3", "H100"),
        ("b200+", "B200+", 1, "B200+", "B200"),
        ("rtx-pro-6000", "RTX-PRO-6000", 1, "RTX-PRO-6000", "RTX-PRO-6000"),
    ],
)
def test_a_gpu_is_read_as_modal_reads_it(text: str, name: str, count: int, label: str, card: str) -> None:
    choice = parse_gpu(text)
    assert choice == GpuChoice(name, count, label)
    assert choice.card is GPUS[card]
    assert LIST.gpu_price(choice) == GPUS[card].nanodollars_per_s * count
    assert parse_gpu(choice.label) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L40", "L40 is not a GPU of Modal; did you mean L40S?"),
        ("A100 80GB", "A100 80GB is not a GPU of Modal; did you mean A100-80GB?"),
        ("rtx_pro_6000", "rtx_pro_6000 is not a GPU of Modal; did you mean RTX-PRO-6000?"),
        ("RTX6000", "RTX6000 is not a GPU of Modal; did you mean RTX-PRO-6000?"),
        ("H100-SXM5", "H100-SXM5 is not a GPU of Modal; did you mean H100?"),
        ("NVIDIA L4", "NVIDIA L4 is not a GPU of Modal; did you mean L4?"),
        ("A100!", "A100! is not a GPU of Modal; did you mean A100?"),
        ("H300", "H300 is not a GPU of Modal; did you mean H200?"),
        ("L40S:9", "L40S:9 is more than one container takes: at most L40S:8"),
        ("a10g:5", "a10g:5 is more than one container takes: at most A10:4"),
        ("H100:0", "H100:0 asks for no GPU; a container takes 1 to 8 H100"),
        ("H100:", "H100: does not say how many: write H100:2 for two in one container"),
        ("H100:two", "H100:two does not say how many: write H100:2 for two in one container"),
        ("H100:-1", "H100:-1 does not say how many: write H100:2 for two in one container"),
        ("H100:²", "H100:² does not say how many: write H100:2 for two in one container"),
        ("H100:1:1", "H100:1:1 does not say how many: write H100:2 for two in one container"),
    ],
)
def test_a_gpu_that_modal_does_not_have_is_said_with_what_is_near(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_gpu(text)


@pytest.mark.parametrize("text", ["RTX4090", "any", "", "4090", "x" * 5000])
def test_a_gpu_like_none_lists_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="not a GPU of Modal; it has T4, L4, A10, L40S,") as caught:
        parse_gpu(text)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=40))
def test_any_text_is_a_gpu_or_a_value_error(text: str) -> None:
    try:
        choice = parse_gpu(text)
    except ValueError:
        return
    assert choice.card.most >= choice.count >= 1


@pytest.mark.parametrize(
    ("gpu", "per_hour"),
    [
        # facts: $2.3956, $2.9428 and $4.3936 an hour with 4 cores and 32 GiB, which alone are $0.444.
        ("L40S", "2.395584"),
        ("A100-80GB", "2.942784"),
        ("H100", "4.393584"),
        ("A100", "2.543184"),
        ("H100:2", "8.342784"),
    ],
)
def test_the_rate_of_a_container_has_gpu_cores_and_memory(gpu: str, per_hour: str) -> None:
    rate = container_rate([parse_gpu(gpu)])
    assert rate.other_nanodollars_per_s == 123_440
    assert dollars(rate.nanodollars_per_h) == Decimal(per_hour)
    assert (rate.gpu, rate.as_of, rate.is_range) == (gpu, "2026-10-07", False)


def test_each_price_is_that_of_the_page() -> None:
    per_hour = {name: str(dollars(gpu.nanodollars_per_s * 3600)) for name, gpu in GPUS.items()}
    assert per_hour == {
        "T4": "0.5904",
        "L4": "0.7992",
        "A10": "1.1016",
        "L40S": "1.9512",
        "A100-40GB": "2.0988",
        "A100-80GB": "2.4984",
        "RTX-PRO-6000": "3.0312",
        "H100": "3.9492",
        "H200": "4.5396",
        "B200": "6.2496",
        "B300": "7.0992",
    }


def test_of_several_choices_the_dearest_counts() -> None:
    rate = container_rate([parse_gpu("L40S"), parse_gpu("H100"), parse_gpu("A100-80GB")])
    assert (rate.gpu, rate.gpu_nanodollars_per_s, rate.is_range) == ("H100", 1_097_000, True)
    assert hourly_text(rate) == "up to $4.39/h"
    # Two of a cheap one may be dearer than one of a dear one.
    assert container_rate([parse_gpu("L40S:4"), parse_gpu("H100")]).gpu == "L40S:4"


def test_choices_of_one_price_are_no_range() -> None:
    rate = container_rate([parse_gpu("H100"), parse_gpu("H100!")])
    assert (rate.is_range, hourly_text(rate)) == (False, "$4.39/h")


def test_no_gpu_has_no_price() -> None:
    with pytest.raises(ValueError, match="no GPU"):
        container_rate([])


def test_a_container_without_a_gpu_costs_cents() -> None:
    rate = cpu_rate()
    assert (rate.nanodollars_per_s, rate.gpu, hourly_text(rate)) == (15_320, "", "$0.0552/h")


def test_what_the_ledger_keeps_of_a_rate() -> None:
    rate = container_rate([parse_gpu("L40S")])
    kept = {"gpu": "L40S", "nanodollars_per_s": 665_440, "as_of": "2026-10-07", "source": "list"}
    assert rate.to_dict() == kept


@pytest.mark.parametrize(
    ("region", "nanodollars"), [(None, 665_440), ("us", 765_256), ("ap", 765_256), ("us-west", 1_164_520)]
)
def test_a_region_multiplies_gpu_cores_and_memory(region: str | None, nanodollars: int) -> None:
    rate = container_rate([parse_gpu("L40S")], LIST.in_region(region))
    assert rate.nanodollars_per_s == nanodollars
    others = (cpu_rate(LIST.in_region(region)), sync_rate(LIST.in_region(region)))
    factor = region_multiplier(region)
    assert [one.nanodollars_per_s for one in others] == [round(15_320 * factor), round(35_080 * factor)]


def test_an_unknown_price_is_not_nothing() -> None:
    table = replace(LIST, gpus={"L40S": 542_000}, source="workspace", as_of="2026-11-21")
    assert container_rate([parse_gpu("L40S")], table).nanodollars_per_s == 665_440
    with pytest.raises(NotReadyError, match=r"what H100 costs is unknown: Modal's answer of 2026-11-21"):
        container_rate([parse_gpu("L40S"), parse_gpu("H100")], table)
    with pytest.raises(NotReadyError, match="what H100 costs is unknown"):
        training_rate(parse_gpu("H100!"), 64, table)
    with pytest.raises(NotReadyError, match="what cores and memory cost is unknown"):
        sync_rate(replace(LIST, core=None))


@pytest.mark.parametrize(
    ("seconds", "nanodollars"),
    [(131, 87_172_640), (911, 606_215_840), (0, 0), (0.1 + 0.2, 199_632), (0.0004, 0)],
)
def test_seconds_cost_what_they_should(seconds: float, nanodollars: int) -> None:
    assert container_rate([parse_gpu("L40S")]).cost(seconds) == nanodollars


def test_a_part_of_a_nanodollar_is_one() -> None:
    assert Rate(1, 0).cost(0.001) == 1


@pytest.mark.parametrize(
    ("nanodollars", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.0001"),
        (99_999, "<$0.0001"),
        (100_000, "$0.0001"),
        (15_155_396, "$0.0152"),
        (999_949_999, "$0.9999"),
        (999_950_000, "$1.00"),
        (1_000_000_000, "$1.00"),
        (12_405_000_000, "$12.41"),
        (1_234_567_890_000_000, "$1234567.89"),
        (-15_155_396, "-$0.0152"),
    ],
)
def test_money_for_people(nanodollars: int, text: str) -> None:
    assert money_text(nanodollars) == text


@pytest.mark.parametrize(
    ("nanodollars", "text"),
    [(0, "0"), (1, "0.000000001"), (87_172_640, "0.08717264"), (2_000_000_000, "2"), (10**16, "10000000")],
)
def test_money_for_scripts_has_every_digit_and_no_exponent(nanodollars: int, text: str) -> None:
    assert money_json(nanodollars) == text


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_money_survives_its_texts(nanodollars: int) -> None:
    assert parse_money(money_json(nanodollars)) == nanodollars
    assert nanodollars_of(dollars(nanodollars)) == nanodollars


@pytest.mark.parametrize(
    ("text", "nanodollars"),
    [("2.50", 2_500_000_000), ("$2.50", 2_500_000_000), (" $ 0.5 ", 500_000_000), ("0", 0), ("1e-1", 100_000_000)],
)
def test_money_is_read_with_and_without_its_sign(text: str, nanodollars: int) -> None:
    assert parse_money(text) == nanodollars


def test_a_limit_is_never_raised_by_rounding() -> None:
    assert parse_money("0.0000000019") == 1


@pytest.mark.parametrize("text", ["", "$", "-1", "2,50", "nan", "inf", "sNaN", "1e999999999", "1000000", "two", "€2"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no amount of dollars: write 2\.50"):
        parse_money(text)


def test_rates_need_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; import comfymodal.costs.rates;"
        "print(sorted({'pydantic','modal','rich','yaml','typer','aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
