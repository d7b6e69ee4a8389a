from __future__ import annotations

import pytest

from comfymodal.errors import ProjectError
from comfymodal.output.show import show_error
from comfymodal.project.problems import Mark, Problem, project_error


def shown(error: ProjectError, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_error(error, command=["sync"], as_json=False, as_events=False)
    return capsys.readouterr().err.splitlines()


def test_every_mistake_of_a_project_file_is_shown_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    error = project_error(
        [
            Problem(Mark("c.yaml", 3, 5), "sync.a", "has the same place at both ends"),
            Problem(Mark("c.yaml", 2, 1), "bucket", "unknown key", "`bucket` belongs under `remotes.NAME`"),
            Problem(Mark(variable="COMFYMODAL_TARGET"), "target", "must be 'local' or 'modal'"),
        ]
    )
    assert shown(error, capsys) == [
        "error: c.yaml:2:1: bucket: unknown key (and 2 more)",
        "       c.yaml:3:5: sync.a: has the same place at both ends",
        "       COMFYMODAL_TARGET: target: must be 'local' or 'modal'",
        "hint: `bucket` belongs under `remotes.NAME`",
    ]


def test_problems_without_a_place_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    error = ProjectError("first (and 1 more)", problems=[{"message": "first"}, {"message": "second"}])
    assert shown(error, capsys) == ["error: first (and 1 more)", "       second"]
