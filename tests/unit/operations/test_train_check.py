"""`train --check`: one report of config, datasets and needs; what each flag does to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import CancelledError, ProjectError, TrainingConfigError, UsageError
from comfymodal.operations.desk import Question, Setup
from comfymodal.operations.train_check import TrainRequest, check_training, fix_training
from comfymodal.operations.train_datasets import read_places
from comfymodal.operations.train_results import ProblemView, TrainChecked
from tests.unit.training.config_files import FLUX, GUIDE, SDXL, broken
from tests.unit.training.pictures import fill, picture, save

SHORT = "name: mine\nmodel: flux\ndataset: ./pictures\ntrigger: p3r5on\nresolution: 512\nsteps: 600\n"


class Desk:
    """Fulfils `operations.desk.Desk`; answers every question alike."""

    def __init__(self, *, answer: bool = False) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.answer = answer

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def warn(self, message: str) -> None: ...

    def agree(self, setup: Setup) -> bool:
        return self.answer

    def confirm(self, question: Question) -> bool:
        return self.answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six good pictures beside where configs are written."""
    fill(tmp_path / "pictures")
    return tmp_path


def check(
    folder: Path, text: str = SHORT, *, project: str = "", desk: Desk | None = None, **flags: Any
) -> TrainChecked:
    (folder / "train.yaml").write_text(text)
    if project:
        (folder / "comfymodal.yaml").write_text(f"version: 1\n{project}")
    environ = {"COMFYMODAL_STATE_DIR": str(folder / "state")}
    places = read_places(None, environ=environ, cwd=folder)
    return check_training(TrainRequest(Path("train.yaml"), folder, **flags), places, desk or Desk())


def errors(checked: TrainChecked) -> list[ProblemView]:
    return [problem for problem in checked.problems if problem.severity == "error"]


def kinds(checked: TrainChecked) -> set[str]:
    return {problem.kind for problem in checked.problems}


def test_a_sound_training_is_told_whole(folder: Path) -> None:
    desk = Desk()
    checked = check(folder, desk=desk)
    (plan,) = checked.plans
    assert (checked.exit_code, checked.error, checked.form) == (0, None, "short")
    assert kinds(checked) == {"gated"}
    assert plan.training is not None
    assert (plan.name, plan.training["arch"], plan.training["steps"]) == ("mine", "flux", 600)
    (dataset,) = plan.datasets
    assert (dataset.is_checked, dataset.pictures, dataset.captions) == (True, 6, 6)
    assert (plan.steps_per_epoch, plan.epochs) == (6, 100)
    assert plan.needs is not None
    assert (plan.needs.gpu, plan.needs.gpu_from, plan.needs.verdict) == ("L40S", "the recipe", "fits")
    assert plan.needs.run_low_s is not None
    assert plan.needs.run_s is not None
    assert plan.needs.run_low_s < plan.needs.run_s
    assert (plan.needs.cost, plan.changes) == (None, ())
    assert desk.events[-1] == {"type": "reading", "folder": str(folder / "pictures"), "done": 12, "total": 12}


@pytest.mark.parametrize(("path", "right"), [(FLUX, {"gated"}), (SDXL, set())], ids=["flux", "sdxl"])
def test_the_configs_of_this_repository_pass_in_place(tmp_path: Path, path: Path, right: set[str]) -> None:
    places = read_places(None, environ={"COMFYMODAL_STATE_DIR": str(tmp_path)}, cwd=tmp_path)
    checked = check_training(TrainRequest(Path(path.name), path.parent), places, Desk())
    assert errors(checked) == []
    assert {problem.kind for problem in checked.problems if problem.severity == "warning"} == right
    (dataset,) = checked.plans[0].datasets
    assert (dataset.pictures, dataset.captions) == (10, 10)


def test_the_guides_config_is_refused_with_each_fault_and_a_way_out(folder: Path) -> None:
    checked = check(folder, GUIDE.read_text())
    assert checked.exit_code == 3
    assert checked.can_fix
    places = {(problem.place, problem.key) for problem in errors(checked)}
    assert places == {
        ("train.yaml:1:1", "job"),
        ("train.yaml:4:7", "network"),
        ("train.yaml:6:7", "model.arch"),
        ("train.yaml:7:9", "model.name_or_path"),
        ("train.yaml:8:7", "train.noise_scheduler"),
        ("train.yaml:12:11", "datasets[0].folder_path"),
    }
    assert all(problem.hint for problem in errors(checked))
    assert checked.plans[0].needs is None


def test_config_and_pictures_are_in_one_report_errors_first(folder: Path) -> None:
    (folder / "pictures/bad.png").write_bytes(b"no picture")
    (folder / "pictures/000.txt").unlink()
    (folder / "pictures/001.txt").unlink()
    checked = check(folder, SHORT + "overrides: {save.save_every: 900}\n")
    severities = [problem.severity for problem in checked.problems]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    by_kind = {problem.kind: problem for problem in checked.problems}
    assert (by_kind["broken_picture"].place, by_kind["broken_picture"].key) == ("train.yaml:3:1", "datasets[0]")
    assert by_kind["no_caption"].files == ("000.png", "001.png")
    assert "no_saves" in by_kind
    assert checked.exit_code == 3


def test_a_short_form_in_pieces_is_told_without_plans_made_up(folder: Path) -> None:
    checked = check(folder, "modl: flux\n")
    (plan,) = checked.plans
    assert {(problem.place, problem.key) for problem in errors(checked)} == {
        ("train.yaml:1:1", "modl"),
        ("train.yaml:1:1", "model"),
        ("train.yaml:1:1", "dataset"),
    }
    assert (plan.training, plan.needs, plan.datasets, checked.can_fix) == (None, None, (), False)


def test_flags_change_the_config_and_are_named_as_the_place(folder: Path) -> None:
    checked = check(folder, steps=20, name="c", set_=("train.optimizer=adamw", "datasets[0].folder_path=nope"))
    found = {(problem.kind, problem.place) for problem in checked.problems}
    assert {("bad_name", "flag"), ("no_such_path", "--set")} <= found
    sound = check(folder, steps=20, name="other_one", set_=("train.lr=3e-4",)).plans[0].training
    assert sound is not None
    assert (sound["steps"], sound["name"], sound["lr"]) == (20, "other_one", 3e-4)


def test_a_sweep_is_a_plan_each_and_says_a_shared_problem_once(folder: Path) -> None:
    (folder / "pictures/bad.png").write_bytes(b"no picture")
    checked = check(folder, sweep=("train.lr=1e-4,4e-4", "train.dtype=bf16,fp16"))
    assert [plan.name for plan in checked.plans] == [
        "mine--lr1e-4--dtypebf16",
        "mine--lr1e-4--dtypefp16",
        "mine--lr4e-4--dtypebf16",
        "mine--lr4e-4--dtypefp16",
    ]
    assert checked.plans[0].settings == "train.lr=1e-4 train.dtype=bf16"
    (broken_picture,) = [problem for problem in checked.problems if problem.kind == "broken_picture"]
    assert broken_picture.runs == ()
    of_some = [problem for problem in checked.problems if problem.key == "train.dtype"]
    assert of_some
    assert of_some[0].runs == ("mine--lr1e-4--dtypefp16", "mine--lr4e-4--dtypefp16")


def test_the_files_own_sweep_counts_where_no_flag_says_one(folder: Path) -> None:
    text = SHORT + "sweep: {network.linear: [8, 16]}\n"
    assert [plan.name for plan in check(folder, text).plans] == ["mine--r8", "mine--r16"]
    assert len(check(folder, text, sweep=("train.lr=1e-4,2e-4,3e-4",)).plans) == 3


@pytest.mark.parametrize(
    "flags",
    [
        {"set_": ("train.lrr=1",)},
        {"set_": ("train.lr=fast",)},
        {"set_": ("train.lr",)},
        {"sweep": ("train.lr=1e-4",)},
        {"sweep": ("train.lr=1e-4,2e-4",), "set_": ("train.lr=1e-4",)},
        {"gpu": "H1000"},
    ],
)
def test_a_flag_that_is_none_is_refused(folder: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check(folder, **flags)


@pytest.mark.parametrize(
    ("flags", "kind", "severity"),
    [
        ({"gpu": "T4"}, "useless_gpu", "error"),
        ({"gpu": "H100:2"}, "many_gpus", "warning"),
        ({"gpu": "L4", "set_": ("model=hidream",)}, "gpu_memory", "warning"),
        ({"gpu": "L4", "set_": ("model=flux2", "model.low_vram=false")}, "gpu_memory", "error"),
    ],
)
def test_a_gpu_that_will_not_do_is_named_with_one_that_does(
    folder: Path, flags: dict[str, Any], kind: str, severity: str
) -> None:
    (found,) = [problem for problem in check(folder, **flags).problems if problem.key == "gpu"]
    assert (found.kind, found.severity, found.place) == (kind, severity, "flag")
    assert found.hint is not None
    assert found.hint.startswith("--gpu ")


def test_the_gpu_of_the_file_counts_and_is_checked_where_it_stands(folder: Path) -> None:
    needs = check(folder, SHORT + "gpu: H100\n").plans[0].needs
    assert needs is not None
    assert (needs.gpu, needs.gpu_from) == ("H100", "the config")
    (found,) = [problem for problem in check(folder, SHORT + "gpu: H1000\n").problems if problem.key == "gpu"]
    assert (found.place, found.severity) == ("train.yaml:7:1", "error")


def test_a_volume_is_looked_at_where_it_is_a_folder_here(folder: Path) -> None:
    fill(folder / "state/volumes/comfy-datasets/people", 5)
    text = SHORT.replace("./pictures", "volume:/people")
    here = check(folder, text).plans[0].datasets[0]
    gone = check(folder, text.replace("people", "nobody"))
    away = check(folder, text, project="target: modal\n")
    assert (here.is_checked, here.pictures) == (True, 5)
    assert [problem.kind for problem in errors(gone)] == ["no_such_path"]
    assert (away.plans[0].datasets[0].is_checked, away.plans[0].datasets[0].place) == (False, "volume comfy-datasets")
    assert away.exit_code == 0
    assert away.plans[0].epochs is None


@pytest.mark.parametrize("project", ["target: local\n", "target: modal\n"])
def test_a_path_out_of_a_volume_is_refused(folder: Path, project: str) -> None:
    fill(folder / "state/volumes/elsewhere")
    checked = check(folder, SHORT.replace("./pictures", "volume:/../elsewhere"), project=project)
    assert [(problem.kind, problem.place) for problem in errors(checked)] == [("no_such_path", "train.yaml:3:1")]
    assert not checked.plans[0].datasets[0].is_checked


def test_json_may_be_indented_with_tabs(folder: Path) -> None:
    (folder / "t.json").write_text('{\n\t"name": "c",\n\t"model": "flux", "dataset": "pictures"\n}')
    checked = check_training(TrainRequest(Path("t.json"), folder), read_places(None, environ={}, cwd=folder), Desk())
    assert [(problem.kind, problem.place) for problem in errors(checked)] == [("bad_name", "t.json:2:2")]


def test_a_dry_run_shows_what_a_run_changes_and_on_modal_what_it_costs(folder: Path) -> None:
    text = SDXL.read_text().replace("../lora-flux/pictures", "./pictures")
    here = check(folder, text, set_=("train.lr=3e-4",), is_dry_run=True).plans[0]
    changes = {change.key: (change.old, change.new) for change in here.changes}
    assert changes["train.lr"] == ("0.0001", "0.0003")
    assert changes["training_folder"] == ('"output"', '"/tmp/run"')
    assert changes["datasets[0].folder_path"] == ('"./pictures"', json.dumps(str(folder / "pictures")))
    assert changes["sqlite_db_path"][0] is None
    assert all(change.reason for change in here.changes)
    assert here.needs is not None
    assert here.needs.cost is None
    modal = check(folder, text, is_dry_run=True, project="target: modal\n").plans[0].needs
    assert modal is not None
    assert modal.cost is not None
    assert float(modal.cost.low_usd) < float(modal.cost.usd) < float(modal.cost.high_usd)


def test_masks_beside_the_config_are_found(folder: Path) -> None:
    fill(folder / "masks")
    config = broken(datasets=[{"folder_path": "pictures", "mask_path": "masks", "resolution": 512}])
    checked = check(folder, json.dumps(config))
    assert errors(checked) == []
    assert checked.plans[0].datasets[0].is_checked


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One small picture: what is read again and again."""
    save(tmp_path / "pictures/a.png", picture(1, (16, 16)))
    return tmp_path


@pytest.mark.parametrize(
    "key",
    ["train", "datasets", "model", "sample", "network", "save", "trigger_word", "train__batch_size", "model__arch"],
)
def test_no_junk_makes_it_raise(small: Path, key: str) -> None:
    junks: tuple[Any, ...] = (None, 0, 1, "x", [], {}, [1], {"a": 1}, True, [[]], "volume:/x")
    for junk in junks:
        check(small, json.dumps(broken(**{key: junk})), is_dry_run=True)


@pytest.mark.parametrize(
    "key", ["folder_path", "resolution", "num_repeats", "caption_ext", "num_frames", "scale", "batch_size", "mask_path"]
)
def test_no_junk_in_a_dataset_makes_it_raise(small: Path, key: str) -> None:
    junks: tuple[Any, ...] = (None, 0, -1, "x", [], {}, [1, "a"], True, 1e300)
    for junk in junks:
        check(small, json.dumps(broken(datasets=[{"folder_path": "pictures", key: junk}])), is_dry_run=True)


@pytest.mark.parametrize("junk", [None, []])
@pytest.mark.parametrize("key", ["resolution", "num_repeats", "num_frames", "scale"])
def test_nothing_in_place_of_a_datasets_setting_is_a_problem(small: Path, key: str, junk: Any) -> None:
    checked = check(small, json.dumps(broken(datasets=[{"folder_path": "pictures", key: junk}])))
    assert f"datasets[0].{key}" in {problem.key for problem in errors(checked)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a: [1\n", "train.yaml:2:1: not valid YAML"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("a: 1\n---\nb: 1\n", "second document"),
        ("version: 1\ntarget: modal\n", "is a project file"),
    ],
)
def test_what_is_no_training_config_is_said(folder: Path, text: str, words: str) -> None:
    with pytest.raises(TrainingConfigError, match=words) as caught:
        check(folder, text)
    assert "a project file is" not in str(caught.value.hint)


def test_a_file_that_cannot_be_read_is_said(folder: Path) -> None:
    places = read_places(None, environ={}, cwd=folder)
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("nope.yaml", "pictures", "bytes.yaml"):
        with pytest.raises(TrainingConfigError, match=name):
            check_training(TrainRequest(Path(name), folder), places, Desk())


def test_a_broken_project_file_is_not_passed_over(folder: Path) -> None:
    with pytest.raises(ProjectError):
        check(folder, project="targett: modal\n")


def test_fix_writes_a_copy_that_is_sound_and_leaves_the_file_alone(folder: Path) -> None:
    (folder / "guide.yaml").write_text(GUIDE.read_text())
    fixed = fix_training(TrainRequest(Path("guide.yaml"), folder), Desk())
    assert (fixed.written, fixed.exit_code) == ("guide.fixed.yaml", 0)
    assert {change.key for change in fixed.changes} >= {"job", "network", "model.arch"}
    assert (folder / "guide.yaml").read_text() == GUIDE.read_text()
    (warning,) = fixed.problems
    assert warning.place.startswith("guide.fixed.yaml:")
    again = fix_training(TrainRequest(Path("guide.fixed.yaml"), folder), Desk())
    assert (again.written, again.changes) == (None, ())


def test_fix_replaces_a_copy_that_was_changed_only_when_told_so(folder: Path) -> None:
    (folder / "guide.yaml").write_text(GUIDE.read_text())
    copy = folder / "guide.fixed.yaml"
    copy.write_text("mine")
    with pytest.raises(CancelledError):
        fix_training(TrainRequest(Path("guide.yaml"), folder), Desk())
    assert copy.read_text() == "mine"
    fix_training(TrainRequest(Path("guide.yaml"), folder, is_dry_run=True), Desk(answer=True))
    assert copy.read_text() == "mine"
    fix_training(TrainRequest(Path("guide.yaml"), folder), Desk(answer=True))
    assert copy.read_text().startswith("job: extension\n")


def test_what_fix_cannot_mend_is_still_a_problem(folder: Path) -> None:
    (folder / "t.json").write_text(json.dumps(broken(model__arch="no_such", model__name_or_path="me/mystery")))
    fixed = fix_training(TrainRequest(Path("t.json"), folder), Desk())
    assert fixed.exit_code == 3
    assert [problem.kind for problem in fixed.problems if problem.severity == "error"] == ["unknown_arch"]


def test_no_secret_is_shown_in_a_change(folder: Path) -> None:
    token = "hf_" + "c" * 34
    (folder / "t.json").write_text(json.dumps(broken(train__optimzer=token, train__optimizer=...)))
    fixed = fix_training(TrainRequest(Path("t.json"), folder, is_dry_run=True), Desk())
    assert {change.key for change in fixed.changes} >= {"train.optimzer", "train.optimizer"}
    assert token not in str(fixed)


@pytest.mark.parametrize("flags", [{"steps": 5}, {"name": "a_b"}, {"set_": ("a=1",)}, {"sweep": ("a=1,2",)}])
def test_fix_takes_no_other_wishes(folder: Path, flags: dict[str, Any]) -> None:
    (folder / "guide.yaml").write_text(GUIDE.read_text())
    with pytest.raises(UsageError):
        fix_training(TrainRequest(Path("guide.yaml"), folder, **flags), Desk())


def test_fix_is_for_native_configs(folder: Path) -> None:
    (folder / "short.yaml").write_text(SHORT)
    (folder / "project.yaml").write_text("version: 1\ntarget: modal\n")
    with pytest.raises(UsageError, match="short form"):
        fix_training(TrainRequest(Path("short.yaml"), folder), Desk())
    with pytest.raises(TrainingConfigError, match="project file"):
        fix_training(TrainRequest(Path("project.yaml"), folder), Desk())
