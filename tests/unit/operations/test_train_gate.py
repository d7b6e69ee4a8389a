"""Whether models open to a training: asked once, with the token at hand, of a hub of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfymodal.errors import NotFoundError, NotReadyError
from comfymodal.operations.train_datasets import Looked
from comfymodal.operations.train_gate import Keys, require_model
from comfymodal.training.ai_toolkit.paths import Found, PathUse
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub
from tests.unit.operations.test_models import Desk, context

FLUX = "black-forest-labs/FLUX.1-dev"
OPEN = "stabilityai/stable-diffusion-xl-base-1.0"
OTHER = "hf_somebodyElses0123456789"


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        for repository in (FLUX, OPEN):
            made.put(f"{repository}/model_index.json", b"{}")
        made.gated.add(FLUX)
        yield made


def looked(*found: str, kind: str = "repository") -> Looked:
    uses = [PathUse(("config", "process", 0, "model", "name_or_path"), text, "model") for text in found]
    paths = tuple(Found(use, kind, use.text) for use in uses)  # type: ignore[arg-type]
    return Looked((), (), (), paths)


def asked(hub: ModelHub) -> list[str]:
    return [each.path for each in hub.asked]


def test_a_model_that_opens_is_asked_for_once_with_the_token(tmp_path: Path, hub: ModelHub) -> None:
    desk = Desk()
    keys = require_model(looked(FLUX, FLUX, OPEN), context(tmp_path, hub, HF_TOKEN=TOKEN), desk)

    assert (keys, desk.warnings) == (Keys(), [])
    assert asked(hub) == [f"/api/models/{FLUX}/auth-check", f"/api/models/{OPEN}/auth-check"]
    assert hub.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_the_token_may_be_in_the_projects_env_file(tmp_path: Path, hub: ModelHub) -> None:
    hub.unaccepted.add(FLUX)
    (tmp_path / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    with pytest.raises(NotReadyError):
        require_model(looked(FLUX), context(tmp_path, hub), Desk())
    assert len(hub.asked) == 1


def test_a_licence_that_is_not_accepted_is_named_with_its_page(tmp_path: Path, hub: ModelHub) -> None:
    hub.unaccepted.add(FLUX)
    with pytest.raises(NotReadyError, match="its licence is not accepted; nothing was started") as caught:
        require_model(looked(FLUX), context(tmp_path, hub, HF_TOKEN=TOKEN), Desk())
    assert f"accept it at https://huggingface.co/{FLUX}" in str(caught.value.hint)
    assert TOKEN not in str(caught.value.to_dict())


def test_a_token_that_is_none_of_this_hub(tmp_path: Path, hub: ModelHub) -> None:
    with pytest.raises(NotReadyError, match="does not know the token in HF_TOKEN") as caught:
        require_model(looked(OPEN), context(tmp_path, hub, HF_TOKEN=OTHER), Desk())
    assert OTHER not in str(caught.value.to_dict())
    with pytest.raises(NotReadyError, match="holds more than a token"):
        require_model(looked(OPEN), context(tmp_path, hub, HF_TOKEN="two words"), Desk())
    assert len(hub.asked) == 1


def test_a_repository_that_is_not_there(tmp_path: Path, hub: ModelHub) -> None:
    with pytest.raises(NotFoundError, match="Hugging Face has no nobody/nothing"):
        require_model(looked("nobody/nothing"), context(tmp_path, hub, HF_TOKEN=TOKEN), Desk())


def test_of_a_file_in_a_repository_the_repository_is_asked_for(tmp_path: Path, hub: ModelHub) -> None:
    require_model(looked(f"{OPEN}/unet/model.safetensors"), context(tmp_path, hub, HF_TOKEN=TOKEN), Desk())
    assert asked(hub) == [f"/api/models/{OPEN}/auth-check"]


def test_without_a_token_there_is_a_warning_and_nobody_is_asked(tmp_path: Path, hub: ModelHub) -> None:
    desk = Desk()
    assert require_model(looked(FLUX, OPEN), context(tmp_path, hub), desk) == Keys()
    (warning,) = desk.warnings
    assert warning.startswith(f"{FLUX} is gated, and there is no HF_TOKEN here")
    require_model(looked(OPEN), context(tmp_path, hub), desk)
    assert (len(desk.warnings), hub.asked) == (1, [])


def test_what_is_no_repository_needs_nothing(tmp_path: Path, hub: ModelHub) -> None:
    desk = Desk()
    assert require_model(looked("/models/flux", kind="local"), context(tmp_path, hub, HF_TOKEN=TOKEN), desk) == Keys()
    assert (desk.warnings, hub.asked) == ([], [])


@pytest.mark.parametrize("fault", [(503, {}), (429, {"Retry-After": "1"}), (418, {})], ids=str)
def test_a_hub_that_does_not_answer_stops_nothing(
    tmp_path: Path, hub: ModelHub, fault: tuple[int, dict[str, str]]
) -> None:
    desk = Desk()
    hub.hub_faults = [("status", fault)]
    require_model(looked(FLUX), context(tmp_path, hub, HF_TOKEN=TOKEN), desk)
    assert len(desk.warnings) == 1
    assert desk.warnings[0].startswith(f"cannot ask whether {FLUX} opens: ")


def test_without_a_network_it_is_said_once(tmp_path: Path, hub: ModelHub) -> None:
    desk = Desk()
    hub.url = "http://127.0.0.1:9"
    require_model(looked(FLUX, OPEN), context(tmp_path, hub, HF_TOKEN=TOKEN), desk)
    assert len(desk.warnings) == 1
    assert "cannot reach 127.0.0.1:9" in desk.warnings[0]


def test_who_wants_to_be_offline_is(tmp_path: Path, hub: ModelHub) -> None:
    hub.unaccepted.add(FLUX)
    made = context(tmp_path, hub, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    assert require_model(looked(FLUX), made, Desk()) == Keys()
    assert hub.asked == []
