"""Where a model is put, which one is meant, and what is known before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ConflictError, InputFileError, NotFoundError, NotReadyError, UsageError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.desk import Question, Setup
from comfymodal.operations.models import destination, disk_use, list_models, model_info, unused_models
from comfymodal.operations.models_add import AddRequest, add_model
from comfymodal.operations.models_results import ModelAddPlanned
from comfymodal.runs.ledger import Run
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub


class Desk:
    """Fulfils `operations.desk.Desk`; nobody is asked."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def event(self, event: Mapping[str, Any]) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def agree(self, setup: Setup) -> bool:
        raise NotReadyError("nobody is asked")

    def confirm(self, question: Question) -> bool:
        raise NotReadyError("nobody is asked")


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        yield made


def context(tmp_path: Path, hub: ModelHub | None = None, text: str = "", **environ: str) -> Context:
    (tmp_path / "comfymodal.yaml").write_text(f"version: 1\nproject: mine\n{text}")
    named = {"HF_ENDPOINT": hub.url, "CIVITAI_ENDPOINT": hub.url} if hub else {}
    state = {"COMFYMODAL_STATE_DIR": str(tmp_path / "state"), "COMFYMODAL_DATA_DIR": str(tmp_path / "data")}
    return open_context(None, environ={**state, **named, **environ}, cwd=tmp_path)


def models(tmp_path: Path, *paths: str) -> None:
    for path in paths:
        file = tmp_path / "state/volumes/comfy-models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


@pytest.mark.parametrize(
    ("to", "path"),
    [
        ("loras", "loras/a.safetensors"),
        ("loras/", "loras/a.safetensors"),
        ("models:/loras", "loras/a.safetensors"),
        ("loras/people", "loras/people/a.safetensors"),
        ("loras/sd1.5", "loras/sd1.5/a.safetensors"),
        ("loras/people.safetensors/", "loras/people.safetensors/a.safetensors"),
        ("loras/b.safetensors", "loras/b.safetensors"),
        ("unet", "unet/a.safetensors"),
        ("ipadapter", "ipadapter/a.safetensors"),
    ],
)
def test_destinations(to: str, path: str) -> None:
    assert destination(to, "a.safetensors") == path


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("b.safetensors", "names no folder"),
        ("lora", "ComfyUI has no model folder lora"),
        ("../x", "cannot be used"),
        ("loras/../../x", "cannot be used"),
        ("", "cannot be used"),
        ("/", "cannot be used"),
        ("loras//b.safetensors", "cannot be used"),
        ("loras/a\nb.safetensors", "cannot be used"),
    ],
)
def test_destinations_that_are_none(to: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        destination(to, "a.safetensors")


def plan(request: AddRequest, made: Context, desk: Desk | None = None) -> ModelAddPlanned:
    found = add_model(AddRequest(request.source, request.to, request.sha256, is_dry_run=True), made, desk or Desk())
    assert isinstance(found, ModelAddPlanned)
    return found


def test_the_folder_is_taken_from_the_repository_s_own(tmp_path: Path, hub: ModelHub) -> None:
    sha256 = hub.put("Comfy-Org/flux/split_files/vae/ae.safetensors", b"weights")
    found = plan(AddRequest("hf:Comfy-Org/flux/split_files/vae/ae.safetensors"), context(tmp_path, hub))

    assert (found.path, found.size_bytes, found.sha256) == ("vae/ae.safetensors", 7, sha256)
    assert found.place == f"folder {tmp_path}/state/volumes/comfy-models"
    assert not (tmp_path / "state").exists()


def test_civitai_says_what_kind_of_model_it_is(tmp_path: Path, hub: ModelHub) -> None:
    hub.put_version(7, "anna.safetensors", b"weights")

    assert plan(AddRequest("civitai:7"), context(tmp_path, hub)).path == "loras/anna.safetensors"


def test_where_nothing_tells_the_folder_it_has_to_be_said(tmp_path: Path, hub: ModelHub) -> None:
    hub.put("o/r/a.safetensors", b"weights")
    with pytest.raises(UsageError, match="nothing tells into which folder") as caught:
        plan(AddRequest("hf:o/r/a.safetensors"), context(tmp_path, hub))

    assert "--to" in str(caught.value.hint)
    assert plan(AddRequest("hf:o/r/a.safetensors", to="loras"), context(tmp_path, hub)).path == "loras/a.safetensors"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("b2:models/a.safetensors", "b2 is no remote of this project"),
        ("store:", "names no file"),
        ("store:../a.safetensors", "names no file"),
        ("nonsense", "is no address"),
    ],
)
def test_what_is_no_source_is_said(tmp_path: Path, source: str, said: str) -> None:
    made = context(tmp_path, text="remotes: {store: {type: s3, bucket: models}}\n")
    with pytest.raises(UsageError, match=said):
        plan(AddRequest(source), made)


def test_a_file_of_a_remote(tmp_path: Path) -> None:
    made = context(tmp_path, text="remotes: {store: {type: s3, bucket: models, prefix: lib}}\n")
    found = plan(AddRequest("store:loras/people/a.safetensors"), made)

    assert (found.source, found.path) == ("store:loras/people/a.safetensors", "loras/people/a.safetensors")


def test_a_hash_that_the_host_contradicts_is_refused(tmp_path: Path, hub: ModelHub) -> None:
    hub.put("o/r/loras/a.safetensors", b"weights")
    with pytest.raises(InputFileError, match="has another sha256"):
        plan(AddRequest("hf:o/r/loras/a.safetensors", sha256="0" * 64), context(tmp_path, hub))
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        plan(AddRequest("hf:o/r/loras/a.safetensors", sha256="abc"), context(tmp_path, hub))


def test_another_file_of_that_name_is_known_before_anything_starts(tmp_path: Path, hub: ModelHub) -> None:
    hub.put("o/r/loras/a.safetensors", b"weights")
    models(tmp_path, "loras/a.safetensors")
    with pytest.raises(ConflictError, match=r"another loras/a\.safetensors"):
        plan(AddRequest("hf:o/r/loras/a.safetensors"), context(tmp_path, hub))


def test_tokens_are_found_in_the_projects_env_file(tmp_path: Path, hub: ModelHub) -> None:
    hub.put("o/r/loras/a.safetensors", b"weights")
    hub.gated.add("o/r")
    with pytest.raises(NotReadyError, match="HF_TOKEN"):
        plan(AddRequest("hf:o/r/loras/a.safetensors"), context(tmp_path, hub))
    (tmp_path / ".env").write_text(f"HF_TOKEN={TOKEN}\nOTHER=x\n")

    assert plan(AddRequest("hf:o/r/loras/a.safetensors"), context(tmp_path, hub)).size_bytes == 7


def test_a_hub_that_does_not_answer_is_said_and_does_not_stop_the_job(tmp_path: Path, hub: ModelHub) -> None:
    desk = Desk()
    hub.hub_faults = [("status", (503, {}))]
    found = plan(AddRequest("hf:o/r/loras/a.safetensors"), context(tmp_path, hub), desk)

    assert (found.path, found.size_bytes) == ("loras/a.safetensors", None)
    assert desk.warnings == ["cannot ask beforehand: " + desk.warnings[0].partition(": ")[2]]


def test_folders_and_names_that_are_not_there_have_near_ones(tmp_path: Path) -> None:
    models(tmp_path, "loras/anna.safetensors", "loras/x/b.safetensors", "vae/x/b.safetensors")
    made = context(tmp_path)
    with pytest.raises(NotFoundError) as folder:
        list_models("lora", made)
    with pytest.raises(NotFoundError) as model:
        model_info("ana.safetensors", made)
    with pytest.raises(UsageError, match="is the name of 2 models"):
        model_info("b.safetensors", made)

    assert folder.value.hint == "did you mean loras? all: comfymodal models du"
    assert str(model.value.hint).startswith("did you mean")
    assert list_models("upscale_models", made).models == ()


def test_a_volume_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert disk_use(context(tmp_path)).files == 0


def test_links_that_lead_back_do_not_go_on_for_ever(tmp_path: Path) -> None:
    models(tmp_path, "loras/a.safetensors")
    os.symlink("..", tmp_path / "state/volumes/comfy-models/loras/up")
    found = list_models(None, context(tmp_path))

    assert "loras/a.safetensors" in [model.path for model in found.models]
    assert len(found.models) <= 2


def render(made: Context, run_id: str, at: float, **inputs: Any) -> None:
    graph = {"1": {"class_type": "LoraLoader", "inputs": inputs}}
    job = {"run_id": run_id, "prompts": [{"prompt_id": "p", "graph": graph}]}
    made.ledger.add(Run(run_id, "render", "local", "succeeded", "w", at, at, "", None, {"job": job}, {}))


def test_models_that_no_render_of_this_machine_named(tmp_path: Path) -> None:
    models(tmp_path, "loras/used.safetensors", "loras/old.safetensors", "vae/elsewhere.safetensors")
    made, other = context(tmp_path), context(tmp_path, COMFYMODAL_PROJECT="other")
    desk = Desk()
    assert [model.path for model in unused_models(made, desk).models] == [
        "loras/old.safetensors",
        "loras/used.safetensors",
        "vae/elsewhere.safetensors",
    ]
    assert "every model counts as unused" in desk.warnings[0]
    render(made, "a", 86400.0, lora_name="used.safetensors")
    render(other, "b", 172800.0, vae_name="elsewhere.safetensors")
    found = unused_models(made, Desk())

    assert [model.path for model in found.models] == ["loras/old.safetensors"]
    assert (found.since, found.renders) == ("1970-01-02T00:00:00.000Z", 2)
