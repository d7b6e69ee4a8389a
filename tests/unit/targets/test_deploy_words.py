from __future__ import annotations

from dataclasses import replace

from comfymodal.targets.modal.deploy_words import describe_deploy, idle_per_month, per_hour
from tests.unit.targets.modal_samples import SPEC, with_containers


def test_a_deploy_says_what_a_container_costs_at_the_prices_known_here() -> None:
    spec = replace(with_containers(gpus=("L40S",), min_containers=1), rates=SPEC.rates.in_region("us"))
    assert per_hour(spec) == "$2.75/h"
    details = describe_deploy(spec, None, [], is_first=True).details
    assert (
        details[-1]
        == "a container costs $2.75/h while it lives; comfyui.min_containers costs $1983.54 per month, used or not"
    )


def test_an_unknown_price_keeps_nobody_from_deploying() -> None:
    unknown = replace(SPEC.rates, gpus={}, source="workspace")
    spec = replace(with_containers(gpus=("L40S",), min_containers=1), rates=unknown)
    assert idle_per_month(spec) is None
    assert describe_deploy(spec, None, [], is_first=True).details[-1] == (
        "a container costs an unknown amount per hour while it lives; "
        "comfyui.min_containers costs an unknown amount per month, used or not"
    )
    assert idle_per_month(replace(with_containers(min_containers=0), rates=unknown)) == 0
